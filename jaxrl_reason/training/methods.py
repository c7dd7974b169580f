"""A method is a value: which functions the loop calls, and what they need.

`dapo`, `grpo`, `dr_grpo` and `ppo` build the published ones from the functions of
`jaxrl_reason.losses`; a method of your own is `Method(loss=my_loss, ...)` in your file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from chex import Array
from flax import struct

from jaxrl_reason.losses import (
    dapo_loss,
    dr_grpo_advantages,
    dr_grpo_loss,
    gae,
    group_signal,
    grpo_advantages,
    grpo_loss,
    kl_in_reward,
    ppo_loss,
    soft_overlong_penalty,
    value_loss,
)
from jaxrl_reason.training.batch import Rollouts

LossFn = Callable[..., tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]]
LOSS_INPUTS = (
    "entropy",
    "ref_logprobs",
    "sampler_logprobs",
    "group_ids",
    "correct",
    "weights",
    "selected",
)


@struct.dataclass
class Experience:
    """What an advantage estimator may look at: B = P * G sequences, T tokens."""

    rewards: Array  # [B] shaped sequence rewards
    lengths: Array  # [B] response tokens
    mask: Array  # [B, T] True on response tokens
    group_ids: Array  # [B]
    old_logprobs: Array  # [B, T]
    ref_logprobs: Array | None  # [B, T] if the method has a reference
    values: Array | None  # [B, T] if the method has a critic
    num_groups: int = struct.field(pytree_node=False)
    truncated: Array | None = None  # [B] stopped by the length limit


@struct.dataclass
class Advantages:
    """Advantages [B] or [B, T]; value targets [B, T] if a critic learns from them."""

    advantages: Array
    returns: Array | None = None


def signed_accuracy(rollouts: Rollouts) -> np.ndarray:
    """+1 for a right answer, -1 for a wrong one (DAPO, arXiv 2503.14476 eq. 7)."""
    return np.where(rollouts.correct, 1.0, -1.0).astype(np.float32)


def binary_accuracy(rollouts: Rollouts) -> np.ndarray:
    """1 for a right answer, 0 for a wrong one."""
    return rollouts.correct.astype(np.float32)


def with_format_reward(
    rewards: Callable[[Rollouts], np.ndarray], weight: float
) -> Callable[[Rollouts], np.ndarray]:
    """Adds `weight` to the reward of every response that keeps the task's format."""

    def shaped(rollouts: Rollouts) -> np.ndarray:
        return rewards(rollouts) + np.float32(weight) * rollouts.format_ok

    return shaped


@dataclass(frozen=True)
class Method:
    """One algorithm for the RL loop.

    Attributes:
      name: for logs.
      loss: f(logprobs, old_logprobs, advantages, mask, counts, **inputs) -> (scalar,
        metrics), everything [B, T]; the scalar is the micro-batch's share.
      advantages: f(Experience) -> Advantages; traced once.
      rewards: f(Rollouts) -> [P, G] on the host, before the group filter.
      loss_inputs: which of entropy, ref_logprobs, sampler_logprobs, group_ids (with
        num_groups), correct ([B], with the positive_counts of the mini-batch), weights
        and selected the loss is handed by keyword. A reference model is kept in memory
        only if ref_logprobs is among these or `needs_reference`.
      needs_reference: advantages read ref_logprobs (KL in the reward).
      dynamic_sampling: keep groups whose answers are neither all right nor all wrong,
        sample more until the batch is full, keep the surplus.
      overlong_filtering: truncated responses do not count in the loss.
      loss_rows: f(Rollouts) -> [P, G] bool, which responses count in the loss; the
        others stay in the statistics of their group.
      weights: f(old_logprobs, sampler_logprobs, mask) -> [B, T], once a rollout, for
        the input of that name: a rollout correction.
      selected: f(logprobs, old_logprobs, advantages, mask, key) -> [N, T] bool, once a
        mini-batch and whole, for the input of that name; costs a forward pass of the
        policy as it is before that update.
      value_loss: f(values, old_values, returns, mask) -> [B, T]; None means no critic.
    """

    name: str
    loss: LossFn
    advantages: Callable[[Experience], Advantages]
    rewards: Callable[[Rollouts], np.ndarray] = signed_accuracy
    loss_inputs: tuple[str, ...] = ()
    needs_reference: bool = False
    dynamic_sampling: bool = False
    overlong_filtering: bool = False
    loss_rows: Callable[[Rollouts], np.ndarray] | None = None
    weights: Callable[..., jax.Array] | None = None
    selected: Callable[..., jax.Array] | None = None
    value_loss: Callable[..., jax.Array] | None = None

    def __post_init__(self) -> None:
        for name in self.loss_inputs:
            if name not in LOSS_INPUTS:
                raise ValueError(
                    f"loss_inputs must be among {', '.join(LOSS_INPUTS)}, got {name!r}"
                )
        for name in ("weights", "selected"):
            if (name in self.loss_inputs) != (getattr(self, name) is not None):
                raise ValueError(
                    f"{name} must be a function where it is among loss_inputs, and "
                    f"only there, got {getattr(self, name)!r}"
                )

    @property
    def uses_reference(self) -> bool:
        """Whether a frozen reference model has to be kept."""
        return self.needs_reference or "ref_logprobs" in self.loss_inputs


