"""pass@k as the objective (arXiv 2503.19595): only a group's best gets an advantage."""

from jaxrl_reason.losses import pass_at_k_advantages, rloo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _pass_at_k(max_new_tokens: int) -> Method:
    return Method(
        name="pass_at_k",
        loss=rloo_loss,
        advantages=grouped(pass_at_k_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


PASS_AT_K = Recipe(
    name="pass_at_k",
    sources=("2503.19595",),
    build=_pass_at_k,
    title="pass@k",
    family="group",
    made_of=Composition(
        "`pass_at_k_advantages`", "`policy_gradient`", "`sequence_sum_mean`"
    ),
    settings=Published(notes="k is the size of the group"),
    not_published=(
        "its loss: RLOO's here, one action a response; the paper was read in a summary",
        "learning rate, batch, updates, length limit, temperature",
    ),
)
