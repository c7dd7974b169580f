"""Lite PPO (arXiv 2508.08221): the batch's std and the mean over tokens."""

from functools import partial

from jaxrl_reason.losses import batch_std_advantages, ppo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _lite_ppo(max_new_tokens: int) -> Method:
    return Method(
        name="lite_ppo",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=grouped(batch_std_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


LITE_PPO = Recipe(
    name="lite_ppo",
    sources=("2508.08221",),
    build=_lite_ppo,
    title="Lite PPO",
    family="group",
    made_of=Composition(
        "`batch_std_advantages`", "`clipped_surrogate`", "`token_mean`"
    ),
    settings=Published(notes="the batch's standard deviation, mean over tokens"),
    not_published=("all but the advantages and the mean; clip 0.2 here",),
)
