"""Inputs at the edge: infinite log-probs, masks that are none, no tokens, 4M tokens."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify

import jaxrl_reason.losses as lib
from jaxrl_reason.losses._math import number_of_tokens
from tests.losses.battery import Case, counts_of, random_batch
from tests.losses.every_loss import LOSSES
from tests.losses.worked import close

MASK = np.array([[1, 1], [1, 0]])
ONES = -np.ones((2, 2), np.float32)
INFINITE = np.array([[-np.inf, -1], [-1, -2]], np.float32)


@pytest.mark.parametrize("name", ["gspo_loss", "gmpo_loss", "luspo_loss", "ppo_loss"])
@pytest.mark.parametrize("impossible", ["logprobs", "old_logprobs"])
def test_a_log_ratio_without_bound_leaves_the_loss_finite(
    name: str, impossible: str
) -> None:
    arrays = {"logprobs": ONES, "old_logprobs": ONES, impossible: INFINITE}

    def loss(new: jax.Array) -> Any:
        advantages, counts = jnp.array([1.0, -1.0]), lib.batch_counts(MASK)
        return getattr(lib, name)(new, arrays["old_logprobs"], advantages, MASK, counts)

    (value, metrics), grad = jax.value_and_grad(loss, has_aux=True)(arrays["logprobs"])
    assert np.isfinite(value)
    assert np.isfinite(grad).all()
    assert all(np.isfinite(x) for pair in metrics.values() for x in pair)


def test_a_samplers_impossible_token_leaves_the_means_finite() -> None:
    for old, sampler in ((ONES, INFINITE), (INFINITE, ONES)):
        metrics = lib.mismatch_metrics(old, sampler, MASK)
        assert all(np.isfinite(x) for pair in metrics.values() for x in pair)
        assert metrics["sampler_diff"][0] == 1e4
        assert np.isfinite(list(lib.mismatch_peaks(old, sampler, MASK).values())).all()


def test_no_problem_with_k_samples() -> None:
    with pytest.raises(ValueError, match="at most the samples of some problem, got 8"):
        lib.pass_at_k(4, 2, 8)
    found = lib.pass_at_k(np.array([4, 8]), np.array([2, 2]), 8)
    assert np.isnan(found).tolist() == [True, False]


@pytest.mark.parametrize(
    ("tokens", "fraction", "expected"),
    [
        (4_194_304, 0.2, 838_860),
        (10, 0.7, 7),
        (10, 0.3, 3),
        (4999, 2e-4, 1),
        (10_000, 2e-4, 2),
        (9999, 2e-4, 1),
        (2_000_000, 0.123456, 246_912),
        (7, 1.0, 7),
        (7, 1, 7),
        (3, 0.01, 1),
    ],
)
def test_a_fraction_of_the_tokens_is_exact(
    tokens: int, fraction: float, expected: int
) -> None:
    count = jax.jit(partial(number_of_tokens, fraction))
    assert count(np.ones((1, tokens), bool)) == expected


def test_responses_without_a_place_for_a_token() -> None:
    none, mask = np.zeros((2, 0), np.float32), np.zeros((2, 0), bool)
    for found in (
        *lib.gae(none, none, mask),
        lib.discounted_returns(none, mask),
        lib.rewards_at_end(np.ones(2, np.float32), mask),
    ):
        assert found.shape == (2, 0)


CLIPPED = ["clipped_surrogate", "ppo_loss", "dapo_loss", "gspo_loss"]


@pytest.mark.parametrize("name", CLIPPED)
@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ({"clip_low": "0.2"}, "clip_low must be finite and >= 0, got '0.2'"),
        ({"clip_high": "0.2"}, "clip_high must be finite and >= 0, got '0.2'"),
        ({"clip_high": 1.28}, "distance of the bound from 1, so 0.28 .* got 1.28"),
    ],
)
def test_clips_that_are_no_distances(
    name: str, bound: dict[str, Any], message: str
) -> None:
    counts = (lib.batch_counts(MASK),) if name.endswith("_loss") else ()
    with pytest.raises(ValueError, match=message):
        getattr(lib, name)(ONES, ONES, np.ones(2), MASK, *counts, **bound)


def test_a_number_in_quotes_is_no_number() -> None:
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got '0.9'"):
        lib.discounted_returns(ONES, MASK, gamma="0.9")


NO_MASKS = {
    "advantages": np.array([[1.5, -0.5], [2.0, 0.0]], np.float32),
    "a half": np.array([[1.0, 0.5], [1.0, 0.0]], np.float32),
    "nan": np.array([[1.0, np.nan], [1.0, 0.0]], np.float32),
    "minus one": np.array([[1, -1], [1, 0]]),
}


@pytest.mark.parametrize("what", NO_MASKS)
@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_a_mask_that_is_none_is_refused(case: Case, what: str) -> None:
    b = random_batch(0, sequences=2, tokens=2)
    counts = counts_of(b)
    with pytest.raises(ValueError, match="a mask must be bool or 0/1, got "):
        case.loss(jnp.asarray(b.x), b._replace(mask=NO_MASKS[what]), counts)


def test_a_traced_mask_is_seen_by_checkify() -> None:
    def total(mask: jax.Array) -> jax.Array:
        return lib.nll(ONES, mask).sum()

    checked = checkify.checkify(jax.jit(total))
    checked(MASK)[0].throw()
    for what in NO_MASKS.values():
        assert "a mask must be bool or 0/1" in checked(what)[0].get()
    # Without it a traced mask has no values to look at.
    assert jax.jit(total)(NO_MASKS["a half"]) == 3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_reward_that_is_no_number_costs_its_group(bad: float) -> None:
    rng = np.random.default_rng(0)
    rewards = rng.integers(0, 3, (9, 2)).astype(np.float32)
    ids = np.array([0, 1, 2] * 3)
    broken = rewards.copy()
    broken[4, 1] = bad  # of group 1
    gdpo = jax.jit(partial(lib.gdpo_advantages, num_groups=3))
    found = gdpo(broken, ids)
    close(found, gdpo(rewards, ids, valid=ids != 1))
    assert (found[ids == 1] == 0).all()
    assert (found[ids != 1] != 0).any()
    ratio = partial(lib.lost_group_ratio, num_groups=3)
    close(ratio(broken, ids), 1 / 3)
    close(ratio(broken[:, 1], ids), 1 / 3)
    assert ratio(rewards, ids) == 0
    assert ratio(broken, ids, valid=np.arange(9) != 4) == 0


def by_hand(rewards: Any, values: Any, mask: Any, gamma: float, lam: float) -> Any:
    """GAE and returns in float64, one token after the other."""
    advantages, returns = np.zeros(mask.shape), np.zeros(mask.shape)
    next_value, later, sums = (np.zeros(len(mask)) for _ in range(3))
    for t in reversed(range(mask.shape[1])):
        on, r, v = mask[:, t], rewards[:, t].astype(float), values[:, t].astype(float)
        delta = r + gamma * next_value - v
        later = np.where(on, delta + gamma * lam * later, later)
        sums = np.where(on, r + gamma * sums, sums)
        next_value = np.where(on, v, next_value)
        advantages[:, t], returns[:, t] = np.where(on, later, 0), np.where(on, sums, 0)
    return advantages, returns


@pytest.mark.parametrize("length", [8192, 32_768])
@pytest.mark.parametrize(
    ("gamma", "lam"), [(1.0, 1.0), (1.0, 0.95), (0.99, 0.95), (0.9999, 1.0)]
)
def test_long_responses_keep_their_digits(
    length: int, gamma: float, lam: float
) -> None:
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 4, length)).astype(np.float32)
    mask = rng.random((4, length)) > 0.1
    expected, sums = by_hand(0.1 * rewards, values, mask, gamma, lam)
    rewards = (0.1 * rewards).astype(np.float32)
    found = jax.jit(partial(lib.gae, gamma=gamma, lam=lam))(rewards, values, mask)[0]
    returns = jax.jit(partial(lib.discounted_returns, gamma=gamma))(rewards, mask)
    for x, y in ((found, expected), (returns, sums)):
        assert np.max(np.abs(x - y)) <= 1e-6 * np.max(np.abs(y))


LOG_U = np.array([[0.5, -0.3, 9.0], [1.0, 2.0, -4.0]], np.float32)
HOLES = np.array([[1, 1, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("token", np.exp(LOG_U) * HOLES),
        ("sequence", np.exp([[0.2], [-1.0]]) * HOLES),
        ("geometric", np.exp([[0.1], [-1 / 3]]) * HOLES),
        ("max", np.exp([[0.5], [2.0]]) * HOLES),
    ],
)
def test_kinds_of_importance_weights(kind: str, expected: np.ndarray) -> None:
    weigh: Callable = jax.jit(partial(lib.importance_weights, kind=kind, cap=100.0))
    old, sampler = LOG_U, np.zeros_like(LOG_U)
    close(weigh(old, sampler, HOLES), expected)
    cut = lib.importance_weights(old, sampler, HOLES, kind=kind, cap=1.2)
    close(cut, np.minimum(expected, 1.2))
    band = lib.masked_importance_weights(
        old, sampler, HOLES, kind=kind, low=0.5, high=2.0
    )
    close(band, np.where((expected < 0.5) | (expected > 2), 0, expected))


def test_a_long_response_is_not_a_factor_of_its_length() -> None:
    old = np.full((1, 8000), -1.0, np.float32)
    sampler, mask = old + 3.5e-4, np.ones((1, 8000))
    product = lib.importance_weights(old, sampler, mask, kind="sequence")
    mean = lib.importance_weights(old, sampler, mask, kind="geometric")
    close(product[0, 0], np.exp(-2.8), rtol=1e-3)
    close(mean[0, 0], np.exp(-3.5e-4), rtol=1e-6)


def test_rejection_by_token_and_by_the_worst_token() -> None:
    old, sampler = LOG_U, np.zeros_like(LOG_U)
    reject = partial(lib.rejection_mask, old, sampler, HOLES)
    tokens = reject(kind="token", low=0.5, high=3.0)
    assert tokens.tolist() == [[True, True, False], [True, False, False]]
    assert reject(kind="worst", low=0.5, high=3.0).tolist() == [True, False]
    assert reject(kind="worst", low=0.01, high=8.0).tolist() == [True, True]
    assert reject(kind="sequence", low=0.3, high=3.0).tolist() == [True, True]
    empty = lib.rejection_mask(old, sampler, 0 * HOLES, kind="worst", low=0.5, high=2)
    assert empty.all()


DOUBLE = """
    import json
    import jax, numpy as np
    jax.config.update("jax_enable_x64", True)
    from tests.losses.battery import Batch, counts_of, random_batch
    from tests.losses.every_loss import LOSSES
    from jaxrl_reason.losses import chunked_logprobs, gae, token_logprobs
    b = random_batch(0)
    wide = Batch(*(
        x.astype(np.float64) if x.dtype == np.float32 else x for x in map(np.asarray, b)
    ))
    report = {}
    for case in LOSSES:
        value, grad = jax.value_and_grad(case.loss)(
            jax.numpy.asarray(wide.x), wide, counts_of(wide)
        )
        expected = float(case.reference(wide.x, wide))
        report[case.name] = [
            str(value.dtype), str(grad.dtype),
            abs(float(value) - expected) / max(1.0, abs(expected)),
        ]
        narrow = case.loss(jax.numpy.asarray(b.x), b, counts_of(b))
        report[case.name].append(str(narrow.dtype))
    print(json.dumps(report))
