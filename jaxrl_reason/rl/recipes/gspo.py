"""GSPO (arXiv 2507.18071): one ratio per sequence."""

from functools import partial

from jaxrl_reason.losses import grpo_advantages, gspo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _gspo(max_new_tokens: int) -> Method:
    return Method(
        name="gspo",
        loss=partial(gspo_loss, clip_low=3e-4, clip_high=4e-4),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


GSPO = Recipe(
    name="gspo",
    sources=("2507.18071",),
    build=_gspo,
    title="GSPO",
    family="objective",
    made_of=Composition("`grpo_advantages`", "`gspo` 3e-4 / 4e-4", "`sequence_mean`"),
    settings=Published(
        updates=4, clip=(3e-4, 4e-4), kl_coef=0.0, notes="one ratio per sequence"
    ),
    not_published=(
        "learning rate, batch, length limit, temperature: not in our sources",
    ),
)
