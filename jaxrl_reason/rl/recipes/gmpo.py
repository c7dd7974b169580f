"""GMPO (arXiv 2507.20673): the geometric mean of the token ratios."""

from functools import partial

from jaxrl_reason.losses import gmpo_loss, grpo_advantages
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _gmpo(max_new_tokens: int) -> Method:
    return Method(
        name="gmpo",
        loss=partial(gmpo_loss, clip_low=0.4, clip_high=0.4),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


GMPO = Recipe(
    name="gmpo",
    sources=("2507.20673",),
    build=_gmpo,
    title="GMPO",
    family="objective",
    made_of=Composition(
        "`grpo_advantages`", "`gmpo` 0.4 / 0.4 of the log-ratio", "`sequence_mean`"
    ),
    settings=Published(clip=(0.4, 0.4), kl_coef=0.0, notes="clip of the log-ratio"),
    not_published=(
        "learning rate, batch, length limit, temperature: not in our sources",
    ),
)
