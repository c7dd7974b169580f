"""Kimi K2.5's policy loss (arXiv 2602.02276): a band on the log-ratio and a pull."""

from functools import partial

from jaxrl_reason.losses import dr_grpo_advantages, kimi_k2_5_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _kimi_k2_5(max_new_tokens: int) -> Method:
    return Method(
        name="kimi_k2_5",
        loss=partial(
            kimi_k2_5_loss, log_ratio_low=-0.7, log_ratio_high=0.7, pull_coef=1e-3
        ),
        advantages=grouped(dr_grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


KIMI_K2_5 = Recipe(
    name="kimi_k2_5",
    sources=("2602.02276",),
    build=_kimi_k2_5,
    title="Kimi K2.5",
    family="objective",
    made_of=Composition(
        "`dr_grpo_advantages`",
        "clipped to a band of the log-ratio, `log_ratio_pull`",
        "`token_mean`",
    ),
    settings=Published(),
    not_published=(
        "the band of the log-ratio: from -0.7 to 0.7 here, a factor of 2",
        "the weight of the pull: 1e-3 here, prime-rl's",
        "learning rate, batch, length limit, temperature",
    ),
    not_built=("its rewards, the budget for tokens, the MuonClip optimiser",),
)
