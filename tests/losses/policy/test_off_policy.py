"""DPPO, Kimi K2.5, VESPO, LUSPO and decoupled PPO: numbers worked out by hand."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    binary_kl,
    binary_tv,
    cispo_loss,
    decoupled_ppo_loss,
    dppo,
    dppo_loss,
    dppo_mask,
    gspo,
    importance_weights,
    kimi_k2_5_loss,
    log_ratio_pull,
    luspo_loss,
    masked_importance_weights,
    ppo_loss,
    sequence_sum_mean,
    vespo,
    vespo_loss,
)
from tests.losses.battery import random_batch
from tests.losses.worked import ADVANTAGES, MASK, NEW, OLD, SAMPLER, close

# One response: likely tokens that go far, a rare one that does not, and two on their
# way back.
PI = np.log([[0.9, 0.01, 0.5, 0.3, 0.5, 0.9]])
MU = np.log([[0.5, 0.001, 0.9, 0.45, 0.9, 0.5]])
SIGNS = np.array([[1.0, 1, -1, -1, 1, -1]])
ONES = np.ones((1, 6))
COUNTS = batch_counts(ONES)


def value_and_grad(loss: Any, x: Any, *arrays: Any, **settings: Any) -> Any:
    step = jax.value_and_grad(loss, has_aux=True)
    return step(jnp.asarray(x, jnp.float32), *arrays, **settings)


def mean_of(pair: Any) -> float:
    total, count = pair
    return float(total / count)


def test_dppo_by_hand() -> None:
    kept = [[False, True, False, True, True, True]]
    np.testing.assert_array_equal(dppo_mask(PI, MU, SIGNS, ONES), kept)
    tokens = [[0, -10, 0, 2 / 3, -5 / 9, 9 / 5]]
    close(dppo(PI, MU, SIGNS, ONES), tokens)
    (loss, metrics), slope = value_and_grad(dppo_loss, PI, MU, SIGNS, ONES, COUNTS)
    close(loss, np.sum(tokens) / 6)
    close(slope, np.array(tokens) / 6)  # d rho / d logprobs = rho
    assert mean_of(metrics["clip_frac_low"]) == mean_of(metrics["clip_frac_high"])
    close(mean_of(metrics["clip_frac_low"]), 1 / 6)
    close(mean_of(metrics["divergence"]), (4 * 0.4 + 0.009 + 0.15) / 6)


def test_dppo_has_a_bound_for_each_sign() -> None:
    some = dppo_mask(PI, MU, SIGNS, ONES, delta_low=0.1, delta_high=0.5)
    np.testing.assert_array_equal(some, [[True, True, False, False, True, True]])


def test_dppo_looks_at_the_samplers_probabilities() -> None:
    arrays = (np.zeros_like(PI), SIGNS, ONES, COUNTS)
    found = dppo_loss(PI, *arrays, sampler_logprobs=MU)
    expected = dppo_loss(PI, MU, SIGNS, ONES, COUNTS)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        close(a, b)


def test_dppo_with_the_pull_of_kimi() -> None:
    d = PI - MU
    (loss, _), slope = value_and_grad(
        dppo_loss, PI, MU, SIGNS, ONES, COUNTS, pull_coef=0.5
    )
    tokens = np.array([[0, -10, 0, 2 / 3, -5 / 9, 9 / 5]])
    close(loss, (tokens + 0.5 * d**2).mean())
    close(slope, (tokens + d) / 6)  # the masked tokens are pulled back


def test_binary_divergences_by_hand() -> None:
    pi, mu = jnp.log(jnp.array([0.75, 0.2])), jnp.log(jnp.array([0.5, 0.2]))
    close(binary_tv(pi, mu), [0.25, 0])
    close(binary_kl(pi, mu), [np.log(2 / 3) / 2 + np.log(2) / 2, 0])
    assert float(binary_kl(mu, pi)[0]) != float(binary_kl(pi, mu)[0])
    # Certain and impossible tokens.
    pi, mu = jnp.array([0.0, -jnp.inf, 0.0, -jnp.inf]), jnp.log(jnp.full(4, 0.5))
    close(binary_tv(pi, mu), [0.5] * 4)
    assert (binary_kl(pi, mu) == jnp.inf).all()
    same = jnp.array([0.0, -jnp.inf])
    assert (binary_kl(same, same) == 0).all()
    assert (binary_tv(same, same) == 0).all()
    close(binary_kl(mu[:2], same), [np.log(2), np.log(2)])


def test_dppo_is_cispo_with_its_mask() -> None:
    """verl's form of DPPO: another value, the same gradient."""
    b = random_batch(0)
    arrays = (b.old, b.advantages, b.mask)
    keep = dppo_mask(b.x, *arrays, delta_low=0.05, delta_high=0.05)
    counts = batch_counts(b.mask)
    settings = {"delta_low": 0.05, "delta_high": 0.05}
    _, slope = value_and_grad(dppo_loss, b.x, *arrays, counts, **settings)
    _, other = value_and_grad(
        cispo_loss, b.x, *arrays, counts, ratio_high=20.0, weights=keep
    )
    close(slope, other)


