"""Samples and grades groups, keeps those with signal, and refills the batch."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.grading.reward_call import LARGEST
from jaxrl_reason.rl.graded_groups import GroupGrading
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rollouts import Rollouts, concatenate, without_failed
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row
from jaxrl_reason.runs.update_guard import NotFiniteError, not_finite
from jaxrl_reason.sampler import Completions, RolloutEngine, sampling_keys
from jaxrl_reason.sampler.sample_loop import pad_prompts
from jaxrl_reason.serving import EngineError
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.tasks.grade_responses import GraderError
from jaxrl_reason.tasks.task import Task

# (params, prompt_tokens [P, Tp], prompt_lengths [P], keys [P * G]) -> Completions
SampleFn = Callable[..., Completions]


class NoSignalError(RuntimeError):
    """Dynamic sampling found too few groups with signal in `max_rounds` rounds."""


# What leaves a step without a batch; the state of before is whole. Where a machine is
# taken away, engines and servers of rewards go with it, so a run that is asked to stop
# ends as if the step had not begun.
NO_BATCH = (NoSignalError, GraderError, EngineError)


@dataclass(frozen=True)
class Collected:
    """One batch of groups to train on, and the sampling that produced it.

    Attributes:
      rollouts: [P, ...] the batch, oldest groups first.
      fresh: all groups sampled in this step, before the filter.
      surplus: groups with signal that are kept for the next step.
      rounds: how many rounds of sampling it took.
      accepted: number of fresh groups with signal.
      unfinished: groups with responses that go on in the next step.
    """

    rollouts: Rollouts
    fresh: Rollouts
    surplus: Rollouts | None
    rounds: int
    accepted: int
    unfinished: Rollouts | None = None


def sample_groups(
    *,
    task: Task,
    sample: SampleFn,
    params: Any,
    problems: Sequence[Any],
    group_size: int,
    prompt_width: int,
    seed: int,
    draw: int,
    policy_step: int,
    batch_sharding: BatchSharding,
    timer: PhaseTimer,
    may_all_fail: bool = False,
) -> Rollouts:
    """Samples G responses per problem and grades them; rewards are still zero.

    Args:
      task: makes prompts and grades responses.
      sample: the jitted sampler, or a rollout engine, which gets the parameters.
      params: of the policy.
      problems: P distinct problems.
      group_size: G.
      prompt_width: Tp.
      seed: of the run.
      draw: the number of this rollout in the run; with the seed, the problem and the
        sample it fixes the randomness, independent of the mesh and the order.
      policy_step: the step of the policy; recorded with the groups, unless an engine
        reports that it sampled them with another.
      batch_sharding: places prompts and keys on the mesh.
      timer: records the seconds of "rollout", "grade", "grade_ahead" (during the
        rollout) and, with an engine, "weight_sync".
      may_all_fail: whether it is no error that all grades fail.

    Raises:
      GraderError: the grader failed on every response.
      NotFiniteError: the sampler's log-probs are nan or infinite.
    """
    prompts, lengths = pad_prompts(
        [task.prompt_tokens(problem) for problem in problems],
        [problem.problem_id for problem in problems],
        prompt_width,
    )
    ids = np.array([p.problem_id for p in problems], np.int64)
    shape = (len(problems), group_size)
    if isinstance(sample, RolloutEngine):
        with timer("weight_sync"):
            sample.update_weights(params, policy_step)
    with GroupGrading(
        task,
        problems,
        group_size,
        step=policy_step,
        parted=batch_sharding.mesh.is_multi_process,
        may_all_fail=may_all_fail,
    ) as grading:
        with timer("rollout"):
            keys = sampling_keys(seed, draw, jnp.asarray(ids, jnp.uint32), group_size)
            inputs = batch_sharding.put_batch((prompts, lengths, keys))
            drawn = sample(params, *inputs, **grading.hooks(sample))
            done = batch_sharding.fetch(drawn)
        check_logprobs(done, params)
        with timer("grade"):
            grades = grading.finish(done)
    if grading.ahead_seconds:
        timer.add("grade_ahead", grading.ahead_seconds)
    versions = np.full(len(problems), policy_step, np.int64)  # [P]
    if done.policy_version is not None:  # of a group sampled with several, the oldest
        versions = np.asarray(done.policy_version, np.int64).reshape(shape).min(axis=1)
    return Rollouts(
        problem_ids=ids,
        prompt_tokens=prompts,
        prompt_lengths=lengths,
        tokens=done.tokens.reshape(*shape, -1),
        sampler_logprobs=done.logprobs.reshape(*shape, -1),
        lengths=done.lengths.reshape(shape),
        truncated=done.truncated.reshape(shape),
        correct=grades.correct,
        format_ok=grades.format_ok,
        failed=grades.failed,
        unchecked=grades.unchecked,
        rewards=np.zeros(shape, np.float32),
        policy_step=versions,
        extras=grades.extras,
    )


def check_logprobs(done: Completions, params: Any) -> None:
    """Raises for log-probs of sampled tokens that are not finite.

    What such a model says is no response: it would be graded as wrong.

    Args:
      done: of the sampler, on the host.
      params: that it sampled with.

    Raises:
      NotFiniteError: names the parameters that are not finite.
    """
    logprobs = np.asarray(done.logprobs)
    sampled = np.arange(logprobs.shape[-1]) < np.asarray(done.lengths)[..., None]
    odd = (sampled & ~np.isfinite(logprobs)).any(axis=-1)  # [B]
    if odd.any():
        found = not_finite({"parameters": params}) or ["none of the parameters"]
        raise NotFiniteError(
            f"log-probs of the sampler must be finite, got nan or inf in {odd.sum()} "
            f"of {odd.size} responses; not finite: {'; '.join(found)}"
        )


def compute_rewards(method: Method, rollouts: Rollouts) -> Rollouts:
    """Adds the method's rewards.

    A reward that is not finite, or so large that the statistics of a group in float32
    lose the others, counts as a failed grade.

    Raises:
      ValueError: the rewards are not of shape [P, G], or [P, G, R] for R components.
      GraderError: every response has failed.
    """
    given = as_numbers(method.rewards(rollouts))
    if given.shape[:2] != rollouts.correct.shape or given.ndim > 3:
        raise ValueError(
            f"rewards must have the shape [P, G] = {rollouts.correct.shape} of the "
            f"rollouts, or [P, G, R], got {given.shape}"
        )
    parts = given[..., None] if given.ndim == 2 else given
    usable = np.isfinite(parts) & (np.abs(parts) <= LARGEST)
    failed = rollouts.failed | ~usable.all(axis=-1)
    if failed.size and failed.all():
        raise GraderError(all_failed_message(parts[~usable], failed.size))
    if failed.any():
        each = [without_failed(part, failed) for part in np.moveaxis(parts, -1, 0)]
        parts = np.stack(each, axis=-1)
    extras = {k: x for k, x in rollouts.extras.items() if k != "reward_components"}
    if given.ndim == 3:
        extras["reward_components"] = parts
    return replace(rollouts, rewards=parts.sum(axis=-1), extras=extras, failed=failed)


def all_failed_message(unusable: np.ndarray, count: int) -> str:
    """The text of the error if no response of a round has a reward."""
    if not unusable.size:
        return f"the grader failed on {count} of {count} responses"
    return (
        f"rewards must be finite and at most {LARGEST:g} in size, got {unusable[0]:g} "
        f"and none of {count} that can be used"
    )


def as_numbers(rewards: Any) -> np.ndarray:
    """Rewards as an array of float32.

    Args:
      rewards: of `Method.rewards`.

    Raises:
      ValueError: they are no numbers, or of different shapes.
    """
    try:
        with np.errstate(over="ignore"):  # to infinite, which is not finite
            return np.asarray(rewards, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"rewards must be an array of numbers, got {rewards!r:.80}"
        ) from error


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

    With dynamic sampling only groups with both right and wrong answers count, and
    sampling continues until the batch is full (arXiv 2503.14476 Algorithm 1); surplus
    groups start the next step's batch. If only a fraction of the batch must have
    signal, it continues until that is reached or `max_rounds` are used up. Otherwise
    one round is the batch.

    Raises:
      NoSignalError: `max_rounds` rounds did not fill the batch of dynamic sampling, or
      found no group with signal although a fraction must have it.
    """
    filter_ = method.dynamic_sampling
    only_signal = filter_ is not None and filter_.fraction == 1
    needed = 0 if filter_ is None else math.ceil(filter_.fraction * num_prompts)
    pool = [] if surplus is None else [surplus]
    signal = np.ones(0 if surplus is None else len(surplus.problem_ids), bool)
    fresh: list[Rollouts] = []
    accepted, full = 0, False
    while not full and len(fresh) < max_rounds:
        round_ = draw_groups(next(problems), first_draw + len(fresh))
        round_ = compute_rewards(method, round_)
        fresh.append(round_)
        keep = np.ones(len(round_.problem_ids), bool)  # [P]
        if filter_ is not None:
            keep = np.asarray(filter_.keep_groups(round_), bool)
        accepted += int(keep.sum())
        taken = keep if only_signal else np.ones_like(keep)
        pool.append(round_.select(np.flatnonzero(taken)))
        signal = np.concatenate([signal, keep[taken]])  # of the groups in the pool
        full = len(signal) >= num_prompts and int(signal.sum()) >= needed
    if not full and (only_signal or not signal.any()):
        raise NoSignalError(no_signal_message(concatenate(fresh), accepted, needed))
    # Groups with signal replace those without, the newest of these first.
    without = np.flatnonzero(~signal)
    excess = max(0, len(signal) - num_prompts)
    dropped = without[max(0, len(without) - excess) :]
    kept = np.setdiff1d(np.arange(len(signal)), dropped)  # oldest first
    chosen, rest = kept[:num_prompts], kept[num_prompts:]
    groups = concatenate(pool)
    return Collected(
        rollouts=groups.select(chosen),
        fresh=concatenate(fresh),
        surplus=groups.select(rest) if len(rest) else None,
        rounds=len(fresh),
        accepted=accepted,
    )


