"""Divergences of a student's and a teacher's distributions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import chunked_jsd, generalized_jsd, top_k_jsd
from tests.losses import reference
from tests.losses.jaxprs import largest_array
from tests.losses.worked import close

B, T, D, E, V = 3, 5, 4, 6, 11
BETAS = (0.0, 0.1, 0.5, 0.9, 1.0)
any_beta = pytest.mark.parametrize("beta", BETAS)


def softmax(z: np.ndarray) -> np.ndarray:
    return np.exp(reference.log_softmax(z))


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """sum p log(p / q); tokens of probability 0 count 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (np.log(p) - np.log(q)), 0.0)
    return terms.sum(axis=-1)


def jsd(p: np.ndarray, q: np.ndarray, beta: float) -> np.ndarray:
    """Of probabilities: teacher p, student q."""
    if beta in (0, 1):
        return kl(p, q) if beta == 0 else kl(q, p)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def logits(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(0, 2, (B, T, V)).astype(np.float32) for _ in range(2))


def states(dtype: Any = jnp.float32) -> list[jax.Array]:
    rng = np.random.default_rng(1)
    shapes = (B, T, D), (D, V), (B, T, E), (E, V)
    return [jnp.asarray(rng.normal(0, 1, shape), dtype) for shape in shapes]


def value_and_slopes(function: Callable, *args: Any) -> Any:
    """The weighted sum of the results, and the gradient in all arguments."""
    weights = jnp.arange(1.0, B * T + 1).reshape(B, T)
    every = tuple(range(len(args)))
    return jax.value_and_grad(lambda *a: jnp.sum(weights * function(*a)), every)(*args)


@any_beta
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_value_and_gradient_are_numpys(beta: float, temperature: float) -> None:
    student, teacher = logits()
    exact = teacher.astype(np.float64) / temperature

    def of(z: np.ndarray) -> np.ndarray:
        return jsd(softmax(exact), softmax(z / temperature), beta)

    run = partial(generalized_jsd, beta=beta, temperature=temperature)
    close(run(student, teacher), of(student.astype(np.float64)), rtol=1e-5, atol=1e-6)
    slope, to_teacher = jax.grad(lambda *z: run(*z).sum(), (0, 1))(student, teacher)
    expected = reference.numerical_gradient(
        lambda z: of(z).sum(), student.astype(np.float64)
    )
    close(slope, expected, rtol=1e-4, atol=1e-5)
    assert not np.any(to_teacher)


@any_beta
def test_close_distributions_keep_their_digits(beta: float) -> None:
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(8, 1000)).astype(np.float32)
    student = (teacher + 0.02 * rng.normal(size=teacher.shape)).astype(np.float32)
    exact = jsd(*(softmax(z.astype(np.float64)) for z in (teacher, student)), beta)
    # About 2e-4; as plain sums of p log(p / q), whose terms cancel, 1e-3 off.
    close(generalized_jsd(student, teacher, beta=beta), exact, rtol=1e-5)


@any_beta
def test_equal_distributions_have_none(beta: float) -> None:
    student, _ = logits()
    run = partial(generalized_jsd, beta=beta)
    shifted = student + 3.0  # the same distribution
    close(run(student, shifted), np.zeros((B, T)), atol=1e-6)
    slope = jax.grad(lambda z: run(z, shifted).sum())(student)
    close(slope, np.zeros_like(student), atol=1e-6)


def test_the_ends_are_the_limits_of_the_slope() -> None:
    """D_beta / beta -> KL(p || q) and D_beta / (1 - beta) -> KL(q || p)."""
    student, teacher = (0.5 * z for z in logits())
    forward, near = (generalized_jsd(student, teacher, beta=b) for b in (0.0, 1e-3))
    close(near / 1e-3, forward, rtol=2e-2)
    backward, near = (generalized_jsd(student, teacher, beta=b) for b in (1.0, 0.999))
    close(near / 1e-3, backward, rtol=2e-2)


@any_beta
def test_forbidden_tokens_count_nothing(beta: float) -> None:
    student, teacher = logits()
    both = student.copy(), teacher.copy()
    for z in both:
        z[..., 3] = -np.inf
    fewer = [np.delete(z, 3, axis=-1) for z in (student, teacher)]
    run = partial(generalized_jsd, beta=beta)
    close(run(*both), run(*fewer))
    slope = jax.grad(lambda z: run(z, both[1]).sum())(both[0])
    expected = jax.grad(lambda z: run(z, fewer[1]).sum())(fewer[0])
    close(np.delete(slope, 3, axis=-1), expected)
    assert not np.any(slope[..., 3])


