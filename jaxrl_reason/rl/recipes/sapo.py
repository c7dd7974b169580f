"""SAPO (arXiv 2511.20347): a smooth gate in place of the clip."""

from functools import partial

from jaxrl_reason.losses import grpo_advantages, sapo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _sapo(max_new_tokens: int) -> Method:
    return Method(
        name="sapo",
        loss=partial(sapo_loss, tau_positive=1.0, tau_negative=1.05),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


SAPO = Recipe(
    name="sapo",
    sources=("2511.20347",),
    build=_sapo,
    title="SAPO",
    family="objective",
    made_of=Composition("`grpo_advantages`", "`sapo` 1.0 / 1.05", "`sequence_mean`"),
    settings=Published(notes="temperatures of the gate 1.0 and 1.05"),
    not_published=(
        "learning rate, batch, length limit, temperature: not in our sources",
        "KL: none here",
    ),
)
