"""Rollouts: sample, grade, keep the groups that carry signal, refill."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.sampler import Completions, sampling_keys
from jaxrl_reason.tasks.task import Graded, Task
from jaxrl_reason.training.batch import Rollouts, concatenate
from jaxrl_reason.training.methods import (
    Method,
    groups_with_signal,
    without_failed,
)
from jaxrl_reason.training.minibatches import Placement
from jaxrl_reason.training.monitor import PhaseTimer

# (params, prompt_tokens [P, Tp], prompt_lengths [P], keys [P * G]) -> Completions
SampleFn = Callable[[Any, jax.Array, jax.Array, jax.Array], Completions]


_LOG = logging.getLogger(__name__)


class NoSignalError(RuntimeError):
    """Dynamic sampling found too few groups with signal within its bound."""


class GraderError(RuntimeError):
    """The grader failed on every response of a round."""


@dataclass(frozen=True)
class Collected:
    """One batch of groups to train on and what it took to get it."""

    rollouts: Rollouts  # [P, ...] the batch, oldest groups first
    fresh: Rollouts  # all groups sampled now, before the filter
    surplus: Rollouts | None  # groups with signal kept for the next step
    rounds: int
    accepted: int  # of the fresh groups


def prompt_batch(
    task: Task, problems: Sequence[Any], width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Prompt tokens [P, width], padded on the right, and lengths [P].

    Raises:
      ValueError: a prompt is empty or longer than `width`; names the problem.
    """
    tokens = np.zeros((len(problems), width), np.int32)
    lengths = np.zeros(len(problems), np.int32)
    for i, problem in enumerate(problems):
        ids = task.prompt_tokens(problem)
        if not 1 <= len(ids) <= width:
            raise ValueError(
                f"a prompt must have 1 to {width} tokens, got {len(ids)} "
                f"for problem {problem.problem_id}"
            )
        tokens[i, : len(ids)] = ids
        lengths[i] = len(ids)
    return tokens, lengths


def sample_groups(
    task: Task,
    sample: SampleFn,
    params: Any,
    problems: Sequence[Any],
    *,
    group_size: int,
    prompt_width: int,
    seed: int,
    draw: int,
    policy_step: int,
    place: Placement,
    timer: PhaseTimer,
) -> Rollouts:
    """Samples G responses a problem and grades them; rewards are still zero.

    Args:
      task: gives prompts and grades responses.
      sample: the jitted sampler.
      params: of the policy.
      problems: P problems, no two the same.
      group_size: G.
      prompt_width: Tp.
      seed: of the run.
      draw: which rollout of the run this is; with the seed, the problem and the sample
        it fixes the randomness, whatever the mesh or the order.
      policy_step: recorded with the groups.
      place: puts prompts and keys on the mesh.
      timer: gets the seconds of "rollout" and "grade".
    """
    prompts, lengths = prompt_batch(task, problems, prompt_width)
    ids = np.array([p.problem_id for p in problems], np.int64)
    shape = (len(problems), group_size)
    with timer("rollout"):
        keys = sampling_keys(seed, draw, jnp.asarray(ids, jnp.uint32), group_size)
        inputs = place.leading((prompts, lengths, keys))
        done = jax.device_get(sample(params, *inputs))
    with timer("grade"):
        grades = grade_rows(task, problems, done, group_size)
    return Rollouts(
        problem_ids=ids,
        prompt_tokens=prompts,
        prompt_lengths=lengths,
        tokens=done.tokens.reshape(*shape, -1),
        sampler_logprobs=done.logprobs.reshape(*shape, -1),
        lengths=done.lengths.reshape(shape),
        truncated=done.truncated.reshape(shape),
        correct=grades[0].reshape(shape),
        format_ok=grades[1].reshape(shape),
        failed=grades[2].reshape(shape),
        rewards=np.zeros(shape, np.float32),
        policy_step=np.full(len(problems), policy_step, np.int64),
    )


