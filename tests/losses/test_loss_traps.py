"""Faults of objectives and penalties seen in public libraries, with what they break.

A test asserts the property of the library's function and then that the same assertion
fails on a mutant: the faulty form as it was seen elsewhere. The numbers of the sections
are those of the project's list of traps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from tests.losses import reference
from tests.losses.jaxprs import largest_array
from tests.losses.traps import breaks, slope, zero
from tests.losses.worked import EXAMPLES, MASK, NEW, OLD, close

# 14. The clip inverted for negative advantages.


def test_14_the_clip_is_pessimistic_for_both_signs() -> None:
    table = {  # (advantage, ratio): (value, gradient in the log-prob)
        (1.0, 0.5): (-0.5, -0.5),
        (1.0, 1.0): (-1.0, -1.0),
        (1.0, 1.5): (-1.2, 0.0),
        (-1.0, 0.5): (0.8, 0.0),
        (-1.0, 1.0): (1.0, 1.0),
        (-1.0, 1.5): (1.5, 1.5),
    }

    def check(surrogate: Callable) -> None:
        run = slope(lambda *arrays: surrogate(*arrays).sum())
        for (a, ratio), (value, expected) in table.items():
            one = np.ones((1, 1), np.float32)
            found, grad = run(np.float32(np.log(ratio)) * one, 0 * one, a * one, one)
            close(found, value)
            close(grad, [[expected]])

    check(lib.clipped_surrogate)

    def mutant(new: Any, old: Any, a: Any, m: Any) -> jax.Array:
        ratio = jnp.exp(new - old)
        return jnp.minimum(-a * ratio, -a * jnp.clip(ratio, 0.8, 1.2))

    breaks(check, mutant)


# 17. exp of a large log-ratio.


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_17_large_log_ratios_stay_finite(advantage: float) -> None:
    old = np.array([[0.0, -100.0, 100.0, -100.0]], np.float32)
    mask = np.array([[1, 1, 1, 0]])

    def check(surrogate: Callable) -> None:
        def loss(x: jax.Array) -> jax.Array:
            tokens = surrogate(x, old, np.full((1, 4), advantage, np.float32), mask)
            return lib.token_mean(tokens, mask, lib.batch_counts(mask))

        value, grad = slope(loss)(np.zeros((1, 4), np.float32))
        assert np.isfinite(value)
        assert np.isfinite(grad).all()
        assert np.asarray(grad)[0, 3] == 0

    check(lib.clipped_surrogate)
    check(partial(lib.clipped_surrogate, dual_clip=3.0))
    check(lambda x, old, a, m: lib.kl_penalty(x, old, m))

    def mutant(new: Any, old: Any, a: Any, m: Any) -> jax.Array:
        ratio = jnp.exp(new - old) * m
        return jnp.maximum(-a * ratio, -a * jnp.clip(ratio, 0.8, 1.2))

    breaks(check, mutant)


# 20. A penalty that pushes at ratio 1.


def test_20_no_penalty_pushes_where_the_policies_agree() -> None:
    def check(penalty: Callable) -> None:
        pull = slope(lambda x: penalty(x, OLD, MASK).sum())
        assert zero(pull(OLD.astype(np.float32))[1])

    for gradient in ("k2", "k3"):
        for estimator in ("k1", "k2", "k3"):
            check(partial(lib.kl_penalty, estimator=estimator, gradient=gradient))
    breaks(check, lambda x, ref, m: jnp.abs(jnp.where(m, x - ref, 0.0)))


# 21. k3 by its plain formula.


def test_21_k3_is_never_negative_nor_infinite() -> None:
    d = np.concatenate([np.geomspace(1e-8, 200.0, 400), [0.0]])
    d = np.concatenate([d, -d]).astype(np.float32)[None]
    ones, zeros = np.ones_like(d), np.zeros_like(d)

    def check(k3: Callable) -> None:
        value = np.asarray(jax.jit(k3)(d))
        assert (value >= 0).all()
        assert np.isfinite(value).all()
        assert np.isfinite(slope(lambda x: k3(x).sum())(d)[1]).all()

    check(lambda d: lib.kl_k3(d, zeros))
    check(lambda d: lib.kl_penalty(d, zeros, ones))
    breaks(check, lambda d: jnp.exp(jnp.clip(-d, -20, 20)) + d - 1)  # cancels
    breaks(check, lambda d: jnp.maximum(jnp.expm1(-d) + d, 0))  # overflows


# 22. The wrong form as a loss.


def test_22_a_penalty_has_the_gradient_that_was_asked_for() -> None:
    z = np.array([0.2, -0.1, 0.5], np.float32)
    ref = jax.nn.log_softmax(np.array([0.0, 0.3, 0.1], np.float32))
    p = jax.nn.softmax(z)

    def check(penalty: Callable) -> None:
        """Over all tokens: the gradient of KL(policy || reference)."""

        def expected(z: jax.Array) -> jax.Array:
            tokens = penalty(jax.nn.log_softmax(z)[None], ref[None], np.ones((1, 3)))
            return (p * tokens[0]).sum()

        close(slope(expected)(z)[1], EXAMPLES["klg.rev"])

    for estimator in ("k1", "k3"):
        check(partial(lib.kl_penalty, estimator=estimator, gradient="k2"))
    check(partial(lib.kl_penalty, estimator="k2"))
    breaks(check, partial(lib.kl_penalty, estimator="k1"))  # zero on average
    breaks(check, partial(lib.kl_penalty, estimator="k3"))  # the other direction


# 25. The overlong penalty without a floor.


def test_25_the_penalty_has_a_floor() -> None:
    def check(penalty: Callable) -> None:
        lengths = np.array([16384, 20480, 22528, 10**6])
        assert penalty(lengths).tolist() == [0.0, -1.0, -1.0, -1.0]

    check(partial(lib.soft_overlong_penalty, max_length=20480, cache_length=4096))
    mutant = lambda n: np.minimum(-(n - 16384) / 4096, 0.0)  # noqa: E731
    close(mutant(np.array(22528)), EXAMPLES["sop.verl_22528"])
    breaks(check, mutant)


# 45. Full logits.


@pytest.mark.parametrize(("batch", "tokens"), [(8, 64), (64, 8), (512, 1)])
def test_45_no_array_of_all_logits(batch: int, tokens: int) -> None:
    width, vocabulary, chunk = 4, 300, 32
    hidden, unembed = jnp.ones((batch, tokens, width)), jnp.ones((width, vocabulary))
    targets = jnp.zeros((batch, tokens), int)

    def check(function: Callable) -> None:
        def loss(hidden: jax.Array, unembed: jax.Array) -> jax.Array:
            logprobs, entropy = function(hidden, unembed)
            return logprobs.sum() + entropy.sum()

        largest = largest_array(jax.value_and_grad(loss, (0, 1)), hidden, unembed)
        assert largest <= chunk * vocabulary

    check(lambda h, w: lib.chunked_logprobs(h, w, targets, chunk_size=chunk))

    def all_at_once(h: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        return lib.token_logprobs(h @ w, targets), lib.token_entropy(h @ w)

    def kept_for_the_backward_pass(h: jax.Array, w: jax.Array) -> Any:
        """Blocks in the forward pass, but the scan saves every block's logits."""

        def block(x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            z = x[0] @ w
            return lib.token_logprobs(z, x[1]), lib.token_entropy(z)

        split = h.reshape(-1, chunk, width), targets.reshape(-1, chunk)
        return jax.lax.map(block, split)

    breaks(check, all_at_once)
    breaks(check, kept_for_the_backward_pass)


# 46. where after exp.


def test_46_a_dead_branch_has_no_gradient() -> None:
    mask = np.array([[1, 0]])
    old = np.array([[0.0, -1000.0]], np.float32)

    def check(surrogate: Callable) -> None:
        run = slope(lambda x: surrogate(x, old, np.ones((1, 2)), mask).sum())
        found = np.asarray(run(np.zeros((1, 2), np.float32))[1])
        assert np.isfinite(found).all()
        assert found[0, 1] == 0

    check(lib.clipped_surrogate)
    check(lambda x, old, a, m: lib.kl_penalty(x, old, m))

    def mutant(new: Any, old: Any, a: Any, m: Any) -> jax.Array:
        return jnp.where(m, -a * jnp.exp(new - old), 0.0)

    breaks(check, mutant)


# 48. [B, T] * [B] when T == B.


def test_48_a_square_batch_is_not_broadcast_the_wrong_way() -> None:
    a = np.array([1.0, -1.0, 0.5, -2.0], np.float32)  # B = T = 4
    expected = reference.policy_gradient(NEW, a, MASK)

    def check(loss: Callable) -> None:
        close(loss(NEW, a, MASK), expected)

    check(lib.policy_gradient)
    check(lambda x, a, m: lib.policy_gradient(x, np.repeat(a[:, None], 4, 1), m))

    def mutant(x: Any, a: Any, m: Any) -> Any:
        return -a * np.where(m, x, 0.0)  # NumPy broadcasts over the tokens

    breaks(check, mutant)
    with pytest.raises(ValueError, match="jax_numpy_rank_promotion"):
        jnp.asarray(NEW) * jnp.asarray(a)
