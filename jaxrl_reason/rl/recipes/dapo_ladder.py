"""DAPO and the rungs of its ablation (arXiv 2503.14476, table 1).

Each rung keeps the switches of those before it and turns one more.
"""

from collections.abc import Callable
from dataclasses import replace

from jaxrl_reason.rl.methods import DapoSettings, Method, dapo
from jaxrl_reason.rl.recipes.recipe import Published, Recipe

# The cache before the limit: 4096 of 20480 tokens.
CACHE_SHARE = 5

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
_OPEN = ("whether filtering and soft punishment run together in the final system",)


def _builder(name: str, settings: DapoSettings) -> Callable[[int], Method]:
    def build(max_new_tokens: int) -> Method:
        cache = max(1, max_new_tokens // CACHE_SHARE)
        own = replace(settings, overlong_cache=cache)
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

# From naive GRPO up; the last is DAPO as the ladder ends.
DAPO_LADDER = (
    _recipe("dapo_0_naive_grpo", _NAIVE),
    _recipe("dapo_1_overlong_filtering", _FILTERING),
    _recipe("dapo_2_clip_higher", _CLIP_HIGHER),
    _recipe("dapo_3_soft_overlong", _SOFT_OVERLONG),
    _recipe("dapo_4_token_level_loss", _TOKEN_LEVEL),
    _recipe("dapo_5_dynamic_sampling", _DYNAMIC_SAMPLING),
)

# Without overlong filtering, as verl reproduced it.
DAPO = _recipe("dapo", DapoSettings())
