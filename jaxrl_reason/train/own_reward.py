"""The rewards of a task as the rewards of a method."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxrl_reason.losses import soft_overlong_penalty
from jaxrl_reason.rl.graded_groups import REWARD_PARTS
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rollouts import Rewards, Rollouts, check_overlong_cache
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.tasks.reward_task import RewardTask

# Metrics of every run, which a part of the same name would hide.
METRICS = (
    *("mean", "accuracy", "format_fraction"),
    *("grader_failed_fraction", "unchecked_fraction"),
)
# Smaller differences of rewards in a group are not a signal.
_EQUAL = 1e-6


class TaskRewards:
    """Rewards of rollouts as their task has given them, and the means of their parts.

    [P, G] for a single number, [P, G, R] for several parts, each times its weight; nan
    where a reward failed or has other parts than the first response of the run: the
    loop treats that as a failed grader.

    Args:
      task: has graded the rollouts.
    """

    def __init__(self, task: RewardTask) -> None:
        self.task = task
        self._sums: dict[str, list[float]] = {}

    def __call__(self, rollouts: Rollouts) -> np.ndarray:
        """The rewards, for `Method.rewards`.

        Args:
          rollouts: graded by the task.

        Returns:
          The rewards.

        Raises:
          ValueError: a part has the name of a metric of every run.
        """
        parts = rollouts.extras[REWARD_PARTS]  # [P, G, R]
        names = self.task.part_names([])
        for name in names:
            if name in METRICS:
                raise ValueError(
                    f"a part of a reward must not be called {', '.join(METRICS)}, got "
                    f"{name}"
                )
        for name, column in zip(names, np.moveaxis(parts, -1, 0), strict=True):
            self._sums.setdefault(name, []).extend(column[~np.isnan(column)].tolist())
        weights = np.array([self.task.weight_of(name) for name in names], np.float32)
        rewards = parts * weights
        return rewards[..., 0] if len(names) == 1 else rewards

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
