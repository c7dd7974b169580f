"""Lines of the battery: policy objectives beside PPO's, and their losses."""

import jax
import numpy as np

from jaxrl_reason.losses import (
    Counts,
    cispo,
    cispo_loss,
    clip_cov,
    clip_cov_loss,
    dft,
    gmpo,
    gmpo_loss,
    gpg_loss,
    gspo,
    gspo_loss,
    kl_cov,
    kl_cov_loss,
    reinforce_loss,
    rloo_loss,
    sapo,
    sapo_loss,
    sequence_mean,
    token_mean,
    vapo_loss,
)
from tests.losses import reference as ref
from tests.losses import reference_objectives as own
from tests.losses.battery import Array, Batch, Case, policy_loss

# Bounds that some tokens and sequences of a random batch are outside of, and some not.
CLIP = {"clip_low": 0.1, "clip_high": 0.15}
RATIO = {"ratio_low": 0.7, "ratio_high": 1.5}
TERMS = {
    "ref_logprobs": "ref",
    "kl_coef": 0.1,
    "entropy": "entropy",
    "entropy_coef": 0.01,
}


def chosen(b: Batch) -> Array:
    """A selection that comes with the rows, as that of a whole mini-batch does."""
    return b.weights > 1.1


def correct(b: Batch) -> Array:
    return b.sequence_weights > 1.0


def terms(x: Array, b: Batch) -> Array:
    return ref.where(b.mask, 0.1 * ref.kl("k3", x, b.ref, b.mask) - 0.01 * b.entropy)


def gspo_rows(x: Array, b: Batch, low: float = 3e-4, high: float = 4e-4) -> float:
    a = b.sequence_advantages
    rows = own.gspo_sequences(x, b.old, a, b.mask, low, high)
    return own.unmasked_row_mean(rows, b.mask)


def gmpo_rows(x: Array, b: Batch, low: float = 0.4, high: float = 0.4) -> float:
    a = b.sequence_advantages
    rows = own.gmpo_sequences(x, b.old, a, b.mask, low, high)
    return own.unmasked_row_mean(rows, b.mask)


def all_terms_of_gspo(x: Array, b: Batch) -> float:
    a = b.sequence_advantages * b.sequence_weights
    rows = own.gspo_sequences(x, b.old, a, b.mask, 0.1, 0.15)
    return own.unmasked_row_mean(rows, b.mask) + ref.sequence_mean(terms(x, b), b.mask)


def cispo_tokens(x: Array, b: Batch, low: float, high: float) -> Array:
    return own.cispo(x, b.x, b.old, b.advantages, b.mask, low, high)


def clip_cov_tokens(x: Array, b: Batch, low: float = 1.0, high: float = 1.0) -> Array:
    loss = ref.clipped_surrogate(x, b.old, b.advantages, b.mask, low, high)
    return ref.where(~chosen(b), loss)


def vapo_terms(x: Array, b: Batch) -> float:
    surrogate = ref.clipped_surrogate(x, b.old, b.advantages, b.mask, 0.2, 0.28)
    tokens = float((b.mask > 0).sum())
    positive = own.positive_nll(x, b.mask, correct(b), tokens)
    return ref.token_mean(surrogate, b.mask) + 0.1 * positive


def vapo(x: jax.Array, b: Batch, counts: Counts) -> jax.Array:
    # Any counts that every part of the mini-batch shares will do here; those of the
    # correct sequences have a test of their own.
    return vapo_loss(
        x,
        b.old,
        b.advantages,
        b.mask,
        counts,
        correct=correct(b),
        positive_counts=counts,
    )[0]


