"""PRIME (arXiv 2502.01456): token rewards learnt by a second model."""

from functools import partial

import numpy as np

from jaxrl_reason.losses import (
    implicit_prm_loss,
    implicit_process_rewards,
    ppo_loss,
    prime_advantages,
)
from jaxrl_reason.rl.implicit_reward import ImplicitReward
from jaxrl_reason.rl.method import (
    Advantages,
    DynamicSampling,
    Estimator,
    Experience,
    Method,
    not_truncated,
)
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import Rollouts, binary_accuracy, without_failed


def middling_groups(
    rollouts: Rollouts, *, low: float = 0.2, high: float = 0.8
) -> np.ndarray:
    """[P]: groups whose accuracy is in [low, high] (PRIME, arXiv 2502.01456)."""
    accuracy = without_failed(rollouts.correct, rollouts.failed).mean(axis=1)
    return (accuracy >= low) & (accuracy <= high)


def prime(
    *, beta: float, process_coef: float = 1.0, outcome_coef: float = 1.0
) -> Estimator:
    """PRIME (arXiv 2502.01456): leave-one-out of process rewards and of outcomes."""

    def advantages(x: Experience) -> Advantages:
        process = implicit_process_rewards(
            x["reward_logprobs"], x["ref_logprobs"], x.mask, beta=beta
        )
        found = prime_advantages(
            process,
            x.rewards,
            x.mask,
            x.group_ids,
            num_groups=x.num_groups,
            process_coef=process_coef,
            outcome_coef=outcome_coef,
        )
        return Advantages(found)

    return advantages


def _prime(max_new_tokens: int) -> Method:
    return Method(
        name="prime",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=prime(beta=0.05),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        dynamic_sampling=DynamicSampling(middling_groups),
        loss_rows=not_truncated,
        components=(ImplicitReward(partial(implicit_prm_loss, beta=0.05)),),
    )


PRIME = Recipe(
    name="prime",
    sources=("2502.01456", "2412.01981"),
    build=_prime,
    title="PRIME",
    family="several",
    made_of=Composition(
        "`prime_advantages`",
        "`clipped_surrogate`",
        "`token_mean`",
        "a second model learns token rewards from outcomes; groups of accuracy 0.2 to "
        "0.8; truncated responses masked",
    ),
    settings=Published(
        learning_rate=5e-7,
        prompts=64,
        group_size=4,
        max_new_tokens=(3072,),
        notes="of verl's recipe; the reward model 1e-6 and clip of its gradient at 10",
    ),
    not_published=(
        "clip: 0.2 here; the loss mean: over tokens here",
        "weights of process and outcome: 1 and 1 here, 5 and 5 in verl's recipe, which "
        "whitens the advantages afterwards",
        "a KL of 0.001 in the reward of verl's recipe: left out",
        "updates, temperature",
    ),
)
