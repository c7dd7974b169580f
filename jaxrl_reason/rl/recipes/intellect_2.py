"""INTELLECT-2 (arXiv 2505.07291): GRPO clipped on two sides."""

from functools import partial

from jaxrl_reason.losses import grpo_advantages, grpo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def _intellect_2(max_new_tokens: int) -> Method:
    return Method(
        name="intellect_2",
        loss=partial(
            grpo_loss, clip_low=0.2, clip_high=0.2, dual_clip=4.0, kl_coef=0.001
        ),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy", "ref_logprobs"),
    )


INTELLECT_2 = Recipe(
    name="intellect_2",
    sources=("2505.07291",),
    build=_intellect_2,
    title="INTELLECT-2",
    family="group",
    made_of=Composition(
        "`grpo_advantages`",
        "`clipped_surrogate` 0.2 / 0.2, `dual_clip=4`",
        "`sequence_mean`",
        "KL loss k3",
    ),
    settings=Published(
        learning_rate=3e-7,
        group_size=16,
        clip=(0.2, 0.2),
        kl_coef=0.001,
        notes="clipped on two sides, delta 4",
    ),
    not_published=("the loss mean: over sequences here", "prompts, updates, limit"),
)
