"""KL-Cov and Clip-Cov (arXiv 2505.22617): restrain tokens of high covariance."""

from functools import partial

import jax

from jaxrl_reason.losses import (
    clip_cov_loss,
    clip_cov_tokens,
    grpo_advantages,
    kl_cov_loss,
    kl_cov_tokens,
)
from jaxrl_reason.rl.method import DynamicSampling, Method, grouped
from jaxrl_reason.rl.recipes.recipe import Composition, Published, Recipe
from jaxrl_reason.rl.rollouts import binary_accuracy
from jaxrl_reason.rl.token_selection import TokenSelection


def _most_covariant(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """KL-Cov's tokens, which depend on neither the key nor the ratio."""
    return kl_cov_tokens(logprobs, advantages, mask, fraction=2e-3)


def _kl_cov(max_new_tokens: int) -> Method:
    return Method(
        name="kl_cov",
        loss=partial(kl_cov_loss, coef=1.0),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        dynamic_sampling=DynamicSampling(),
        components=(TokenSelection(_most_covariant),),
    )


KL_COV = Recipe(
    name="kl_cov",
    sources=("2505.22617",),
    build=_kl_cov,
    title="KL-Cov",
    family="objective",
    made_of=Composition(
        "`grpo_advantages`",
        "`kl_cov` 2e-3, coefficient 1",
        "`token_mean`",
        "dynamic sampling; `kl_cov_tokens`",
    ),
    anchor="kl-cov",
    settings=Published(
        prompts=256,
        group_size=8,
        updates=8,
        max_new_tokens=(8192,),
        notes="fraction 2e-3 (7B; 2e-4 for 32B), coefficient 1, no clip",
    ),
    not_published=("learning rate, temperature: not in our sources",),
)


def _drawn(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Clip-Cov's tokens, drawn at random."""
    return clip_cov_tokens(
        logprobs,
        old_logprobs,
        advantages,
        mask,
        fraction=2e-4,
        low=1.0,
        high=5.0,
        key=key,
        clip_low=1.0,
        clip_high=1.0,
    )


def _clip_cov(max_new_tokens: int) -> Method:
    return Method(
        name="clip_cov",
        loss=partial(clip_cov_loss, clip_low=1.0, clip_high=1.0),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
        dynamic_sampling=DynamicSampling(),
        components=(TokenSelection(_drawn),),
    )


CLIP_COV = Recipe(
    name="clip_cov",
    sources=("2505.22617",),
    build=_clip_cov,
    title="Clip-Cov",
    family="objective",
    made_of=Composition(
        "`grpo_advantages`",
        "`clip_cov` 2e-4, band (1, 5)",
        "`token_mean`",
        "dynamic sampling; `clip_cov_tokens`",
    ),
    anchor="clip-cov",
    settings=Published(
        prompts=256,
        group_size=8,
        updates=8,
        max_new_tokens=(8192,),
        clip=(1.0, 1.0),
        notes="fraction 2e-4, band of covariance (1, 5)",
    ),
    not_published=("learning rate, temperature: not in our sources",),
)