def no_signal_message(fresh: Rollouts, accepted: int, needed: int) -> str:
    """The text of the error: what was sampled, and what to change."""
    judged = ~fresh.failed.all(axis=1)  # [P]
    right = float(((fresh.correct | fresh.failed).all(axis=1) & judged).mean())
    wrong = float((~fresh.correct.any(axis=1) & judged).mean())
    failed, mixed = float(fresh.failed.mean()), 1 - right - wrong - (~judged).mean()
    seen = f"{right:.0%} all right, {wrong:.0%} all wrong"
    if failed:
        seen += f", the grader failed on {failed:.0%} of the responses"
    if failed > max(right, wrong, mixed):
        advice = "the grader fails: look at its first error in run.log"
    elif mixed > max(right, wrong):
        advice = (
            "right and wrong answers to a question get the same reward: change the "
            "reward"
        )
    elif wrong >= right:
        advice = (
            "most groups are all wrong: use easier problems, fine-tune further or "
            "raise group_size"
        )
    else:
        advice = "most groups are all right: use harder problems or stop here"
    return (
        f"dynamic sampling must fill {needed} groups with signal, got {accepted} of "
        f"{len(fresh.problem_ids)} sampled ({seen}); {advice}, or raise max_rounds"
    )


def rollout_metrics(collected: Collected) -> Row:
    """Rewards, lengths and group fractions over all fresh samples, before the filter.

    Right and wrong are fractions of the responses that could be graded.
    """
    fresh, surplus = collected.fresh, collected.surplus
    sampled = len(fresh.problem_ids)
    wrong = ~fresh.correct & ~fresh.failed
    judged = ~fresh.failed.all(axis=1)
    row = {
        "reward/mean": fresh.rewards.mean(),
        "reward/accuracy": fresh.correct.sum() / max(1, (~fresh.failed).sum()),
        "reward/format_fraction": fresh.format_ok.mean(),
        "reward/grader_failed_fraction": fresh.failed.mean(),
        "reward/unchecked_fraction": fresh.unchecked.mean(),
        "rollout/length_mean": fresh.lengths.mean(),
        "rollout/length_max": fresh.lengths.max(),
        "rollout/truncated_fraction": fresh.truncated.mean(),
        "groups/all_correct_fraction": (~wrong.any(axis=1) & judged).mean(),
        "groups/all_wrong_fraction": (~fresh.correct.any(axis=1) & judged).mean(),
        "groups/equal_rewards_fraction": (np.ptp(fresh.rewards, axis=1) == 0).mean(),
        "groups/sampled": sampled,
        "groups/accepted": collected.accepted,
        "groups/accepted_fraction": collected.accepted / sampled,
        "groups/surplus": len(surplus.problem_ids) if surplus else 0,
        "groups/rounds": collected.rounds,
    }
    for name, kind in (
        ("rollout/length_correct", fresh.correct),
        ("rollout/length_wrong", wrong),
    ):
        if kind.any():
            row[name] = fresh.lengths[kind].mean()
    return {name: float(value) for name, value in row.items()}
