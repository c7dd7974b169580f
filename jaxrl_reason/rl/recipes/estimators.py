"""Rewards and advantage estimators of recipes: functions of the library, joined."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.learner.multi_objective import component_advantages
from jaxrl_reason.losses import (
    gae,
    gdpo_advantages,
    grpo_advantages,
    implicit_process_rewards,
    kl_in_reward,
    opo_advantages,
    prime_advantages,
    reinforce_pp_advantages,
    reinforce_pp_baseline_advantages,
    remax_advantages,
    rewards_at_end,
    rloo_advantages,
    whiten,
)
from jaxrl_reason.rl.methods import (
    Advantages,
    Experience,
    groups_with_signal,
    without_failed,
)
from jaxrl_reason.rl.rollouts import Rollouts

Estimator = Callable[[Experience], Advantages]


def finished_accuracy(rollouts: Rollouts) -> np.ndarray:
    """1 for a right answer of a response that ended by itself, else 0."""
    return (rollouts.correct & ~rollouts.truncated).astype(np.float32)


def formatted_accuracy(rollouts: Rollouts) -> np.ndarray:
    """1 for a right answer in the task's format, else 0."""
    return (rollouts.correct & rollouts.format_ok).astype(np.float32)


def logic_rewards(rollouts: Rollouts) -> np.ndarray:
    """Logic-RL's totals (arXiv 2502.14768): right 3, wrong -0.5, bad format -3.

    Its -1 for an answer that cannot be read is not told apart from a wrong one: a task
    that does, grades by `jaxrl_reason.grading.logic_reward`.
    """
    answers = np.where(rollouts.correct, 3.0, -0.5)
    return np.where(rollouts.format_ok, answers, -3.0).astype(np.float32)


def middling_groups(
    rollouts: Rollouts, *, low: float = 0.2, high: float = 0.8
) -> np.ndarray:
    """[P]: groups whose accuracy is in [low, high] (PRIME, arXiv 2502.01456)."""
    accuracy = without_failed(rollouts.correct, rollouts.failed).mean(axis=1)
    return (accuracy >= low) & (accuracy <= high)


def rows_with_signal(rollouts: Rollouts) -> np.ndarray:
    """[P, G]: responses of groups that are neither all right nor all wrong."""
    keep = groups_with_signal(rollouts.correct, rollouts.failed)
    return np.repeat(keep[:, None], rollouts.group_size, axis=1)


def rewards_less_kl(x: Experience, coef: float) -> jax.Array:
    """[B, T]: the sequence reward on the last token, k1 to the reference on each."""
    rewards = rewards_at_end(x.rewards, x.mask)
    if not coef:
        return rewards
    assert x.ref_logprobs is not None  # the method says needs_reference
    return kl_in_reward(rewards, x.old_logprobs, x.ref_logprobs, x.mask, coef=coef)


def decoupled_gae(
    actor_lambda: Callable[[jax.Array], float | jax.Array],
    *,
    critic_lambda: float = 1.0,
    gamma: float = 1.0,
) -> Estimator:
    """GAE twice over the same values: one lambda for the policy, one for the critic.

    VC-PPO, arXiv 2503.01491. `actor_lambda` is a function of the response lengths [B]
    and gives a number or [B]. The policy's advantages are whitened over the batch.
    """

    def advantages(x: Experience) -> Advantages:
        assert x.values is not None  # the method has a value loss, so a critic
        rewards = rewards_at_end(x.rewards, x.mask)
        lengths = jnp.asarray(x.lengths)
        actor, _ = gae(
            rewards, x.values, x.mask, gamma=gamma, lam=actor_lambda(lengths)
        )
        _, returns = gae(rewards, x.values, x.mask, gamma=gamma, lam=critic_lambda)
        return Advantages(whiten(actor, x.mask), returns)

    return advantages


def reinforce_pp(kl_coef: float) -> Estimator:
    """REINFORCE++ (arXiv 2501.03262), with k1 in the token rewards."""

    def advantages(x: Experience) -> Advantages:
        return Advantages(reinforce_pp_advantages(rewards_less_kl(x, kl_coef), x.mask))

    return advantages


def reinforce_pp_baseline(x: Experience) -> Advantages:
    """REINFORCE++-baseline: the group's mean off, whitened over all tokens."""
    found = reinforce_pp_baseline_advantages(
        x.rewards, x.group_ids, x.mask, num_groups=x.num_groups
    )
    return Advantages(found)


def rloo(kl_coef: float) -> Estimator:
    """RLOO (arXiv 2402.14740) on sequence rewards that hold the KL of all tokens."""

    def advantages(x: Experience) -> Advantages:
        rewards = jnp.sum(rewards_less_kl(x, kl_coef), axis=1)
        found = rloo_advantages(rewards, x.group_ids, num_groups=x.num_groups)
        return Advantages(found)

    return advantages


def remax(x: Experience) -> Advantages:
    """ReMax (arXiv 2310.10505): the reward of the greedy response as the baseline."""
    assert x.greedy_rewards is not None  # the method has a greedy baseline
    return Advantages(remax_advantages(x.rewards, x.greedy_rewards))


def gdpo(x: Experience) -> Advantages:
    """GDPO (arXiv 2601.05242): each reward standardised inside its group."""
    assert x.components is not None  # the method's rewards have components
    found = gdpo_advantages(x.components, x.group_ids, num_groups=x.num_groups)
    return Advantages(found)


def by_component(estimator: Callable[..., jax.Array]) -> Estimator:
    """Advantages [B, T, K] of each reward on its own, for `Method.combine`."""

    def advantages(x: Experience) -> Advantages:
        assert x.components is not None  # the method's rewards have components
        found = component_advantages(
            estimator, x.components, x.mask, x.group_ids, num_groups=x.num_groups
        )
        return Advantages(found)

    return advantages


def prime(
    *, beta: float, process_coef: float = 1.0, outcome_coef: float = 1.0
) -> Estimator:
    """PRIME (arXiv 2502.01456): leave-one-out of process rewards and of outcomes."""

    def advantages(x: Experience) -> Advantages:
        assert x.reward_logprobs is not None  # the method trains an implicit reward
        assert x.ref_logprobs is not None
        process = implicit_process_rewards(
            x.reward_logprobs, x.ref_logprobs, x.mask, beta=beta
        )
        found = prime_advantages(
            process,
            x.rewards,
            x.mask,
            x.group_ids,
            num_groups=x.num_groups,
            process_coef=process_coef,
            outcome_coef=outcome_coef,
        )
        return Advantages(found)

    return advantages


def opo(x: Experience) -> Advantages:
    """OPO (arXiv 2505.23585): the group's mean weighted by length as the baseline."""
    found = opo_advantages(x.rewards, x.lengths, x.group_ids, num_groups=x.num_groups)
    return Advantages(found)


def grpo_without_truncated(x: Experience) -> Advantages:
    """GRPO's advantages, 0 for responses that the limit stopped (SRPO, 2504.14286).

    Their tokens stay in the denominators, unlike those of overlong filtering.
    """
    found = grpo_advantages(x.rewards, x.group_ids, num_groups=x.num_groups)
    assert x.truncated is not None  # the loop gives it
    return Advantages(jnp.where(x.truncated, 0.0, found))