CASES = [
    Case(
        "gspo, one advantage per sequence",
        lambda x, b, c: sequence_mean(
            gspo(x, b.old, b.sequence_advantages, b.mask, **CLIP), b.mask, c
        ),
        lambda x, b: gspo_rows(x, b, 0.1, 0.15),
    ),
    Case(
        "gspo, one advantage per token",
        lambda x, b, c: sequence_mean(
            gspo(x, b.old, b.advantages, b.mask, **CLIP), b.mask, c
        ),
        lambda x, b: ref.sequence_mean(
            own.gspo_tokens(x, b.x, b.old, b.advantages, b.mask, 0.1, 0.15), b.mask
        ),
    ),
    Case(
        "gmpo",
        lambda x, b, c: sequence_mean(
            gmpo(x, b.old, b.sequence_advantages, b.mask, **CLIP), b.mask, c
        ),
        lambda x, b: gmpo_rows(x, b, 0.1, 0.15),
    ),
    Case(
        "cispo",
        lambda x, b, c: token_mean(
            cispo(x, b.old, b.advantages, b.mask, **RATIO), b.mask, c
        ),
        lambda x, b: ref.token_mean(cispo_tokens(x, b, 0.7, 1.5), b.mask),
    ),
    Case(
        "sapo",
        lambda x, b, c: token_mean(
            sapo(x, b.old, b.advantages, b.mask, tau_positive=2.0, tau_negative=3.0),
            b.mask,
            c,
        ),
        lambda x, b: ref.token_mean(
            own.sapo(x, b.old, b.advantages, b.mask, 2.0, 3.0), b.mask
        ),
    ),
    Case(
        "kl_cov",
        lambda x, b, c: token_mean(
            kl_cov(x, b.old, b.advantages, b.mask, coef=0.7, selected=chosen(b)),
            b.mask,
            c,
        ),
        lambda x, b: ref.token_mean(
            own.kl_cov(x, b.old, b.advantages, b.mask, chosen(b), 0.7), b.mask
        ),
    ),
    Case(
        "clip_cov",
        lambda x, b, c: token_mean(
            clip_cov(x, b.old, b.advantages, b.mask, selected=chosen(b), **CLIP),
            b.mask,
            c,
        ),
        lambda x, b: ref.token_mean(clip_cov_tokens(x, b, 0.1, 0.15), b.mask),
    ),
    Case(
        "gspo_loss", policy_loss(gspo_loss, advantages="sequence_advantages"), gspo_rows
    ),
    Case(
        "gspo_loss, all terms",
        policy_loss(
            gspo_loss,
            advantages="sequence_advantages",
            weights="sequence_weights",
            **CLIP,
            **TERMS,
        ),
        all_terms_of_gspo,
        ("entropy",),
    ),
    Case(
        "gmpo_loss", policy_loss(gmpo_loss, advantages="sequence_advantages"), gmpo_rows
    ),
    Case(
        "sapo_loss",
        policy_loss(sapo_loss),
        lambda x, b: ref.sequence_mean(
            own.sapo(x, b.old, b.advantages, b.mask), b.mask
        ),
    ),
    Case(
        "cispo_loss",
        policy_loss(cispo_loss, ratio_high=1.3),
        lambda x, b: ref.token_mean(cispo_tokens(x, b, 0.0, 1.3), b.mask),
    ),
    Case(
        "cispo_loss, all terms",
        policy_loss(cispo_loss, weights="weights", **RATIO, **TERMS),
        lambda x, b: ref.token_mean(
            cispo_tokens(x, b, 0.7, 1.5) * ref.where(b.mask, b.weights) + terms(x, b),
            b.mask,
        ),
        ("entropy",),
    ),
    Case(
        "reinforce_loss",
        policy_loss(reinforce_loss),
        lambda x, b: ref.token_mean(
            ref.policy_gradient(x, b.advantages, b.mask), b.mask
        ),
    ),
    Case(
        "rloo_loss",
        policy_loss(rloo_loss, advantages="sequence_advantages"),
        lambda x, b: ref.sequence_sum_mean(
            ref.policy_gradient(x, b.sequence_advantages, b.mask), b.mask
        ),
    ),
    Case(
        "gpg_loss",
        policy_loss(gpg_loss, advantages="sequence_advantages"),
        lambda x, b: ref.token_mean(
            ref.policy_gradient(x, b.sequence_advantages, b.mask), b.mask
        ),
    ),
    Case(
        "kl_cov_loss",
        lambda x, b, c: kl_cov_loss(
            x, b.old, b.advantages, b.mask, c, selected=chosen(b)
        )[0],
        lambda x, b: ref.token_mean(
            own.kl_cov(x, b.old, b.advantages, b.mask, chosen(b)), b.mask
        ),
    ),
    Case(
        "clip_cov_loss",
        lambda x, b, c: clip_cov_loss(
            x, b.old, b.advantages, b.mask, c, selected=chosen(b)
        )[0],
        lambda x, b: ref.token_mean(clip_cov_tokens(x, b), b.mask),
    ),
    Case("vapo_loss", vapo, vapo_terms),
    # The weight of a token is frozen at the batch's own log-probs.
    Case(
        "dft",
        lambda x, b, c: token_mean(dft(x, b.mask), b.mask, c),
        lambda x, b: -ref.token_mean(np.exp(b.x) * x, b.mask),
    ),
]