"""


def test_float64_is_computed_in_float64(eight_devices_run: Callable) -> None:
    report = eight_devices_run(DOUBLE)
    assert report.keys() == {case.name for case in LOSSES}
    wrong = {
        name: found
        for name, found in report.items()
        if found[:2] != ["float64"] * 2 or found[2] > 1e-10 or found[3] != "float32"
    }
    assert wrong == {}


GROUPS = """
    import json
    import jax, jax.numpy as jnp, numpy as np
    jax.config.update("jax_enable_x64", True)
    report = {}
    from jaxrl_reason import losses as lib
    rng = np.random.default_rng(0)
    rewards, ids = rng.normal(5, 9, 4000), rng.integers(0, 7, 4000)
    of = {"group_ids": jnp.asarray(ids), "num_groups": 7}
    sizes = np.bincount(ids)[ids]
    for dtype in ("float64", "float32"):
        given = rewards.astype(dtype)
        exact = given.astype(np.float64)
        means = np.array([exact[ids == i].mean() for i in range(7)])[ids]
        expected = {
            "dr_grpo_advantages": exact - means,
            "gpg_advantages": exact - means,
            "rloo_advantages": (exact - means) * sizes / (sizes - 1),
        }
        for name, right in expected.items():
            found = np.asarray(getattr(lib, name)(jnp.asarray(given), **of))
            assert found.dtype == dtype
            report[f"{name} {dtype}"] = float(np.abs(found - right).max())
    print(json.dumps(report))
