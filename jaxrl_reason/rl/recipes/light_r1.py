"""Light-R1 (arXiv 2503.10460): GRPO's advantages, PPO's loss, a KL term."""

from functools import partial

from jaxrl_reason.losses import grpo_advantages, ppo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import formatted_accuracy


def _light_r1(max_new_tokens: int) -> Method:
    """GRPO's advantages with PPO's loss and a KL term, as in verl in early 2025.

    A right answer in the task's format gets 1, anything else 0.
    """
    return Method(
        name="light_r1",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2, kl_coef=0.001),
        advantages=grouped(grpo_advantages),
        rewards=formatted_accuracy,
        loss_inputs=("entropy", "ref_logprobs"),
    )


LIGHT_R1 = Recipe(
    name="light_r1",
    sources=("2503.10460",),
    build=_light_r1,
    title="Light-R1",
    family="group",
    made_of=Composition(
        "`grpo_advantages`",
        "`clipped_surrogate` 0.2 / 0.2",
        "`token_mean`",
        "KL loss k3",
    ),
    settings=Published(
        learning_rate=1e-6,
        prompts=128,
        group_size=8,
        updates=1,
        max_new_tokens=(24000,),
        temperature=1.0,
        clip=(0.2, 0.2),
        kl_coef=0.001,
        notes="the RL stage of the 14B model; pass rate 0.25 to 0.625",
    ),
    not_published=(
        "the loss mean: verl's default at the time, here over tokens",
        "the modified cosine length reward: left out",
        "the clip of importance weights: left out",
    ),
    not_built=("the SFT and DPO stages before",),
)