def test_a_token_that_only_the_teacher_forbids() -> None:
    """It makes the reverse KL infinite; the forward KL and mixtures stay finite."""
    student, teacher = logits()
    teacher[..., 3] = -np.inf
    assert np.isinf(generalized_jsd(student, teacher, beta=1.0)).all()
    for beta in (0.0, 0.5):
        run = partial(generalized_jsd, beta=beta)
        close(
            run(student, teacher),
            jsd(softmax(teacher.astype(float)), softmax(student.astype(float)), beta),
            rtol=1e-5,
        )
        assert np.isfinite(
            jax.grad(lambda z, f=run: f(z, teacher).sum())(student)
        ).all()


@any_beta
def test_top_k_over_the_whole_vocabulary_is_the_divergence(beta: float) -> None:
    student, teacher = (jax.nn.log_softmax(z) for z in logits())
    expected = generalized_jsd(student, teacher, beta=beta)
    close(top_k_jsd(student, teacher, beta=beta, tail=False), expected, atol=1e-6)


@any_beta
@pytest.mark.parametrize("tail", [True, False])
def test_top_k_is_numpys(beta: float, tail: bool) -> None:
    student, teacher = (np.array(jax.nn.log_softmax(z)) for z in logits())
    k = np.argsort(-student, axis=-1)[..., :4]

    def of(log_q: np.ndarray) -> np.ndarray:
        p, q = np.exp(np.take_along_axis(teacher, k, -1).astype(float)), np.exp(log_q)
        if tail:
            p, q = (np.append(x, 1 - x.sum(-1, keepdims=True), axis=-1) for x in (p, q))
        p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
        return jsd(p, q, beta)

    chosen = [np.take_along_axis(z, k, axis=-1) for z in (student, teacher)]
    run = partial(top_k_jsd, beta=beta, tail=tail)
    exact = chosen[0].astype(float)
    close(run(*chosen), of(exact), rtol=1e-5, atol=1e-6)
    if tail:  # lumping tokens together loses divergence
        assert (
            of(exact) <= np.array(generalized_jsd(student, teacher, beta=beta)) + 1e-6
        ).all()
    slope = jax.grad(lambda z: run(z, chosen[1]).sum())(chosen[0])
    expected = reference.numerical_gradient(lambda z: of(z).sum(), exact)
    close(slope, expected, rtol=1e-4, atol=1e-5)


@any_beta
@pytest.mark.parametrize("chunk_size", [1, 4, 6, 100])
def test_chunks_change_nothing(beta: float, chunk_size: int) -> None:
    given = states()

    def plain(h: jax.Array, u: jax.Array, g: jax.Array, w: jax.Array) -> jax.Array:
        return generalized_jsd(h @ u, g @ w, beta=beta, temperature=0.7)

    chunked = partial(chunked_jsd, beta=beta, temperature=0.7, chunk_size=chunk_size)
    value, slopes = value_and_slopes(chunked, *given)
    expected, expected_slopes = value_and_slopes(plain, *given)
    close(value, expected, rtol=1e-5)
    for slope, other in zip(slopes, expected_slopes, strict=True):
        close(slope, other, rtol=1e-4, atol=1e-4)


def test_no_array_holds_the_logits_of_all_tokens() -> None:
    h, u, g, w = states()
    h, g = (jnp.tile(x, (1, 20, 1)) for x in (h, g))
    tokens, vocab = h.shape[0] * h.shape[1], u.shape[1]

    def loss(hidden: jax.Array, head: jax.Array) -> jax.Array:
        return chunked_jsd(hidden, head, g, w, chunk_size=12).sum()

    size = largest_array(jax.grad(loss, (0, 1)), h, u)
    assert size < tokens * vocab
    assert size <= 2 * tokens * max(D, E)


def test_bfloat16_states_are_computed_in_float32() -> None:
    given = states(jnp.bfloat16)
    exact = [x.astype(jnp.float32) for x in given]
    value, slopes = value_and_slopes(partial(chunked_jsd, chunk_size=4), *given)
    expected, _ = value_and_slopes(partial(chunked_jsd, chunk_size=4), *exact)
    assert value.dtype == jnp.float32
    close(value, expected, rtol=1e-5)
    assert {x.dtype for x in slopes} == {jnp.dtype(jnp.bfloat16)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": 1.5}, r"beta must be a number in \[0, 1\], got 1.5"),
        ({"temperature": 0.0}, "temperature must be finite and > 0, got 0"),
        ({"chunk_size": 0}, "chunk_size must be"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chunked_jsd(*states(), **settings)


def test_shapes_are_checked() -> None:
    student, teacher = logits()
    with pytest.raises(ValueError, match="the same shape"):
        generalized_jsd(student, teacher[..., :5])
    with pytest.raises(ValueError, match="the same shape"):
        top_k_jsd(student, teacher[:1])
    h, u, g, _ = states()
    with pytest.raises(ValueError, match=r"\[B, T, E\] and \[E, V\]"):
        chunked_jsd(h, u, g, u)
