"""MiMo (arXiv 2505.07608): DAPO's clip and sampling, and a pool of easy problems."""

from functools import partial

from jaxrl_reason.losses import dapo_loss, grpo_advantages
from jaxrl_reason.rl.method import DynamicSampling, Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _mimo(max_new_tokens: int) -> Method:
    return Method(
        name="mimo",
        loss=partial(dapo_loss, clip_low=0.2, clip_high=0.28),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        dynamic_sampling=DynamicSampling(),
    )


MIMO = Recipe(
    name="mimo",
    sources=("2505.07608",),
    build=_mimo,
    title="MiMo",
    family="group",
    made_of=Composition(
        "`grpo_advantages`",
        "`clipped_surrogate`",
        "`token_mean`",
        "clip-higher, dynamic sampling; `EasyPoolStream`",
    ),
    settings=Published(
        learning_rate=1e-6,
        prompts=512,
        updates=16,
        max_new_tokens=(32768,),
        temperature=1.0,
        kl_coef=0.0,
        notes="mini-batch 32; 10% of the draws from the solved pool (`EasyPoolStream`)",
    ),
    not_published=(
        "clip: DAPO's 0.2 and 0.28 here",
        "group size",
        "scores of the difficulty levels (`difficulty_reward`), for code only",
    ),
)
