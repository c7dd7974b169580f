"""OTB (arXiv 2602.07078): for each token the baseline of least variance."""

from functools import partial

from jaxrl_reason.losses import otb_advantages, ppo_loss, rewards_at_end
from jaxrl_reason.rl.method import Advantages, Experience, Method
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy
from jaxrl_reason.rl.squared_probs import SquaredProbs


def otb(x: Experience) -> Advantages:
    """OTB (arXiv 2602.07078): returns minus a baseline for each token."""
    found = otb_advantages(
        rewards_at_end(x.rewards, x.mask),
        x.old_logprobs,
        x["squared_probs"],
        x.group_ids,
        x.mask,
        num_groups=x.num_groups,
    )
    return Advantages(found)


def _otb(max_new_tokens: int) -> Method:
    return Method(
        name="otb",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=otb,
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        components=(SquaredProbs(),),
    )


OTB = Recipe(
    name="otb",
    sources=("2602.07078",),
    build=_otb,
    title="OTB",
    family="group",
    made_of=Composition(
        "`otb_advantages`",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "`SquaredProbs`: a forward pass for the weights of the baseline",
    ),
    settings=Published(
        learning_rate=1e-6,
        prompts=128,
        group_size=8,
        updates=1,
        max_new_tokens=(2048,),
        kl_coef=0.0,
        notes="of verl's example on Qwen3-8B; the paper's groups are of 4 and 32",
    ),
    not_published=(
        "clip: 0.2 here, with which one update per rollout never meets; the loss mean: "
        "over tokens here, verl's defaults",
        "temperature; the settings of the paper's own runs: not in our sources",
    ),
)
