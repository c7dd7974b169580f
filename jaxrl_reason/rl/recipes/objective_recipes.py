"""Systems that put something in the place of PPO's token ratio or its clip."""

from functools import partial

import jax

from jaxrl_reason.losses import (
    cispo_loss,
    clip_cov_loss,
    clip_cov_tokens,
    gmpo_loss,
    grpo_advantages,
    gspo_loss,
    kl_cov_loss,
    kl_cov_tokens,
    sapo_loss,
)
from jaxrl_reason.rl.methods import (
    Method,
    binary_accuracy,
    grouped,
    soft_overlong_rewards,
)
from jaxrl_reason.rl.recipes.dapo_ladder import CACHE_SHARE
from jaxrl_reason.rl.recipes.recipe import Published, Recipe

_NO_RUN = "learning rate, batch, length limit, temperature: not in what we read"


def _gspo(max_new_tokens: int) -> Method:
    return Method(
        name="gspo",
        loss=partial(gspo_loss, clip_low=3e-4, clip_high=4e-4),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


GSPO = Recipe(
    name="gspo",
    sources=("2507.18071",),
    build=_gspo,
    settings=Published(
        updates=4, clip=(3e-4, 4e-4), kl_coef=0.0, notes="one ratio a sequence"
    ),
    not_published=(_NO_RUN,),
)


def _cispo(max_new_tokens: int) -> Method:
    return Method(
        name="cispo",
        loss=partial(cispo_loss, ratio_high=5.0),
        advantages=grouped(grpo_advantages),
        rewards=soft_overlong_rewards(
            max_new_tokens, max(1, max_new_tokens // CACHE_SHARE)
        ),
        loss_inputs=("entropy",),
        dynamic_sampling=True,
    )


CISPO = Recipe(
    name="cispo",
    sources=("2506.13585",),
    build=_cispo,
    settings=Published(
        kl_coef=0.0, notes="no lower bound; dynamic sampling, length penalty as in DAPO"
    ),
    not_published=("the cap of the ratio: 5 here, ScaleRL's (2510.13786)", _NO_RUN),
)


def _gmpo(max_new_tokens: int) -> Method:
    return Method(
        name="gmpo",
        loss=partial(gmpo_loss, clip_low=0.4, clip_high=0.4),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


GMPO = Recipe(
    name="gmpo",
    sources=("2507.20673",),
    build=_gmpo,
    settings=Published(clip=(0.4, 0.4), kl_coef=0.0, notes="clip of the log-ratio"),
    not_published=(_NO_RUN,),
)


def _sapo(max_new_tokens: int) -> Method:
    return Method(
        name="sapo",
        loss=partial(sapo_loss, tau_positive=1.0, tau_negative=1.05),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy",),
    )


SAPO = Recipe(
    name="sapo",
    sources=("2511.20347",),
    build=_sapo,
    settings=Published(notes="temperatures of the gate 1.0 and 1.05"),
    not_published=(_NO_RUN, "KL: none here"),
)


def _most_covariant(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """KL-Cov's tokens: nothing is drawn, and no ratio is looked at."""
    return kl_cov_tokens(logprobs, advantages, mask, fraction=2e-3)


def _kl_cov(max_new_tokens: int) -> Method:
    return Method(
        name="kl_cov",
        loss=partial(kl_cov_loss, coef=1.0),
        advantages=grouped(grpo_advantages),
        rewards=binary_accuracy,
        loss_inputs=("entropy", "selected"),
        dynamic_sampling=True,
        selected=_most_covariant,
    )


KL_COV = Recipe(
    name="kl_cov",
    sources=("2505.22617",),
    build=_kl_cov,
    settings=Published(
        prompts=256,
        group_size=8,
        updates=8,
        max_new_tokens=(8192,),
        notes="fraction 2e-3 (7B; 2e-4 for 32B), coefficient 1, no clip",
    ),
    not_published=("learning rate, temperature: not in what we read",),
)


def _drawn(
    logprobs: jax.Array,
    old_logprobs: jax.Array,
    advantages: jax.Array,
    mask: jax.Array,
    key: jax.Array,
) -> jax.Array:
    """Clip-Cov's tokens."""
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
        loss_inputs=("entropy", "selected"),
        dynamic_sampling=True,
        selected=_drawn,
    )


CLIP_COV = Recipe(
    name="clip_cov",
    sources=("2505.22617",),
    build=_clip_cov,
    settings=Published(
        prompts=256,
        group_size=8,
        updates=8,
        max_new_tokens=(8192,),
        clip=(1.0, 1.0),
        notes="fraction 2e-4, band of covariance (1, 5)",
    ),
    not_published=("learning rate, temperature: not in what we read",),
)
