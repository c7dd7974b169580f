"""GPG (arXiv 2504.02546): REINFORCE on batches with enough groups with signal."""

from jaxrl_reason.losses import gpg_advantages, gpg_loss
from jaxrl_reason.rl.method import DynamicSampling, Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _gpg(max_new_tokens: int) -> Method:
    return Method(
        name="gpg",
        loss=gpg_loss,
        advantages=grouped(gpg_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        dynamic_sampling=DynamicSampling(fraction=0.6),
    )


GPG = Recipe(
    name="gpg",
    sources=("2504.02546",),
    build=_gpg,
    title="GPG",
    family="reinforce",
    made_of=Composition(
        "`gpg_advantages`",
        "`policy_gradient`",
        "`token_mean`",
        "60% of the groups must have signal",
    ),
    settings=Published(
        learning_rate=3e-6,
        group_size=8,
        max_new_tokens=(2048,),
        kl_coef=0.0,
        notes="the limit is that of the demonstration script; at most 20 rounds",
    ),
    not_published=(
        "fraction of groups that must have signal: 0.6 as in a table, 0.5 in the code",
        "prompts, updates, temperature",
    ),
)