def grade_rows(
    task: Task, problems: Sequence[Any], done: Completions, group_size: int
) -> np.ndarray:
    """[3, P * G] bool: correct, format_ok, failed of every response.

    A grader that raises has failed on that response: it is counted, logged once a
    round, and the batch goes on without it.

    Raises:
      GraderError: the grader raised on every response.
    """
    out = np.zeros((3, len(done.lengths)), bool)
    errors: list[Exception] = []
    for i, n in enumerate(done.lengths):
        text = task.tokenizer.decode(done.tokens[i, :n].tolist())
        try:
            found = task.grade(problems[i // group_size], text, bool(done.truncated[i]))
        except Exception as error:  # a user's grader may raise anything
            errors.append(error)
            found = Graded(correct=False, format_ok=False, parsed=None, failed=True)
        out[:, i] = found.correct, found.format_ok, found.failed
    if errors:
        said = (
            f"the grader raised on {len(errors)} of {len(done.lengths)} responses, "
            f"first {errors[0]!r}"
        )
        if len(errors) == len(done.lengths):
            raise GraderError(said) from errors[0]
        _LOG.warning("%s", said)
    return out


def give_rewards(method: Method, rollouts: Rollouts) -> Rollouts:
    """Adds the method's rewards; one that is not finite counts as a failed grade.

    Raises:
      ValueError: the rewards are not of shape [P, G].
    """
    rewards = np.asarray(method.rewards(rollouts), np.float32)
    if rewards.shape != rollouts.correct.shape:
        raise ValueError(
            f"rewards must have the shape [P, G] = {rollouts.correct.shape} of the "
            f"rollouts, got {rewards.shape}"
        )
    failed = rollouts.failed | ~np.isfinite(rewards)
    return replace(rollouts, rewards=without_failed(rewards, failed), failed=failed)


def collect_groups(
    draw_groups: Callable[[Sequence[Any], int], Rollouts],
    problems: Iterator[Sequence[Any]],
    method: Method,
    *,
    num_prompts: int,
    surplus: Rollouts | None,
    first_draw: int,
    max_rounds: int,
) -> Collected:
    """Fills a batch of `num_prompts` groups.

    With dynamic sampling only groups with some right and some wrong answers count, and
    rounds go on until the batch is full (arXiv 2503.14476 Algorithm 1); what is left
    over starts the next step's batch. Without it one round is the batch.

    Raises:
      NoSignalError: `max_rounds` rounds did not fill the batch.
    """
    pool = [] if surplus is None else [surplus]
    fresh: list[Rollouts] = []
    accepted = 0
    while sum(p.num_prompts for p in pool) < num_prompts:
        if len(fresh) == max_rounds:
            raise NoSignalError(no_signal_message(concatenate(fresh), num_prompts))
        round_ = draw_groups(next(problems), first_draw + len(fresh))
        round_ = give_rewards(method, round_)
        fresh.append(round_)
        keep = np.ones(round_.num_prompts, bool)
        if method.dynamic_sampling:
            keep = groups_with_signal(round_.correct, round_.failed)
        accepted += int(keep.sum())
        pool.append(round_.select(np.flatnonzero(keep)))
    full = concatenate(pool)
    rest = full.num_prompts - num_prompts
    return Collected(
        rollouts=full.select(slice(0, num_prompts)),
        fresh=concatenate(fresh),
        surplus=full.select(slice(num_prompts, None)) if rest else None,
        rounds=len(fresh),
        accepted=accepted,
    )


def no_signal_message(fresh: Rollouts, num_prompts: int) -> str:
    """What dynamic sampling saw, and what to change."""
    right = (fresh.correct | fresh.failed).all(axis=1).mean()
    wrong = (~fresh.correct).all(axis=1).mean()
    mixed = int(groups_with_signal(fresh.correct, fresh.failed).sum())
    advice = (
        "most groups are all wrong: use easier problems, prime the model further or "
        "raise group_size"
        if wrong >= right
        else "most groups are all right: use harder problems or stop here"
    )
    return (
        f"dynamic sampling must fill {num_prompts} groups with signal, got {mixed} of "
        f"{fresh.num_prompts} sampled ({right:.0%} all right, {wrong:.0%} all wrong); "
        f"{advice}, or raise max_rounds"
    )
