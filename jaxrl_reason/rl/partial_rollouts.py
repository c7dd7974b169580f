"""Partial rollouts: responses that go on under later policies.

A response gets `partial_tokens` tokens in one round of sampling. One that has not ended
goes on in the next round, under the parameters of then, so that no round waits for the
longest responses (arXiv 2501.12599, section 2.6.2). A group counts once all of its
responses have ended; the extra `token_steps` names the policy of every token. Random
keys belong to columns: under parameters that do not change, the tokens are those of
responses drawn in one piece.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.collect import SampleFn, sample_groups
from jaxrl_reason.rl.components import ComponentLearner
from jaxrl_reason.rl.graded_groups import GroupGrading
from jaxrl_reason.rl.rollouts import Rollouts, concatenate
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.sampler import (
    Completions,
    RolloutEngine,
    SamplingSettings,
    make_sampler,
    sampling_keys,
)
from jaxrl_reason.sampler.sample_loop import pad_prompts
from jaxrl_reason.sharding import BatchSharding
from jaxrl_reason.tasks.task import Graded, Task, TaskWrapper

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_settings import RLSettings

# Extras of groups with responses that have not ended: which, and the first draw.
_OPEN, _DRAW = "open", "draw"  # [P, G] bool, [P]


@dataclass(frozen=True)
class PartialSampler:
    """Draws the groups of a round, and goes on with those of earlier rounds.

    Attributes:
      task: grades groups once all of their responses have ended.
      start: the sampler of new responses, with `partial_tokens` as its limit.
      go_on: one that draws a row's next `partial_tokens` tokens: (params, tokens so far
        [P, W], lengths [P], keys [P], first response columns [P]).
      group_size: G.
      prompt_width: Tp.
      partial_tokens: the tokens of one round; divides `max_new_tokens`.
      max_new_tokens: T, the longest response.
      seed: of the run.
      batch_sharding: places prompts and keys on the mesh.
    """

    task: Task
    start: SampleFn
    go_on: Callable[..., Completions]
    group_size: int
    prompt_width: int
    partial_tokens: int
    max_new_tokens: int
    seed: int
    batch_sharding: BatchSharding

    def round(
        self,
        params: Any,
        problems: Sequence[Any],
        find: Callable[[int], Any],
        unfinished: Rollouts | None,
        *,
        draw: int,
        policy_step: int,
        timer: PhaseTimer,
    ) -> tuple[Rollouts, Rollouts | None]:
        """One round of sampling.

        Args:
          params: of the policy.
          problems: P distinct new problems.
          find: the problem of a number.
          unfinished: of the last round.
          draw: the number of this round in the run.
          policy_step: the step of the policy.
          timer: records the seconds of "rollout" and "grade".

        Returns:
          Groups whose responses have all ended, graded, oldest first, and the others.
        """
        new = sample_groups(
            task=_Ungraded(self.task),
            sample=self.start,
            params=params,
            problems=problems,
            group_size=self.group_size,
            prompt_width=self.prompt_width,
            seed=self.seed,
            draw=draw,
            policy_step=policy_step,
            batch_sharding=self.batch_sharding,
            timer=timer,
        )
        groups = self._opened(new, draw)
        if unfinished is not None:
            with timer("rollout"):
                older = self._continued(params, unfinished, policy_step, len(problems))
            groups = concatenate([older, groups])
        waits = groups.extras[_OPEN].any(axis=1)  # [P]
        with timer("grade"):
            done = self._graded(groups.select(np.flatnonzero(~waits)), find)
        rest = groups.select(np.flatnonzero(waits)) if waits.any() else None
        return done, rest

    def _opened(self, new: Rollouts, draw: int) -> Rollouts:
        """New groups with room for all tokens, and what is known of their ends."""
        p, g = new.lengths.shape
        room = [(0, 0), (0, 0), (0, self.max_new_tokens - self.partial_tokens)]
        tokens = np.pad(new.tokens, room)
        return replace(
            new,
            tokens=tokens,
            sampler_logprobs=np.pad(new.sampler_logprobs, room),
            truncated=np.zeros((p, g), bool),
            extras={
                "token_steps": np.broadcast_to(
                    new.policy_step[:, None, None], tokens.shape
                ),
                _OPEN: new.truncated,
                _DRAW: np.full(p, draw, np.int64),
            },
        )

    def _continued(
        self, params: Any, groups: Rollouts, policy_step: int, rows: int
    ) -> Rollouts:
        """The same groups after one round more, `rows` responses at a time."""
        x = jax.tree.map(np.array, groups)  # filled below
        keys = self._keys(groups)  # [P, G]
        size, n = self.partial_tokens, groups.lengths
        for length in np.unique(n[x.extras[_OPEN]]).tolist():
            at = np.argwhere(x.extras[_OPEN] & (n == length))
            full = length + size == self.max_new_tokens
            for part in (at[i : i + rows] for i in range(0, len(at), rows)):
                # Always as many rows, so that nothing is compiled anew.
                p, g = np.resize(part, (rows, 2)).T
                inputs = (
                    *self._so_far(x, p, g, length),
                    keys[p, g],
                    np.full(rows, length, np.int32),
                )
                placed = self.batch_sharding.put_batch(inputs)
                done = self.batch_sharding.fetch(self.go_on(params, *placed))
                p, g, count = *part.T, len(part)
                columns = slice(length, length + size)
                x.tokens[p, g, columns] = done.tokens[:count]
                x.sampler_logprobs[p, g, columns] = done.logprobs[:count]
                x.extras["token_steps"][p, g, columns] = policy_step
                x.lengths[p, g] += done.lengths[:count]
                x.extras[_OPEN][p, g] = done.truncated[:count] & (not full)
                x.truncated[p, g] = done.truncated[:count] & full
        return x

    def _so_far(
        self, x: Rollouts, p: np.ndarray, g: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prompts with their responses' first tokens, padded, and their lengths."""
        texts = [
            [*x.prompt_tokens[i, : x.prompt_lengths[i]], *x.tokens[i, j, :length]]
            for i, j in zip(p, g, strict=True)
        ]
        ids = x.problem_ids[p].tolist()
        return pad_prompts(texts, ids, self.prompt_width + length)

    def _keys(self, groups: Rollouts) -> jax.Array:
        """[P, G] the keys that the groups were begun with."""
        draws = groups.extras[_DRAW].tolist()
        ids = jnp.asarray(groups.problem_ids, jnp.uint32)
        return jnp.stack(
            [
                sampling_keys(self.seed, draw, ids[i : i + 1], self.group_size)
                for i, draw in enumerate(draws)
            ]
        )

    def _graded(self, groups: Rollouts, find: Callable[[int], Any]) -> Rollouts:
        """Whole groups with their grades, without the extras of unfinished ones."""
        problems = [find(int(i)) for i in groups.problem_ids]
        fields: Any = (
            groups.tokens,
            groups.sampler_logprobs,
            groups.lengths,
            groups.truncated,
        )
        done = Completions(*(x.reshape(-1, *x.shape[2:]) for x in fields))
        parted = self.batch_sharding.mesh.is_multi_process
        step = int(groups.policy_step.max(initial=0))
        grades = GroupGrading(
            self.task, problems, self.group_size, step=step, parted=parted
        ).finish(done)
        return replace(
            groups,
            correct=grades.correct,
            format_ok=grades.format_ok,
            failed=grades.failed,
            unchecked=grades.unchecked,
            extras={"token_steps": groups.extras["token_steps"], **grades.extras},
        )