def without_failed(values: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """[P, G]: where grading failed, the mean of the group's other values (or 0).

    So a response that nobody could judge neither helps nor harms: its own advantage is
    0 and the baseline of its group stays that of the others.
    """
    counted = (~failed).sum(axis=1, keepdims=True)
    total = np.where(failed, 0, values).sum(axis=1, keepdims=True)
    return np.where(failed, total / np.maximum(counted, 1), values).astype(np.float32)


def rows_in_loss(method: Method, rollouts: Rollouts) -> np.ndarray:
    """[P, G] bool: the responses that count in the method's loss."""
    counted = ~rollouts.failed
    if method.overlong_filtering:
        counted = counted & ~rollouts.truncated
    if method.loss_rows is not None:
        counted = counted & method.loss_rows(rollouts)
    return counted


def groups_with_signal(correct: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """[P, G] bool each -> [P] bool: some judged answers right and some wrong.

    The filter of dynamic sampling (arXiv 2503.14476 eq. 11) looks at accuracy, not at
    the shaped reward.
    """
    p, g = correct.shape
    ids = jnp.repeat(jnp.arange(p), g)
    flat = without_failed(correct, failed).reshape(-1)
    return np.asarray(group_signal(jnp.asarray(flat), ids, num_groups=p))


def grouped(estimator: Callable[..., jax.Array]) -> Callable[[Experience], Advantages]:
    """An estimator (rewards, group_ids, *, num_groups) -> [B] for the loop."""

    def advantages(x: Experience) -> Advantages:
        return Advantages(estimator(x.rewards, x.group_ids, num_groups=x.num_groups))

    return advantages


@dataclass(frozen=True)
class DapoSettings:
    """DAPO's four parts, each a switch of its own (arXiv 2503.14476, section 3).

    Decoupled clip: `clip_high` above `clip_low` (equal bounds switch it off). Dynamic
    sampling. Token-level loss (off: every sequence weighs the same, as in GRPO).
    Overlong shaping: filtering takes truncated responses out of the loss, the soft
    punishment lowers the reward over the last `overlong_cache` tokens before the limit.
    Both at once contradict each other beyond the limit: filtering removes the loss of
    exactly those responses that the punishment marks with -1.
    """

    clip_low: float = 0.2
    clip_high: float = 0.28
    dynamic_sampling: bool = True
    token_level_loss: bool = True
    overlong_filtering: bool = False
    soft_overlong: bool = True
    overlong_cache: int = 8

    def __post_init__(self) -> None:
        for name in ("clip_low", "clip_high"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if self.overlong_cache < 1:
            raise ValueError(f"overlong_cache must be >= 1, got {self.overlong_cache}")


def soft_overlong_rewards(max_length: int, cache_length: int) -> Callable[..., Any]:
    """Accuracy of +-1 plus the soft overlong punishment, lengths in tokens."""

    def rewards(rollouts: Rollouts) -> np.ndarray:
        penalty = soft_overlong_penalty(
            jnp.asarray(rollouts.lengths),
            max_length=max_length,
            cache_length=cache_length,
        )
        return signed_accuracy(rollouts) + np.asarray(penalty)

    return rewards


def dapo(settings: DapoSettings, *, max_new_tokens: int) -> Method:
    """DAPO (arXiv 2503.14476 eq. 8-13); `max_new_tokens` is the L_max of eq. 13."""
    loss: LossFn = dapo_loss if settings.token_level_loss else grpo_loss
    if settings.soft_overlong and settings.overlong_cache > max_new_tokens:
        raise ValueError(
            f"overlong_cache must be <= max_new_tokens ({max_new_tokens}), "
            f"got {settings.overlong_cache}"
        )
    return Method(
        name="dapo",
        loss=partial(loss, clip_low=settings.clip_low, clip_high=settings.clip_high),
        advantages=grouped(grpo_advantages),
        rewards=(
            soft_overlong_rewards(max_new_tokens, settings.overlong_cache)
            if settings.soft_overlong
            else signed_accuracy
        ),
        loss_inputs=("entropy",),
        dynamic_sampling=settings.dynamic_sampling,
        overlong_filtering=settings.overlong_filtering,
    )


def grpo(*, clip: float = 0.2, kl_coef: float = 0.001) -> Method:
    """GRPO (arXiv 2402.03300); the KL coefficient is DeepSeek-R1's (2501.12948).

    `kl_coef=0` keeps no reference model.
    """
    loss = partial(grpo_loss, clip_low=clip, clip_high=clip)
    if kl_coef == 0:
        return Method("grpo", loss, grouped(grpo_advantages), loss_inputs=("entropy",))
    return Method(
        name="grpo",
        loss=partial(loss, kl_coef=kl_coef),
        advantages=grouped(grpo_advantages),
        loss_inputs=("entropy", "ref_logprobs"),
    )


def dr_grpo(*, length: int, clip: float = 0.2) -> Method:
    """Dr. GRPO (arXiv 2503.20783): no std, a constant `length` as denominator."""
    return Method(
        name="dr_grpo",
        loss=partial(dr_grpo_loss, length=length, clip_low=clip, clip_high=clip),
        advantages=grouped(dr_grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


def token_rewards(x: Experience) -> jax.Array:
    """[B, T]: the sequence reward on the last response token, 0 elsewhere."""
    last = jnp.arange(x.mask.shape[1])[None, :] == x.lengths[:, None] - 1
    return jnp.where(last & x.mask, x.rewards[:, None], 0.0)


def whiten(x: jax.Array, mask: jax.Array, *, eps: float = 1e-8) -> jax.Array:
    """Zero mean and unit variance over all unmasked tokens of the batch (ddof 1)."""
    n = jnp.sum(mask)
    mean = jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(n, 1)
    centred = jnp.where(mask, x - mean, 0.0)
    variance = jnp.sum(centred**2) / jnp.maximum(n - 1, 1)
    return centred * jax.lax.rsqrt(variance + eps)


def ppo(
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    clip: float = 0.2,
    value_clip: float | None = 0.5,
    kl_coef: float = 0.0,
) -> Method:
    """PPO with a critic (arXiv 1707.06347) and GAE (1506.02438).

    The defaults are verl's. `kl_coef` puts the k1 penalty against the reference into
    the token rewards (arXiv 1909.08593); 0 keeps no reference model.
    """

    def advantages(x: Experience) -> Advantages:
        rewards = token_rewards(x)
        assert x.values is not None  # the method has a value loss, so a critic
        if kl_coef:
            assert x.ref_logprobs is not None  # needs_reference
            rewards = kl_in_reward(
                rewards, x.old_logprobs, x.ref_logprobs, x.mask, coef=kl_coef
            )
        adv, returns = gae(rewards, x.values, x.mask, gamma=gamma, lam=lam)
        return Advantages(whiten(adv, x.mask), returns)

    return Method(
        name="ppo",
        loss=partial(ppo_loss, clip_low=clip, clip_high=clip),
        advantages=advantages,
        loss_inputs=("entropy",),
        needs_reference=kl_coef != 0,
        value_loss=partial(value_loss, clip=value_clip),
    )
