"""CISPO (arXiv 2506.13585): the ratio is a capped weight; no token is clipped."""

from functools import partial

from jaxrl_reason.losses import cispo_loss, grpo_advantages
from jaxrl_reason.rl.method import DynamicSampling, Method, grouped
from jaxrl_reason.rl.recipes.dapo import overlong_cache
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import SoftOverlongRewards


def _cispo(max_new_tokens: int) -> Method:
    return Method(
        name="cispo",
        loss=partial(cispo_loss, ratio_high=5.0),
        advantages=grouped(grpo_advantages),
        rewards=SoftOverlongRewards(max_new_tokens, overlong_cache(max_new_tokens)),
        loss_inputs=("entropy",),
        dynamic_sampling=DynamicSampling(),
    )


CISPO = Recipe(
    name="cispo",
    sources=("2506.13585",),
    build=_cispo,
    title="CISPO",
    family="objective",
    made_of=Composition(
        "`grpo_advantages`",
        "`cispo`",
        "`token_mean`",
        "dynamic sampling, soft overlong penalty",
    ),
    settings=Published(
        kl_coef=0.0, notes="no lower bound; dynamic sampling, length penalty as in DAPO"
    ),
    not_published=(
        "the cap of the ratio: 5 here, ScaleRL's (2510.13786)",
        "learning rate, batch, length limit, temperature: not in our sources",
    ),
)
