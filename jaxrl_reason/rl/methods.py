"""Methods of the main systems: `dapo`, `grpo`, `dr_grpo` and `ppo`.

Each is built from the functions of `jaxrl_reason.losses`; a method of your own is
`Method(loss=my_loss, ...)` in your file. Names that a method is written with are here
too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax

from jaxrl_reason.losses import (
    dapo_loss,
    dr_grpo_advantages,
    dr_grpo_loss,
    gae,
    grpo_advantages,
    grpo_loss,
    kl_in_reward,
    ppo_loss,
    rewards_at_end,
    value_loss,
    whiten,
)
from jaxrl_reason.rl.method import (
    LOSS_INPUTS,
    Advantages,
    Controller,
    Experience,
    LossFn,
    Method,
    groups_with_signal,
    kept_groups,
    rows_in_loss,
)
from jaxrl_reason.rl.rewards import (
    Rewards,
    accuracy_and_format,
    binary_accuracy,
    signed_accuracy,
    soft_overlong_rewards,
    with_format_reward,
    without_failed,
)

__all__ = [
    "LOSS_INPUTS",
    "Advantages",
    "Controller",
    "DapoSettings",
    "Experience",
    "LossFn",
    "Method",
    "Rewards",
    "accuracy_and_format",
    "binary_accuracy",
    "dapo",
    "dr_grpo",
    "grouped",
    "groups_with_signal",
    "grpo",
    "kept_groups",
    "ppo",
    "rows_in_loss",
    "signed_accuracy",
    "soft_overlong_rewards",
    "with_format_reward",
    "without_failed",
]


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


def ppo(
    *,
    gamma: float = 1.0,
    lam: float = 1.0,
    clip: float = 0.2,
    value_clip: float | None = 0.5,
    kl_coef: float = 0.0,
    controller: Controller | None = None,
) -> Method:
    """PPO with a critic (arXiv 1707.06347) and GAE (1506.02438).

    The defaults are verl's. `kl_coef` puts the k1 penalty against the reference into
    the token rewards (arXiv 1909.08593); 0 keeps no reference model. A `controller`
    with a "kl_coef" moves that weight from step to step (`kl_controller`).
    """
    if controller is not None and not kl_coef:
        raise ValueError(f"a controller needs a kl_coef > 0, got {kl_coef}")

    def advantages(x: Experience) -> Advantages:
        rewards = rewards_at_end(x.rewards, x.mask)
        assert x.values is not None  # the method has a value loss, so a critic
        if kl_coef:
            assert x.ref_logprobs is not None  # needs_reference
            rewards = kl_in_reward(
                rewards,
                x.old_logprobs,
                x.ref_logprobs,
                x.mask,
                coef=x.controls.get("kl_coef", kl_coef),
            )
        adv, returns = gae(rewards, x.values, x.mask, gamma=gamma, lam=lam)
        return Advantages(whiten(adv, x.mask), returns)

    return Method(
        name="ppo",
        loss=partial(ppo_loss, clip_low=clip, clip_high=clip),
        advantages=advantages,
        loss_inputs=("entropy",),
        needs_reference=kl_coef != 0,
        min_group_size=1,
        value_loss=partial(value_loss, clip=value_clip),
        controller=controller,
    )