def test_kimi_by_hand() -> None:
    new, old = np.array([[-1.0, -1.0, -1.0]]), np.array([[-1.5, -2.0, 0.0]])
    a, ones = np.array([[2.0, 2.0, 2.0]]), np.ones((1, 3))
    settings = {"log_ratio_low": -0.25, "log_ratio_high": 0.5, "pull_coef": 0.1}
    (loss, metrics), slope = value_and_grad(
        kimi_k2_5_loss, new, old, a, ones, batch_counts(ones), **settings
    )
    e = np.exp([0.5, 0.5, -0.25])
    close(loss, (-2 * e + 0.1 * np.array([0.25, 1, 1])).mean())
    close(slope[0], np.array([-2 * e[0] + 0.1, 0.2, -0.2]) / 3)
    # Whatever the sign of the advantage: PPO would clip one of these tokens.
    for name in ("clip_frac_low", "clip_frac_high"):
        close(mean_of(metrics[name]), 1 / 3)
    close(mean_of(metrics["pull"]), 0.75)
    close(log_ratio_pull(new, old, ones), [[0.25, 1, 1]])


def test_vespo_by_hand() -> None:
    old = np.zeros((3, 2))
    new = np.log([[2.0, 2.0], [0.5, 0.5], [2.0, 0.5]])  # W = 4, 1/4, 1
    a, ones = np.array([1.0, -1.0, -2.0]), np.ones((3, 2))
    phi = np.array([16 * np.exp(-9), np.exp(1.5) / 64, 1.0])
    close(vespo(new, old, a, ones), -(phi * a)[:, None] * new)
    counts = batch_counts(ones)
    (_, metrics), slope = value_and_grad(vespo_loss, new, old, a, ones, counts)
    close(slope, np.repeat(-phi * a / 6, 2).reshape(3, 2))
    close(mean_of(metrics["phi"]), phi.mean())
    found, _ = vespo_loss(new, new, a, ones, counts, sampler_logprobs=old)
    close(found, vespo_loss(new, old, a, ones, counts)[0])


def test_vespo_forgets_what_is_far_away() -> None:
    new, ones = jnp.zeros((2, 1000)), np.ones((2, 1000))
    old = jnp.stack([new[0] - 0.05, new[1] + 0.05])  # W = exp(+-50)
    (loss, _), slope = value_and_grad(
        vespo_loss, new, old, np.array([1.0, 1.0]), ones, batch_counts(ones)
    )
    assert float(loss) == 0
    assert (slope[0] == 0).all()
    assert (np.abs(slope[1]) < 1e-16).all()


def test_luspo_by_hand() -> None:
    new, old, ones = np.log([[4.0, 1.0]]), np.zeros((1, 2)), np.ones((1, 2))
    counts = batch_counts(ones)
    down = value_and_grad(luspo_loss, new, old, np.array([-1.0]), ones, counts)
    close(down[0][0], 4.0)  # s = 2, times two tokens
    close(down[1], [[2.0, 2.0]])  # GSPO's is half of it
    up = value_and_grad(luspo_loss, new, old, np.array([1.0]), ones, counts)
    close(up[0][0], -2 * 1.0025)
    close(up[1], [[0.0, 0.0]])


