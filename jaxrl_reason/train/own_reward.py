"""A user's reward function as the rewards of a method."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.losses import soft_overlong_penalty
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rollouts import Rewards, Rollouts, check_overlong_cache
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.sharding.agreement import divide_rows
from jaxrl_reason.tasks.reward_task import RewardTask, Score

# Smaller differences of rewards in a group are not a signal.
_EQUAL = 1e-6


class FunctionRewards:
    """Rewards of rollouts by a task's function, and the means of their parts.

    [P, G] for a function that returns numbers, [P, G, R] for one that returns parts;
    nan where the function raised, returned a number that is not finite, or other parts
    than for the first response: the loop treats that as a failed grader.

    Args:
      task: has the function.
      problems: the training problems.
    """

    def __init__(self, task: RewardTask, problems: Sequence[Any]) -> None:
        self.task = task
        self._by_id = {p.problem_id: p for p in problems}
        self._sums: dict[str, list[float]] = {}

    def __call__(self, rollouts: Rollouts) -> np.ndarray:
        """The rewards, for `Method.rewards`."""
        groups, tokens = rollouts.correct.shape, rollouts.tokens

        def score(row: int) -> dict[str, float] | None:
            p, g = divmod(row, groups[1])
            found = self._score(
                self._by_id[int(rollouts.problem_ids[p])],
                tokens[p, g, : rollouts.lengths[p, g]].tolist(),
            )
            return None if found is None else dict(found.parts)

        # Of each response by the process that has graded it.
        scores = divide_rows("rewards", math.prod(groups), score)
        names = next((list(parts) for parts in scores if parts is not None), ["reward"])
        out = np.full((len(scores), len(names)), np.nan, np.float32)
        for row, found in zip(out, scores, strict=True):
            if found is not None and set(found) == set(names):
                row[:] = [found[name] for name in names]
        for name, column in zip(names, out.T, strict=True):
            self._sums.setdefault(name, []).extend(column[~np.isnan(column)].tolist())
        parts = out.reshape(*groups, len(names))
        return parts[..., 0] if names == ["reward"] else parts

    def _score(self, problem: Any, ids: list[int]) -> Score | None:
        try:
            found = self.task.score(problem, self.task.tokenizer.decode(ids))
        except Exception:  # a user's function may raise anything; grading has logged it
            return None
        return found if math.isfinite(found.total) else None

    def take_means(self) -> Row:
        """`reward/<part>`, the mean over the responses since the last call."""
        taken, self._sums = self._sums, {}
        return {
            f"reward/{name}": float(np.mean(values))
            for name, values in taken.items()
            if values and name != "reward"
        }


def with_own_reward(
    method: Method,
    rewards: Rewards,
    *,
    max_new_tokens: int,
    overlong_cache: int = 0,
) -> Method:
    """The method with the rewards of a function or a model in place of its own.

    If the method filters groups by signal, groups whose rewards differ have signal:
    such a reward may differ between responses that are all right or all wrong.

    Args:
      method: any.
      rewards: of rollouts.
      max_new_tokens: the length limit.
      overlong_cache: tokens before the limit over which the reward falls by up to 1
        (DAPO's soft penalty); 0 for none.
    """
    given: Rewards = rewards
    if overlong_cache:
        given = with_overlong_penalty(rewards, max_new_tokens, overlong_cache)
    sampling = method.dynamic_sampling
    if sampling is not None:
        sampling = dataclasses.replace(sampling, keep_groups=rewards_differ)
    return dataclasses.replace(method, rewards=given, dynamic_sampling=sampling)


def with_overlong_penalty(rewards: Rewards, limit: int, cache: int) -> Rewards:
    """Adds DAPO's soft overlong penalty, as one more part if there are parts."""
    check_overlong_cache(cache, limit)

    def shaped(rollouts: Rollouts) -> np.ndarray:
        given = rewards(rollouts)
        lengths = jnp.asarray(rollouts.lengths)
        more = np.asarray(
            soft_overlong_penalty(lengths, max_length=limit, cache_length=cache)
        )
        if given.ndim == 2:
            return given + more
        return np.concatenate([given, more[..., None]], axis=-1)

    return shaped


def rewards_differ(rollouts: Rollouts) -> np.ndarray:
    """[P] bool: the groups whose rewards differ."""
    return np.asarray(np.ptp(rollouts.rewards, axis=1) > _EQUAL)