"""


def test_groups_of_any_size_are_centred(eight_devices_run: Callable) -> None:
    for name, error in eight_devices_run(GROUPS).items():
        # Of rewards from -30 to 40; the first rounding of a sum of many is gone.
        assert error < (1e-12 if name.endswith("float64") else 5e-6), name


@pytest.mark.parametrize("dtype", [np.float32, np.int8, bool])
def test_a_known_mask_may_stand_outside_of_jit(dtype: type) -> None:
    """JAX traces operations on arrays that jit only closes over; a check must not."""
    old, mask = -np.ones((2, 3), np.float32), np.array([[1, 1, 0], [1, 0, 0]], dtype)
    mask = jnp.asarray(mask)
    advantages, counts = jnp.array([1.0, -1.0]), lib.batch_counts(mask)

    def loss(x: jax.Array) -> jax.Array:
        value, _ = lib.dapo_loss(x, old, advantages, mask, lib.batch_counts(mask))
        return value + lib.token_mean(x, mask, counts)

    np.testing.assert_allclose(jax.jit(loss)(old), loss(jnp.asarray(old)), rtol=1e-6)
    found = jax.jit(lambda: lib.pass_at_k(jnp.array([4, 8]), jnp.array([1, 2]), 2))()
    np.testing.assert_allclose(found, [0.5, 1 - 15 / 28], rtol=1e-6)


def test_a_sum_is_the_same_in_any_order() -> None:
    rng = np.random.default_rng(0)
    x = np.exp(3 * rng.normal(size=(8, 4096))).astype(np.float32)
    x[::2] *= -0.9  # most of it cancels
    exact = float(np.sum(x.astype(np.float64)))
    on = np.ones(x.shape, bool)
    given = x, x[::-1, ::-1], np.sort(x, axis=1), np.sort(x.ravel()).reshape(x.shape)
    for y in given:
        total, count = jax.jit(lib.masked_total)(y, on)
        close(total, exact, rtol=6e-8)  # the result's own rounding, 2^-24
        assert count == x.size


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([1.0, np.inf, 2.0], np.inf),
        ([1.0, np.nan, 2.0], np.nan),
        ([3e38, -3e38, 2.0], 2.0),  # sizes add up to more than float32 holds
        ([0.0, 0.0, 0.0], 0.0),
        ([], 0.0),
    ],
)
def test_sums_of_what_is_not_finite(row: list[float], expected: float) -> None:
    total, _ = lib.masked_total(np.array([row], np.float32), np.ones((1, len(row))))
    np.testing.assert_array_equal(total, np.float32(expected))