def test_luspo_is_gspo_summed_over_tokens() -> None:
    counts = batch_counts(MASK)
    found, metrics = luspo_loss(NEW, OLD, ADVANTAGES, MASK, counts)
    tokens = gspo(NEW, OLD, ADVANTAGES, MASK, clip_low=2e-3, clip_high=2.5e-3)
    close(found, sequence_sum_mean(tokens, MASK, counts))
    assert float(metrics["ratio"][1]) == 4  # of sequences


def test_decoupled_ppo_by_hand() -> None:
    mu, prox = np.log([[0.1, 0.1, 0.4]]), np.log([[0.2, 0.8, 0.2]])  # u = 2, 8, 0.5
    new, a, ones = np.log([[0.1, 0.8, 0.3]]), np.array([[1.0, 1.0, 2.0]]), ONES[:, :3]
    arrays, counts = (prox, a, ones), batch_counts(ones)
    (loss, metrics), slope = value_and_grad(
        decoupled_ppo_loss, new, *arrays, counts, sampler_logprobs=mu
    )
    # Ratios to prox 0.5, 1 and 1.5, the last clipped at 1.2; the second u is too large.
    close(loss, (-2 * 0.5 - 0 - 0.5 * 2 * 1.2) / 3)
    close(slope, np.array([[-1.0, 0, 0]]) / 3)
    close(mean_of(metrics["behaviour_weight"]), 2.5 / 3)
    close(mean_of(metrics["behaviour_capped"]), 1 / 3)
    (loss, metrics), slope = value_and_grad(
        decoupled_ppo_loss, new, *arrays, counts, sampler_logprobs=mu, truncate=True
    )
    close(loss, (-1 - 5 - 1.2) / 3)
    close(slope, np.array([[-1.0, -5, 0]]) / 3)
    close(mean_of(metrics["behaviour_weight"]), 7.5 / 3)


def test_decoupled_ppo_is_ppo_with_weights() -> None:
    arrays, counts = (NEW, OLD, ADVANTAGES, MASK), batch_counts(MASK)
    both = (OLD, SAMPLER, MASK)
    for truncate, weights in (
        (True, importance_weights(*both, cap=1.1)),
        (False, masked_importance_weights(*both, low=0.0, high=1.1)),
    ):
        found, _ = decoupled_ppo_loss(
            *arrays,
            counts,
            sampler_logprobs=SAMPLER,
            weight_cap=1.1,
            truncate=truncate,
        )
        close(found, ppo_loss(*arrays, counts, weights=weights)[0])


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        (dppo_loss, {"divergence": "tv"}, "divergence must be a function, got 'tv'"),
        (dppo_loss, {"delta_low": -1}, "delta_low must be finite and >= 0, got -1"),
        (dppo_loss, {"pull_coef": -1}, "pull_coef must be finite and >= 0, got -1"),
        (vespo_loss, {"kernel_positive": 2.0}, r"must be a pair \(c1, c2\), got 2.0"),
        (
            vespo_loss,
            {"kernel_negative": (3.0, 0.0)},
            "c2 of kernel_negative must be finite and > 0, got 0.0",
        ),
        (luspo_loss, {"clip_low": -1}, "clip_low must be finite and >= 0, got -1"),
        (
            kimi_k2_5_loss,
            {"log_ratio_low": 0.8, "log_ratio_high": 1.2, "pull_coef": 0},
            "log_ratio_low must be finite and <= 0, got 0.8",
        ),
        (
            decoupled_ppo_loss,
            {"sampler_logprobs": OLD, "weight_cap": 0},
            "cap must be > 0, got 0",
        ),
    ],
)
def test_refusals(loss: Any, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss(NEW, OLD, ADVANTAGES, MASK, batch_counts(MASK), **settings)
