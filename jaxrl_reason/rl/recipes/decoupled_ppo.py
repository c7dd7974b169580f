"""AReaL's decoupled PPO (arXiv 2505.24298): three policies, for stale samples."""

from functools import partial

from jaxrl_reason.losses import decoupled_ppo_loss, grpo_advantages
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _decoupled_ppo(max_new_tokens: int) -> Method:
    return Method(
        name="decoupled_ppo",
        loss=partial(decoupled_ppo_loss, weight_cap=5.0, clip_low=0.2, clip_high=0.2),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy", "sampler_logprobs"),
    )


DECOUPLED_PPO = Recipe(
    name="decoupled_ppo",
    sources=("2505.24298", "2110.00641"),
    build=_decoupled_ppo,
    title="Decoupled PPO",
    family="objective",
    made_of=Composition(
        "`grpo_advantages`",
        "`clipped_surrogate` 0.2 / 0.2, weighted by policy over sampler",
        "`token_mean`",
    ),
    settings=Published(clip=(0.2, 0.2), notes="weights above 5 are left out"),
    not_published=(
        "learning rate, batch, length limit, temperature: not in our sources",
        "clip and cap: 0.2 and 5 here, the defaults of AReaL's settings (May 2026)",
    ),
    not_built=("samples that lag: in this loop the sampler has the present weights",),
)
