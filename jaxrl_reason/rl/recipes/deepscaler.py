"""DeepScaleR (agentica's repository): GRPO in stages of growing length."""

from functools import partial

from jaxrl_reason.losses import grpo_advantages, ppo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import formatted_accuracy


def _deepscaler(max_new_tokens: int) -> Method:
    """GRPO's advantages with PPO's loss and a KL term, as in verl in early 2025.

    A right answer in the task's format gets 1, anything else 0.
    """
    return Method(
        name="deepscaler",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2, kl_coef=0.001),
        advantages=grouped(grpo_advantages),
        rewards=formatted_accuracy,
        loss_inputs=("entropy", "ref_logprobs"),
    )


DEEPSCALER = Recipe(
    name="deepscaler",
    sources=(),
    build=_deepscaler,
    title="DeepScaleR",
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
        updates=2,
        max_new_tokens=(8192, 16384, 24576),
        temperature=0.6,
        clip=(0.2, 0.2),
        kl_coef=0.001,
        notes="agentica's repository; group size 16 from the second stage on",
    ),
    not_published=(
        "the loss mean: verl's default at the time, here over tokens",
        "thresholds of its data filter",
    ),
    not_built=("its stages, which are in `recipes.staged`",),
)
