"""Lines of the battery: losses for samples of a policy that is not the present one.

The batch's reference log-probs stand in for what the sampler reported.
"""

from functools import partial

import jax
import numpy as np

from jaxrl_reason.losses import (
    Counts,
    binary_kl,
    decoupled_ppo_loss,
    dppo,
    dppo_loss,
    kimi_k2_5_loss,
    kl_penalty,
    log_ratio_pull,
    luspo_loss,
    ppo_loss,
    sequence_sum_mean,
    token_mean,
    vespo,
    vespo_loss,
)
from tests.losses import reference as ref
from tests.losses import reference_objectives as own
from tests.losses import reference_off_policy as off
from tests.losses.battery import Array, Batch, Case, clipped, policy_loss
from tests.losses.battery_objectives import TERMS, terms

# Some tokens of a random batch are beyond these, of either sign, and some are not.
REGION = {"delta_low": 0.05, "delta_high": 0.07}
BAND = {"log_ratio_low": -0.3, "log_ratio_high": 0.4, "pull_coef": 0.2}


def dppo_tokens(x: Array, b: Batch, old: Array, kl: bool = False) -> Array:
    divergence = off.binary_kl if kl else off.binary_tv
    bounds = (0.01, 0.02) if kl else (0.05, 0.07)
    return off.dppo(x, old, b.advantages, b.mask, divergence, *bounds)


def all_terms_of_dppo(x: Array, b: Batch) -> float:
    tokens = dppo_tokens(x, b, b.ref) + 0.3 * off.pull(x, b.ref, b.mask)
    tokens = tokens * ref.where(b.mask, b.weights) + terms(x, b)
    return ref.token_mean(tokens, b.mask)


def luspo_rows(x: Array, b: Batch) -> float:
    a = b.sequence_advantages
    rows = own.gspo_sequences(x, b.old, a, b.mask, 0.1, 0.15)
    return own.unmasked_row_mean(rows * (b.mask > 0).sum(1), b.mask)


def decoupled(x: Array, b: Batch, truncate: bool) -> float:
    u = off.behaviour_weights(b.old, b.ref, b.mask, 1.2, truncate)
    return ref.token_mean(clipped(x, b) * u, b.mask)


def vespo_of_sampler(x: jax.Array, b: Batch, counts: Counts) -> jax.Array:
    return vespo_loss(
        x,
        b.old,
        b.sequence_advantages,
        b.mask,
        counts,
        sampler_logprobs=b.ref,
        kernel_positive=(1.0, 0.5),
    )[0]


def vespo_tokens(x: Array, b: Batch, old: Array, a: Array) -> Array:
    return off.vespo(x, b.x, old, a, b.mask)


def kl_tokens(name: str, x: Array, b: Batch) -> Array:
    k3 = ref.kl("k3", x, b.ref, b.mask)
    if name == "k3_ratio":
        return k3 * np.exp(ref.where(b.mask, x - b.old))
    return k3 * own.sequence_ratios(x, b.old, b.mask)[:, None]


def kl_case(name: str) -> Case:
    return Case(
        f"kl_penalty, {name}",
        lambda x, b, c: token_mean(
            kl_penalty(x, b.ref, b.mask, estimator=name, old_logprobs=b.old), b.mask, c
        ),
        lambda x, b: ref.token_mean(kl_tokens(name, x, b), b.mask),
    )


CASES = [
    kl_case("k3_ratio"),
    kl_case("k3_sequence_ratio"),
    Case(
        "kl_penalty, abs",
        lambda x, b, c: token_mean(
            kl_penalty(x, b.ref, b.mask, estimator="abs"), b.mask, c
        ),
        lambda x, b: ref.token_mean(
            ref.where(b.mask, np.abs(ref.where(b.mask, x - b.ref))), b.mask
        ),
    ),
    Case(
        "ppo_loss, unbiased KL",
        policy_loss(ppo_loss, ref_logprobs="ref", kl_coef=0.1, kl_estimator="k3_ratio"),
        lambda x, b: ref.token_mean(
            clipped(x, b) + 0.1 * kl_tokens("k3_ratio", x, b), b.mask
        ),
    ),
    Case(
        "dppo",
        lambda x, b, c: sequence_sum_mean(
            dppo(x, b.old, b.advantages, b.mask, **REGION), b.mask, c
        ),
        lambda x, b: ref.sequence_sum_mean(dppo_tokens(x, b, b.old), b.mask),
    ),
    Case(
        "dppo_loss, binary KL",
        policy_loss(dppo_loss, divergence=binary_kl, delta_low=0.01, delta_high=0.02),
        lambda x, b: ref.token_mean(dppo_tokens(x, b, b.old, kl=True), b.mask),
    ),
    Case(
        "dppo_loss, all terms",
        policy_loss(
            dppo_loss,
            sampler_logprobs="ref",
            pull_coef=0.3,
            weights="weights",
            **REGION,
            **TERMS,
        ),
        all_terms_of_dppo,
        ("entropy",),
    ),
    Case(
        "log_ratio_pull",
        lambda x, b, c: token_mean(log_ratio_pull(x, b.old, b.mask), b.mask, c),
        lambda x, b: ref.token_mean(off.pull(x, b.old, b.mask), b.mask),
    ),
    Case(
        "kimi_k2_5_loss",
        policy_loss(kimi_k2_5_loss, **BAND),
        lambda x, b: ref.token_mean(
            off.kimi_k2_5(x, b.old, b.advantages, b.mask, -0.3, 0.4, 0.2), b.mask
        ),
    ),
    Case(
        "vespo",
        lambda x, b, c: token_mean(vespo(x, b.old, b.advantages, b.mask), b.mask, c),
        lambda x, b: ref.token_mean(vespo_tokens(x, b, b.old, b.advantages), b.mask),
    ),
    Case(
        "vespo_loss, by the sampler",
        vespo_of_sampler,
        lambda x, b: ref.token_mean(
            off.vespo(x, b.x, b.ref, b.sequence_advantages, b.mask, (1.0, 0.5)), b.mask
        ),
    ),
    Case(
        "luspo_loss",
        policy_loss(
            luspo_loss, advantages="sequence_advantages", clip_low=0.1, clip_high=0.15
        ),
        luspo_rows,
    ),
    *(
        Case(
            f"decoupled_ppo_loss, truncate={truncate}",
            policy_loss(
                decoupled_ppo_loss,
                sampler_logprobs="ref",
                weight_cap=1.2,
                truncate=truncate,
            ),
            partial(decoupled, truncate=truncate),
        )
        for truncate in (False, True)
    ),
]
