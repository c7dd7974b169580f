"""Log-probs and entropies from logits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl_reason.losses as lib
from tests.losses import reference
from tests.losses.worked import EXAMPLES, close

# The temperature is traced here; the refusals below see it as a number.
token_logprobs, token_entropy = jax.jit(lib.token_logprobs), jax.jit(lib.token_entropy)
LOGITS = np.array([[[1, 2, 0.5], [0, -1, 3]]], np.float32)
TOKENS = np.array([[1, 2]])


def test_worked_numbers() -> None:
    close(token_logprobs(LOGITS, TOKENS), [EXAMPLES["tok.lp"]])
    close(token_logprobs(LOGITS, TOKENS, temperature=0.6), [EXAMPLES["tok.lp_T06"]])
    close(token_entropy(LOGITS), [EXAMPLES["tok.ent"]])
    slope = jax.jit(jax.grad(lambda z: token_entropy(z).sum()))
    close(np.asarray(slope(LOGITS))[0], EXAMPLES["ent.grad"])


@settings(max_examples=10, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    scale=st.sampled_from([1.0, 20.0]),
)
def test_values_are_the_references(seed: int, temperature: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(2, 3, 9))).astype(np.float32)
    tokens = rng.integers(0, 9, (2, 3))
    close(
        token_logprobs(logits, tokens, temperature=temperature),
        reference.token_logprobs(logits, tokens, temperature),
    )
    close(
        token_entropy(logits, temperature=temperature),
        reference.token_entropy(logits, temperature),
    )


def test_gradients_are_numerical_ones() -> None:
    rng = np.random.default_rng(0)
    logits, tokens = rng.normal(size=(1, 3, 5)), rng.integers(0, 5, (1, 3))
    small = logits.astype(np.float32)
    logprobs = jax.jit(lambda z: token_logprobs(z, tokens, temperature=0.7).sum())
    grad = jax.grad(logprobs)(small)
    slope = reference.numerical_gradient(
        lambda z: reference.token_logprobs(z, tokens, 0.7).sum(), logits
    )
    close(grad, slope, rtol=1e-5)
    entropy = jax.jit(lambda z: token_entropy(z, temperature=0.7).sum())
    grad = jax.grad(entropy)(small)
    slope = reference.numerical_gradient(
        lambda z: reference.token_entropy(z, 0.7).sum(), logits
    )
    close(grad, slope, rtol=1e-5)


def test_a_common_offset_loses_no_digits() -> None:
    # 4096 + a multiple of 1/8 is exact in float32.
    logits = np.round(8 * np.random.default_rng(1).normal(size=(1, 4, 7))) / 8
    tokens = np.array([[0, 3, 6, 2]])
    far = (logits + 4096).astype(np.float32)
    close(token_logprobs(far, tokens), reference.token_logprobs(logits, tokens))
    close(token_entropy(far), reference.token_entropy(logits))


def test_forbidden_tokens_count_nothing() -> None:
    logits = np.array([[[0.0, -np.inf, 1.0]]], np.float32)
    close(token_entropy(logits), reference.token_entropy(np.array([[[0.0, 1.0]]])))
    slope = jax.jit(jax.grad(lambda z: token_entropy(z).sum()))
    grad = slope(logits)
    assert np.isfinite(grad).all()
    assert grad[0, 0, 1] == 0
    assert token_logprobs(logits, np.array([[1]])) == -np.inf
    # A nearly certain token: the others' probabilities underflow.
    certain = np.array([[[500.0, 0.0, -500.0]]], np.float32)
    assert token_entropy(certain) == 0
    assert np.isfinite(slope(certain)).all()


def test_bfloat16_logits_are_read_in_float32() -> None:
    logits = jnp.asarray(LOGITS, jnp.bfloat16)
    assert token_logprobs(logits, TOKENS).dtype == jnp.float32
    close(
        token_logprobs(logits, TOKENS),
        reference.token_logprobs(np.asarray(logits, np.float64), TOKENS),
    )
    close(token_entropy(logits), token_entropy(logits.astype(jnp.float32)))


@pytest.mark.parametrize("outside", [-1, -100, 3, 2**31 - 1])
def test_a_token_that_is_none_of_the_vocabulary_is_ignored(outside: int) -> None:
    tokens = np.array([[1, outside]])
    found = token_logprobs(LOGITS, tokens)
    close(found[0, 0], EXAMPLES["tok.lp"][0])
    assert found[0, 1] == 0
    slope = jax.jit(jax.grad(lambda z: lib.token_logprobs(z, tokens).sum()))(LOGITS)
    assert (slope[0, 0] != 0).all()
    assert (slope[0, 1] == 0).all()


def test_a_banned_token_hides_nothing() -> None:
    banned = LOGITS.copy()
    banned[..., 0] = -np.inf
    few = LOGITS[..., 1:]
    close(token_logprobs(banned, TOKENS), token_logprobs(few, TOKENS - 1))
    close(token_entropy(banned), token_entropy(few))
    for function in (lambda z: lib.token_logprobs(z, TOKENS), lib.token_entropy):
        slope = jax.grad(lambda z, f=function: f(z).sum())(banned)
        assert np.isfinite(slope).all()
        assert (slope[..., 0] == 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: lib.token_logprobs(LOGITS, TOKENS[:, :1]), r"shape \[1, 2\]"),
        (lambda: lib.token_logprobs(LOGITS, TOKENS * 1.0), "tokens must be an integer"),
        (lambda: lib.token_logprobs(TOKENS, TOKENS[0]), "logits must be a floating"),
        (
            lambda: lib.token_logprobs(LOGITS, TOKENS, temperature=0.0),
            "temperature must",
        ),
        (lambda: lib.token_entropy(LOGITS, temperature=-1.0), "> 0, got -1.0"),
        (lambda: lib.token_entropy(np.float32(1)), "logits must have shape"),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
