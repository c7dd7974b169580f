"""GDPO (arXiv 2601.05242): each reward standardised inside its group."""

from functools import partial

from jaxrl_reason.losses import gdpo_advantages, grpo_loss, lost_group_ratio
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import accuracy_and_format


def gdpo(x: Experience) -> Advantages:
    """GDPO (arXiv 2601.05242): each reward standardised inside its group."""
    of_groups = (x["reward_components"], x.group_ids)
    found = gdpo_advantages(*of_groups, num_groups=x.num_groups)
    lost = lost_group_ratio(*of_groups, num_groups=x.num_groups)
    return Advantages(found, metrics={"lost_group_ratio": lost})


def _gdpo(max_new_tokens: int) -> Method:
    return Method(
        name="gdpo",
        loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2),
        advantages=gdpo,
        rewards=accuracy_and_format,
        loss_inputs=("entropy",),
    )


GDPO = Recipe(
    name="gdpo",
    sources=("2601.05242",),
    build=_gdpo,
    title="GDPO",
    family="group",
    made_of=Composition(
        "`gdpo_advantages`",
        "`clipped_surrogate`",
        "`sequence_mean`",
        "rewards with components",
    ),
    settings=Published(notes="the advantages alone: GRPO for several rewards"),
    not_published=(
        "read as an estimator: the loss is GRPO's here, clip 0.2, no KL",
        "the rewards are accuracy and format here",
        "learning rate, batch, updates, length limit, temperature: not in our sources",
    ),
)
