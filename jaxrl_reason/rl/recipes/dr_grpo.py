"""Dr. GRPO (arXiv 2503.20783): GRPO without its two biases."""

from functools import partial

from jaxrl_reason.losses import dr_grpo_advantages, dr_grpo_loss
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def dr_grpo(*, length: int, clip: float = 0.2) -> Method:
    """Dr. GRPO (arXiv 2503.20783): no std, a constant `length` as denominator."""
    return Method(
        name="dr_grpo",
        loss=partial(dr_grpo_loss, length=length, clip_low=clip, clip_high=clip),
        advantages=grouped(dr_grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


def _dr_grpo(max_new_tokens: int) -> Method:
    return dr_grpo(length=max_new_tokens)


DR_GRPO = Recipe(
    name="dr_grpo",
    sources=("2503.20783",),
    build=_dr_grpo,
    title="Dr. GRPO, Oat-Zero",
    family="group",
    made_of=Composition(
        "`dr_grpo_advantages`",
        "`clipped_surrogate` 0.2 / 0.2",
        "`fixed_length_mean`, the length limit",
    ),
    settings=Published(
        learning_rate=1e-6,
        prompts=128,
        group_size=8,
        max_new_tokens=(3000,),
        temperature=1.0,
        clip=(0.2, 0.2),
        kl_coef=0.0,
        notes="Oat-Zero; one epoch per rollout; truncated responses get 0",
    ),
    not_published=("updates in that epoch",),
)
