"""DeepSeek-V3.2's GRPO (arXiv 2512.02556): unbiased KL, off-policy sequence mask."""

from functools import partial
from typing import Any

import jax

from jaxrl_reason.losses import (
    Counts,
    dr_grpo_advantages,
    grpo_loss,
    off_policy_sequence_mask,
)
from jaxrl_reason.rl.method import Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy


def masked_grpo_loss(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    counts: Counts,
    *,
    sampler_logprobs: jax.Array,
    delta: float,
    **terms: Any,
) -> tuple[jax.Array, dict[str, tuple[jax.Array, jax.Array]]]:
    """`grpo_loss` with `off_policy_sequence_mask` as its weights."""
    keep = off_policy_sequence_mask(
        logprobs, sampler_logprobs, advantages, mask, delta=delta
    )
    arrays = (logprobs, old_logprobs, advantages, mask, counts)
    return grpo_loss(*arrays, weights=keep, kl_estimator="k3_ratio", **terms)


def _deepseek_v3_2(max_new_tokens: int) -> Method:
    return Method(
        name="deepseek_v3_2",
        loss=partial(
            masked_grpo_loss, delta=0.5, clip_low=0.2, clip_high=0.2, kl_coef=0.001
        ),
        advantages=grouped(dr_grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy", "ref_logprobs", "sampler_logprobs"),
    )


DEEPSEEK_V3_2 = Recipe(
    name="deepseek_v3_2",
    sources=("2512.02556",),
    build=_deepseek_v3_2,
    title="DeepSeek-V3.2",
    family="group",
    made_of=Composition(
        "`dr_grpo_advantages`",
        "`clipped_surrogate` 0.2 / 0.2, weighted by `off_policy_sequence_mask`",
        "`sequence_mean`",
        "KL loss k3 times the ratio",
    ),
    settings=Published(notes="KL by domain, weak or none for mathematics"),
    not_published=(
        "delta of the mask: 0.5 here, TRL's suggestion",
        "KL coefficient and clip: 0.001 and 0.2 here",
        "learning rate, batch, updates, length limit, temperature",
    ),
    not_built=(
        "expert routing and sampling masks of the rollout, kept for training",
        "its rewards for length and language, and its rubrics",
    ),
)