@dataclass
class PartialRounds:
    """The rounds of one step, as `collect_groups` asks for them.

    Attributes:
      sampler: of the run.
      params: of the policy that draws.
      policy_step: its step.
      find: the problem of a number.
      timer: of the phases.
      unfinished: groups that go on, after each round.
    """

    sampler: PartialSampler
    params: Any
    policy_step: int
    find: Callable[[int], Any]
    timer: PhaseTimer
    unfinished: Rollouts | None

    def __call__(self, problems: Sequence[Any], draw: int) -> Rollouts:
        """The groups that end in this round."""
        done, self.unfinished = self.sampler.round(
            self.params,
            problems,
            self.find,
            self.unfinished,
            draw=draw,
            policy_step=self.policy_step,
            timer=self.timer,
        )
        return done


class _Ungraded(TaskWrapper):
    """The same prompts; grades come when all responses of a group have ended."""

    def grade(self, problem: Any, response_text: str, truncated: bool) -> Graded:
        return Graded(correct=False, format_ok=False, parsed=None)


def finder(problems: Any) -> Callable[[int], Any]:
    """What finds the problem of a number in a stream.

    Raises:
      ValueError: the stream cannot.
    """
    find: Callable[[int], Any] | None = getattr(problems, "find", None)
    if find is None:
        raise ValueError(
            f"partial_tokens needs a stream with find(problem_id), got "
            f"{type(problems).__name__}"
        )
    return find


def build_partial_sampler(
    model: Transformer,
    task: Task,
    settings: "RLSettings",
    batch_sharding: BatchSharding,
    components: Sequence[ComponentLearner],
    sample: SampleFn | None,
) -> PartialSampler | None:
    """The sampler of a run's settings; None if they draw responses in one piece.

    Args:
      model: the policy's.
      task: of the run.
      settings: of the run.
      batch_sharding: places prompts and keys on the mesh.
      components: of the method, built.
      sample: a sampler of the run's own for new responses, with `partial_tokens` as
        its limit.

    Raises:
      ValueError: the limit is not a multiple of the tokens, a component reads
        responses as they are drawn, or an engine draws.
    """
    if not settings.partial_tokens:
        return None
    check_partial(settings, components, sample)
    sampling = SamplingSettings(
        max_new_tokens=settings.partial_tokens,
        eos_token_ids=task.eos_token_ids,
        temperature=settings.temperature,
    )
    return PartialSampler(
        task=task,
        start=sample or make_sampler(model, sampling, settings.group_size),
        go_on=make_sampler(model, sampling, 1),
        group_size=settings.group_size,
        prompt_width=settings.prompt_width,
        partial_tokens=settings.partial_tokens,
        max_new_tokens=settings.max_new_tokens,
        seed=settings.seed,
        batch_sharding=batch_sharding,
    )


def check_partial(
    settings: "RLSettings",
    components: Sequence[ComponentLearner],
    sample: SampleFn | None,
) -> None:
    """Raises as `build_partial_sampler`."""
    tokens = settings.partial_tokens
    if settings.max_new_tokens % tokens:
        raise ValueError(
            f"partial_tokens must divide max_new_tokens ({settings.max_new_tokens}), "
            f"got {tokens}"
        )
    more = [c.name for c in components if c.adds_to_rollouts]
    if more:
        raise ValueError(
            f"partial_tokens must be 0 for a method that adds to the rollouts, got "
            f"{tokens} with {', '.join(more)}"
        )
    if isinstance(sample, RolloutEngine):
        raise ValueError(
            f"partial_tokens must be 0 with an engine, which schedules responses "
            f"itself, got {tokens}"
        )
