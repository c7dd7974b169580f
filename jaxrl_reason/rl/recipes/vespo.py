"""VESPO (arXiv 2602.10693): a smooth kernel of the whole response's ratio."""

from functools import partial

from jaxrl_reason.losses import grpo_advantages, vespo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _vespo(max_new_tokens: int) -> Method:
    return Method(
        name="vespo",
        loss=partial(
            vespo_loss, kernel_positive=(2.0, 3.0), kernel_negative=(3.0, 2.0)
        ),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy", "sampler_logprobs"),
    )


VESPO = Recipe(
    name="vespo",
    sources=("2602.10693",),
    build=_vespo,
    title="VESPO",
    family="objective",
    made_of=Composition("`grpo_advantages`", "`vespo` (2, 3) / (3, 2)", "`token_mean`"),
    settings=Published(
        updates=8, notes="mini-batches of 256; 4 to 64 updates per rollout compared"
    ),
    not_published=(
        "the loss mean: over tokens here, as in TRL",
        "learning rate, prompts, length limit, temperature: not in our sources",
        "KL: none here",
    ),
)
