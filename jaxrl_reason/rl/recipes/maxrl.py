"""MaxRL (arXiv 2602.02710): a truncated series of a right response's likelihood."""

from functools import partial

from jaxrl_reason.losses import maxrl_advantages, ppo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _maxrl(max_new_tokens: int) -> Method:
    return Method(
        name="maxrl",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=grouped(maxrl_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


MAXRL = Recipe(
    name="maxrl",
    sources=("2602.02710",),
    build=_maxrl,
    title="MaxRL",
    family="group",
    made_of=Composition(
        "`maxrl_advantages`", "`clipped_surrogate` 0.2 / 0.2", "`token_mean`"
    ),
    settings=Published(
        group_size=16, clip=(0.2, 0.2), notes="rewards of 0 and 1; mean over tokens"
    ),
    not_published=(
        "clip: 0.2 here; not in what we read",
        "learning rate, prompts, updates, length limit, temperature: likewise",
    ),
)
