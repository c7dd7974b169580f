"""DAPO and the steps of its ablation (arXiv 2503.14476)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from jaxrl_reason.losses import dapo_loss, grpo_advantages, grpo_loss
from jaxrl_reason.rl.method import (
    DynamicSampling,
    LossFn,
    Method,
    grouped,
    not_truncated,
)
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import SoftOverlongRewards, signed_accuracy


@dataclass(frozen=True)
class DapoSettings:
    """DAPO's four parts, each with its own switch (arXiv 2503.14476, section 3).

    Decoupled clip: `clip_high` above `clip_low` (equal bounds switch it off). Dynamic
    sampling. Token-level loss (off: every sequence has the same weight, as in GRPO).
    Overlong shaping: filtering leaves truncated responses out of the loss, the soft
    penalty lowers the reward over the last `overlong_cache` tokens before the limit.
    The two contradict each other beyond the limit: filtering removes the loss of
    exactly those responses to which the penalty gives -1.

    Attributes:
      clip_low: a token's ratio is clipped below at 1 minus this.
      clip_high: a token's ratio is clipped above at 1 plus this.
      dynamic_sampling: train only on groups with signal, and sample until there are
        enough.
      token_level_loss: average over all tokens, so that each has the same weight.
      overlong_filtering: leave truncated responses out of the loss.
      soft_overlong: lower the reward of responses near the limit.
      overlong_cache: tokens before the limit over which it falls by up to 1; fewer than
        the limit.
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
    """DAPO (arXiv 2503.14476 eq. 8-13); `max_new_tokens` is the L_max of eq. 13.

    Args:
      settings: which parts are on, and their settings.
      max_new_tokens: the length limit of a response.

    Raises:
      ValueError: with the soft penalty, the cache is not below the limit.
    """
    loss: LossFn = dapo_loss if settings.token_level_loss else grpo_loss
    return Method(
        name="dapo",
        loss=partial(loss, clip_low=settings.clip_low, clip_high=settings.clip_high),
        advantages=grouped(grpo_advantages),
        rewards=(
            SoftOverlongRewards(max_new_tokens, settings.overlong_cache)
            if settings.soft_overlong
            else signed_accuracy
        ),
        loss_inputs=("entropy",),
        dynamic_sampling=DynamicSampling() if settings.dynamic_sampling else None,
        loss_rows=not_truncated if settings.overlong_filtering else None,
    )


def overlong_cache(max_new_tokens: int) -> int:
    """The cache before the limit, a fifth of it: 4096 of 20480 tokens."""
    return max(1, max_new_tokens // 5)


_PUBLISHED = Published(
    learning_rate=1e-6,
    prompts=512,
    group_size=16,
    updates=16,
    max_new_tokens=(20480,),
    temperature=1.0,
    clip=(0.2, 0.28),
    kl_coef=0.0,
    notes="warm-up over 20 rollouts; the limit is 16384 and a cache of 4096",
)


_OPEN = ("whether filtering and soft penalty run together in the final system",)


def _builder(name: str, settings: DapoSettings) -> Callable[[int], Method]:
    def build(max_new_tokens: int) -> Method:
        own = replace(settings, overlong_cache=overlong_cache(max_new_tokens))
        return replace(dapo(own, max_new_tokens=max_new_tokens), name=name)

    return build


def _recipe(name: str, settings: DapoSettings) -> Recipe:
    return Recipe(
        name=name,
        sources=("2503.14476",),
        build=_builder(name, settings),
        settings=replace(_PUBLISHED, clip=(settings.clip_low, settings.clip_high)),
        not_published=_OPEN,
    )


_NAIVE = DapoSettings(
    clip_high=0.2,
    dynamic_sampling=False,
    token_level_loss=False,
    overlong_filtering=False,
    soft_overlong=False,
)
_FILTERING = replace(_NAIVE, overlong_filtering=True)
_CLIP_HIGHER = replace(_FILTERING, clip_high=0.28)
_SOFT_OVERLONG = replace(_CLIP_HIGHER, soft_overlong=True)
_TOKEN_LEVEL = replace(_SOFT_OVERLONG, token_level_loss=True)
_DYNAMIC_SAMPLING = replace(_TOKEN_LEVEL, dynamic_sampling=True)


# Without overlong filtering, as verl reproduced it.
DAPO = replace(
    _recipe("dapo", DapoSettings()),
    title="DAPO",
    family="group",
    made_of=Composition(
        "`grpo_advantages`",
        "`clipped_surrogate` 0.2 / 0.28",
        "`token_mean`",
        "clip-higher, dynamic sampling, soft overlong penalty",
    ),
)


# From naive GRPO to DAPO.
DAPO_LADDER = (
    _recipe("dapo_0_naive_grpo", _NAIVE),
    _recipe("dapo_1_overlong_filtering", _FILTERING),
    _recipe("dapo_2_clip_higher", _CLIP_HIGHER),
    _recipe("dapo_3_soft_overlong", _SOFT_OVERLONG),
    _recipe("dapo_4_token_level_loss", _TOKEN_LEVEL),
    _recipe("dapo_5_dynamic_sampling", _DYNAMIC_SAMPLING),
)
