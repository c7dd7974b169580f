"""Log-probs and entropies from hidden states: right, and never with all logits."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import chunked_logprobs, token_entropy, token_logprobs
from jaxrl_reason.losses._blocks import map_blocks
from tests.losses import reference
from tests.losses.jaxprs import equations, primitives
from tests.losses.worked import close

B, T, D, V = 3, 5, 4, 11


def inputs(batch: int = B, tokens: int = T) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(batch + tokens)
    hidden = rng.normal(size=(batch, tokens, D)).astype(np.float32)
    unembed = rng.normal(size=(D, V)).astype(np.float32)
    return hidden, unembed, rng.integers(0, V, (batch, tokens))


# How hard the test functions pull at every log-prob and every entropy.
PULLS = np.random.default_rng(7).normal(size=(2, B, T)).astype(np.float32)


def full(
    hidden: Any, unembed: Any, tokens: Any, *, temperature: Any = 1.0, **_: Any
) -> tuple[jax.Array, jax.Array]:
    """The same with all logits at once."""
    logits = jnp.asarray(hidden) @ unembed
    return (
        token_logprobs(logits, tokens, temperature=temperature),
        token_entropy(logits, temperature=temperature),
    )


def exact(hidden: Any, unembed: Any, tokens: Any, temperature: float = 1.0) -> Any:
    """The same in NumPy float64."""
    logits = np.asarray(hidden, np.float64) @ np.asarray(unembed, np.float64)
    return (
        reference.token_logprobs(logits, tokens, temperature),
        reference.token_entropy(logits, temperature),
    )


@partial(jax.jit, static_argnames=("function", "chunk_size"))
def pulled(
    function: Callable,
    hidden: Any,
    unembed: Any,
    tokens: Any,
    temperature: Any = 1.0,
    chunk_size: int = 1024,
) -> tuple[Any, Any]:
    """Log-probs with entropies, and the gradients of a scalar of both."""

    def scalar(hidden: Any, unembed: Any) -> Any:
        found = function(
            hidden, unembed, tokens, temperature=temperature, chunk_size=chunk_size
        )
        return (PULLS[0] * found[0] + PULLS[1] * found[1]).sum(), found

    grads, found = jax.grad(scalar, (0, 1), has_aux=True)(hidden, unembed)
    return found, grads


@pytest.mark.parametrize("chunk_size", [1, 2, 4, 7, 14, 15, 1000])
def test_chunks_of_any_size_give_the_same(chunk_size: int) -> None:
    hidden, unembed, tokens = inputs()
    for temperature in (1.0, 0.6):
        found, grads = pulled(
            chunked_logprobs, hidden, unembed, tokens, temperature, chunk_size
        )
        for x, y in zip(
            found, exact(hidden, unembed, tokens, temperature), strict=True
        ):
            close(x, y, rtol=1e-5)
        _, slopes = pulled(full, hidden, unembed, tokens, temperature)
        for grad, slope in zip(grads, slopes, strict=True):
            close(grad, slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [4, 1000])
def test_gradients_are_numerical_ones(chunk_size: int) -> None:
    hidden, unembed, tokens = inputs()

    def scalar(hidden: np.ndarray, unembed: np.ndarray) -> float:
        return float((PULLS * np.stack(exact(hidden, unembed, tokens))).sum())

    _, grads = pulled(chunked_logprobs, hidden, unembed, tokens, chunk_size=chunk_size)
    slope = reference.numerical_gradient(lambda h: scalar(h, unembed), hidden)
    close(grads[0], slope, rtol=1e-5, atol=1e-5)
    slope = reference.numerical_gradient(lambda w: scalar(hidden, w), unembed)
    close(grads[1], slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 5)])
def test_odd_shapes(shape: tuple[int, int]) -> None:
    hidden, unembed, tokens = inputs(*shape)
    run = jax.jit(partial(chunked_logprobs, chunk_size=4))
    found = run(hidden, unembed, tokens)
    for x, y in zip(found, exact(hidden, unembed, tokens), strict=True):
        assert x.shape == shape
        close(x, y, rtol=1e-5)


@pytest.mark.parametrize("dtypes", [("bfloat16", "bfloat16"), ("bfloat16", "float32")])
@pytest.mark.parametrize("chunk_size", [4, 1000])
def test_bfloat16(dtypes: tuple[str, str], chunk_size: int) -> None:
    hidden, unembed, tokens = inputs()
    coarse = jnp.asarray(hidden, dtypes[0]), jnp.asarray(unembed, dtypes[1])
    same = [np.asarray(x, np.float32) for x in coarse]
    run = partial(pulled, chunked_logprobs, chunk_size=chunk_size)
    found, grads = run(*coarse, tokens)
    expected, slopes = run(*same, tokens)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == jnp.float32
        close(x, y, rtol=1e-5)
    for grad, slope, x in zip(grads, slopes, coarse, strict=True):
        assert grad.dtype == x.dtype
        close(grad, slope, rtol=1e-2, atol=1e-2)


def test_vmap_and_no_jit() -> None:
    hidden, unembed, tokens = inputs()
    found, grads = pulled(chunked_logprobs, hidden, unembed, tokens, chunk_size=4)
    plain = chunked_logprobs(hidden, unembed, tokens, chunk_size=4)
    run = partial(pulled, chunked_logprobs, chunk_size=4)
    twice = jax.vmap(run, in_axes=(0, None, None))(
        np.stack([hidden, hidden]), unembed, tokens
    )
    for x, y, z in zip(plain, found, twice[0], strict=True):
        close(x, y, rtol=1e-5)
        close(z, np.stack([y, y]), rtol=1e-5)
    for x, y in zip(twice[1], grads, strict=True):
        close(x, np.stack([y, y]), rtol=1e-5, atol=1e-5)


def test_large_logits_lose_no_digits() -> None:
    hidden, unembed, tokens = inputs()
    close(
        chunked_logprobs(40 * hidden, unembed, tokens, chunk_size=4)[1],
        reference.token_entropy(40 * hidden.astype(np.float64) @ unembed),
        rtol=1e-5,
        atol=2e-5,
    )


def test_one_block_needs_no_loop_and_no_second_product() -> None:
    run = partial(pulled, chunked_logprobs, chunk_size=B * T)
    found = primitives(run, *inputs())
    assert "scan" not in found
    assert found.count("dot_general") == 3


def test_two_blocks_make_the_product_twice() -> None:
    run = partial(pulled, chunked_logprobs, chunk_size=B * 3)
    found = primitives(run, *inputs())
    assert found.count("scan") == 2
    assert found.count("dot_general") == 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_eighth_of_the_memory_at_the_size_of_a_real_head(dtype: str) -> None:
    # Compiled only: the plain way would allocate 20 GB.
    def plain(hidden: Any, unembed: Any, tokens: Any) -> tuple[jax.Array, jax.Array]:
        logits = jnp.matmul(hidden, unembed, preferred_element_type=jnp.float32)
        log_p = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
        return chosen, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    def peak(function: Callable) -> int:
        def scalar(hidden: Any, unembed: Any, tokens: Any, pulls: Any) -> Any:
            found = function(hidden, unembed, tokens)
            return jnp.sum(pulls * jnp.stack(found)), found

        step = jax.jit(jax.grad(scalar, (0, 1), has_aux=True))
        memory = step.lower(*arguments).compile().memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes

    arguments = (
        jax.ShapeDtypeStruct((4, 2048, 896), dtype),
        jax.ShapeDtypeStruct((896, 151_936), dtype),
        jax.ShapeDtypeStruct((4, 2048), jnp.int32),
        jax.ShapeDtypeStruct((2, 4, 2048), jnp.float32),
    )
    assert peak(chunked_logprobs) <= peak(plain) / 8


def test_the_slope_of_a_narrow_head_is_never_held_whole_in_float32() -> None:
    def slope(hidden: Any, unembed: Any, tokens: Any) -> Any:
        return jax.grad(lambda u: chunked_logprobs(hidden, u, tokens)[0].sum())(unembed)

    def wide(dtype: str) -> list[tuple[int, ...]]:
        program = jax.make_jaxpr(slope)(
            jax.ShapeDtypeStruct((4, 2048, 896), dtype),
            jax.ShapeDtypeStruct((896, 151_936), dtype),
            jax.ShapeDtypeStruct((4, 2048), jnp.int32),
        )
        made = [out.aval for e in equations(program.jaxpr) for out in e.outvars]
        shapes = [x.shape for x in made if x.dtype == jnp.float32 and 896 in x.shape]
        return [x for x in shapes if math.prod(x) >= 896 * 2**15]

    assert wide("bfloat16") == []
    assert (896, 151_936) in wide("float32")


@pytest.mark.parametrize("blocks", [4, 1024])
def test_more_blocks_cost_a_bfloat16_head_no_digits(blocks: int) -> None:
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(1 + rng.normal(size=(1, 16 * blocks, 8)) / 4, jnp.bfloat16)
    unembed = jnp.asarray(rng.normal(size=(8, 16)) / 4, jnp.bfloat16)
    tokens = rng.integers(0, 3, (1, 16 * blocks))  # the others' slopes only add up

    @partial(jax.jit, static_argnums=2)
    def slope(hidden: Any, unembed: Any, chunk_size: int) -> Any:
        def total(unembed: Any) -> Any:
            return chunked_logprobs(hidden, unembed, tokens, chunk_size=chunk_size)[0]

        return jax.grad(lambda u: -total(u).sum())(unembed)

    found = np.asarray(slope(hidden, unembed, 16), np.float64)
    wide = [x.astype(jnp.float32) for x in (hidden, unembed)]
    # One rounding to 8 bits; summed in bfloat16, 0.7 is lost over 1024 blocks.
    close(found, slope(*wide, 16 * blocks), rtol=2**-8)


@pytest.mark.parametrize("number", [32, 33, 67, 1000, 10_923])
def test_many_blocks_are_mapped_in_groups(number: int) -> None:
    blocks = {"x": jnp.arange(2.0 * number).reshape(number, 2), "y": jnp.ones(number)}
    run = partial(map_blocks, lambda b: b["x"] + b["y"])
    np.testing.assert_array_equal(run(blocks), blocks["x"] + 1)
    sizes = [
        x.aval.shape[0]
        for e in equations(jax.make_jaxpr(run)(blocks).jaxpr)
        for x in e.outvars
        if e.primitive.name == "scan"
    ]
    assert number <= 32 or max(sizes) < 2.1 * number**0.5


@pytest.mark.parametrize("vocab_size", [None, V - 2])
def test_parts_of_the_vocabulary_change_nothing(
    monkeypatch: pytest.MonkeyPatch, vocab_size: int | None
) -> None:
    # 3 parts of 4 columns, the last of which has one of padding.
    monkeypatch.setattr("jaxrl_reason.losses.logprobs._COLUMNS", 4)
    hidden, unembed, tokens = inputs()
    tokens[0, 0], tokens[1, 1] = -100, V - 1
    narrow = jnp.asarray(unembed, jnp.bfloat16)
    same = np.asarray(narrow, np.float32)[:, :vocab_size]
    run = partial(chunked_logprobs, vocab_size=vocab_size)
    found, grads = pulled(run, hidden, narrow, tokens, 0.7, 4)
    expected, slopes = pulled(full, hidden, same, tokens, 0.7)
    for x, y in zip((*found, grads[0]), (*expected, slopes[0]), strict=True):
        close(x, y, rtol=1e-5, atol=1e-5)
    head = np.asarray(grads[1], np.float32)
    close(head[:, :vocab_size], slopes[1], rtol=2**-8)
    np.testing.assert_array_equal(head[:, same.shape[1] :], 0.0)

    def along(function: Callable, head: Any) -> Any:
        return jax.jvp(
            lambda h, tau: function(h, head, tokens, temperature=tau, chunk_size=4),
            (hidden, 0.7),
            (hidden[::-1], 0.3),
        )

    for x, y in zip(along(run, narrow), along(full, same), strict=True):
        for a, b in zip(x, y, strict=True):
            close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [4, 1000])
@pytest.mark.parametrize("outside", [-1, -100, V, V + 7, 2**31 - 1])
def test_a_token_that_is_none_of_the_vocabulary_is_ignored(
    outside: int, chunk_size: int
) -> None:
    hidden, unembed, tokens = inputs()
    tokens[0, :2] = outside
    found, grads = pulled(chunked_logprobs, hidden, unembed, tokens, 0.7, chunk_size)
    np.testing.assert_array_equal(found[0][0, :2], 0.0)
    expected, slopes = pulled(full, hidden, unembed, tokens, 0.7)
    for x, y in zip((*found, *grads), (*expected, *slopes), strict=True):
        close(x, y, rtol=1e-5, atol=1e-6)
    # Without the entropy nothing at all flows back from an ignored token.
    alone = jax.grad(
        lambda h: chunked_logprobs(h, unembed, tokens, chunk_size=chunk_size)[0].sum()
    )(hidden)
    np.testing.assert_array_equal(alone[0, :2], 0.0)
    assert (np.asarray(alone[1:]) != 0).all()


@pytest.mark.parametrize("chunk_size", [4, 1000])
def test_a_banned_token_hides_nothing(chunk_size: int) -> None:
    hidden, unembed, tokens = inputs()
    # Its column weighs a feature that is 1 everywhere: that logit is -inf, and so is
    # the slope of that feature undefined; all else is as without the token.
    hidden[:, :, 0], unembed[0, 3] = 1.0, -np.inf
    tokens[tokens == 3] = 4
    found, grads = pulled(chunked_logprobs, hidden, unembed, tokens, 0.7, chunk_size)
    keep = np.arange(V) != 3
    fewer = np.where(tokens > 3, tokens - 1, tokens)
    expected, slopes = pulled(chunked_logprobs, hidden, unembed[:, keep], fewer, 0.7)
    for x, y in zip(found, expected, strict=True):
        close(x, y, rtol=1e-5)
    close(grads[0][:, :, 1:], slopes[0][:, :, 1:], rtol=1e-5, atol=1e-6)
    close(grads[1][:, keep], slopes[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(grads[1][:, 3], 0.0)
    itself = np.where(np.arange(T) == 0, 3, tokens)
    logprobs, _ = chunked_logprobs(hidden, unembed, itself, chunk_size=chunk_size)
    np.testing.assert_array_equal(logprobs[:, 0], -np.inf)


@pytest.mark.parametrize("chunk_size", [4, 1000])
def test_forward_mode_and_the_slope_in_temperature(chunk_size: int) -> None:
    hidden, unembed, tokens = inputs()
    rng = np.random.default_rng(3)
    moves = tuple(
        rng.normal(size=x.shape).astype(np.float32) for x in (hidden, unembed)
    )

    def along(function: Callable) -> tuple[Any, Any]:
        return jax.jvp(
            lambda h, w, tau: function(
                h, w, tokens, temperature=tau, chunk_size=chunk_size
            ),
            (hidden, unembed, 0.7),
            (*moves, 0.3),
        )

    for found, expected in zip(along(chunked_logprobs), along(full), strict=True):
        for x, y in zip(found, expected, strict=True):
            close(x, y, rtol=1e-5, atol=1e-5)

    def scalar(tau: float) -> float:
        return float((PULLS * np.stack(exact(hidden, unembed, tokens, tau))).sum())

    def pulled_by(tau: Any) -> Any:
        found = chunked_logprobs(
            hidden, unembed, tokens, temperature=tau, chunk_size=chunk_size
        )
        return (PULLS * jnp.stack(found)).sum()

    slope = (scalar(0.7 + 1e-5) - scalar(0.7 - 1e-5)) / 2e-5
    close(jax.grad(pulled_by)(0.7), slope, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": np.zeros((B, T + 1), int)}, r"\[B, T, D\], \[D, V\] and \[B, T\]"),
        ({"unembed": np.ones((D + 1, V), np.float32)}, r"got \[3, 5, 4\], \[5, 11\]"),
        ({"hidden": np.ones((B, D), np.float32)}, "hidden must have 3 axes"),
        ({"unembed": np.ones(D, np.float32)}, "unembed must have 2 axes"),
        ({"hidden": np.ones((B, T, D), int)}, "hidden must be a floating array"),
        ({"tokens": np.ones((B, T))}, "tokens must be an integer array"),
        ({"temperature": 0.0}, "temperature must be finite and > 0, got 0.0"),
        ({"temperature": np.nan}, "temperature must be finite and > 0, got nan"),
        ({"chunk_size": 0}, "chunk_size must be a static integer >= 1, got 0"),
        ({"chunk_size": 2.5}, "chunk_size must be a static integer >= 1, got 2.5"),
    ],
)
def test_refusals(change: dict[str, Any], message: str) -> None:
    hidden, unembed, tokens = inputs()
    given = {"hidden": hidden, "unembed": unembed, "tokens": tokens, **change}
    with pytest.raises(ValueError, match=message):
        chunked_logprobs(**given)


@pytest.mark.parametrize("chunk_size", [4, 1000])
def test_columns_of_padding_take_no_part(chunk_size: int) -> None:
    hidden, unembed, tokens = inputs()
    padded = np.pad(unembed, ((0, 0), (0, 3)), constant_values=2.0)
    run = partial(chunked_logprobs, vocab_size=V)
    found, grads = pulled(run, hidden, padded, tokens, 0.6, chunk_size)
    expected, slopes = pulled(
        chunked_logprobs, hidden, unembed, tokens, 0.6, chunk_size
    )
    for x, y in zip(found, expected, strict=True):
        close(x, y, rtol=1e-6)
    close(grads[0], slopes[0], rtol=1e-5, atol=1e-6)
    close(grads[1][:, :V], slopes[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(grads[1][:, V:], 0.0)
    assert (run(hidden, padded, np.full_like(tokens, V))[0] == 0).all()


@pytest.mark.parametrize("vocab_size", [0, V + 1])
def test_a_vocabulary_that_is_not_in_the_head(vocab_size: int) -> None:
    with pytest.raises(ValueError, match=f"from 1 to {V}, got {vocab_size}"):
        chunked_logprobs(*inputs(), vocab_size=vocab_size)
