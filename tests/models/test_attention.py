from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models.attention import (
    MASKED,
    NO_WINDOW,
    Columns,
    apply_rope,
    cached_attention,
    plain_attention,
    rope_table,
    scores_of,
)
from jaxrl_reason.models.chunked_attention import _blocks, _needed, chunked_attention
from jaxrl_reason.models.decode_step import PromptColumns, ResponseColumns
from jaxrl_reason.models.rope_scaling import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    YarnScaling,
)
from tests.models import numpy_transformer as reference

Attention = Callable[..., jax.Array]


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def columns_of(
    segments: object, positions: object = None, branches: object = 0
) -> Columns:
    """Columns of rows [B, S]; positions are the places unless they are given."""
    segments = np.array(segments, np.int32)
    places = np.broadcast_to(
        np.arange(segments.shape[1], dtype=np.int32), segments.shape
    )
    positions = places if positions is None else np.array(positions, np.int32)
    branches = np.broadcast_to(np.array(branches, np.int32), segments.shape)
    return Columns(*map(jnp.asarray, (places, segments, positions, branches)))


def seen(columns: Columns, window: int = NO_WINDOW) -> list[list[int]]:
    """For each query of the first row, the keys that it sees."""
    ones = jnp.ones((1, 1, columns.places.shape[1], 1))
    scores = scores_of(ones, ones, columns, columns, jnp.int32(window))[0, 0]
    return [list(np.flatnonzero(row > MASKED)) for row in np.asarray(scores)]


def test_mask_is_causal_inside_segments_and_empty_at_padding() -> None:
    assert seen(columns_of([[1, 1, 2, 0]])) == [[0], [0, 1], [2], []]


def test_branches_see_their_text_and_themselves() -> None:
    columns = columns_of([[1, 1, 1, 1, 1, 2]], branches=[[0, 0, 1, 2, 2, 0]])
    assert seen(columns) == [[0], [0, 1], [0, 1, 2], [0, 1, 3], [0, 1, 3, 4], [5]]


def test_a_window_counts_positions_not_columns() -> None:
    # The second sequence starts at column 3, with a gap of padding before it.
    columns = columns_of([[1, 1, 0, 2, 2, 2]], [[0, 1, 0, 0, 1, 2]])
    assert seen(columns, 2) == [[0], [0, 1], [], [3], [3, 4], [4, 5]]
    assert seen(columns, 1) == [[0], [1], [], [3], [4], [5]]


@pytest.mark.fast
@pytest.mark.parametrize("attention", [plain_attention, chunked_attention])
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_grouped_attention_is_multi_head_attention_with_repeated_heads(
    attention: Attention, kv_heads: int
) -> None:
    q = normal(0, 2, 5, 6, 4)
    k, v = normal(1, 2, 5, kv_heads, 4), normal(2, 2, 5, kv_heads, 4)
    columns = columns_of(np.ones((2, 5)))
    got = attention(q, k, v, columns, columns, jnp.int32(NO_WINDOW))
    for b in range(2):
        wide = [np.repeat(np.asarray(x[b]), 6 // kv_heads, axis=1) for x in (k, v)]
        wanted = reference.attention(np.asarray(q[b]), *wide)
        np.testing.assert_allclose(got[b], wanted, atol=1e-6)


@pytest.mark.parametrize("attention", [plain_attention, chunked_attention])
def test_rows_without_keys_are_finite_in_value_and_gradient(
    attention: Attention,
) -> None:
    q, k, v = (normal(i, 1, 4, 2, 4) for i in range(3))
    columns = columns_of([[0, 0, 1, 1]])
    run = lambda q, k, v: attention(  # noqa: E731
        q, k, v, columns, columns, jnp.int32(NO_WINDOW)
    )
    value, gradients = jax.value_and_grad(
        lambda *x: jnp.sum(run(*x) ** 2), argnums=(0, 1, 2)
    )(q, 100 * k, v)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def packed(rng: np.random.Generator, size: int, *, branches: bool) -> list[np.ndarray]:
    """One row of sequences of 3 to 13 tokens; with branches, two behind each text."""
    row = np.zeros((3, size), np.int32)  # segments, positions, branches
    start = 0
    for segment in range(1, size):
        length = min(int(rng.integers(3, 14)), size - 4 - start)
        if length < 1:
            break
        own = row[:, start : start + length]
        own[0], own[1] = segment, np.arange(length)
        if branches:
            trunk, middle = (length + 1) // 2, (3 * length + 1) // 4
            own[1, middle:] -= middle - trunk
            own[2, trunk:middle], own[2, middle:] = 1, 2
        start += length
    return list(row)


@pytest.mark.parametrize("window", [NO_WINDOW, 3])
@pytest.mark.parametrize("branches", [False, True])
def test_blocks_give_what_whole_rows_give(branches: bool, window: int) -> None:
    rng = np.random.default_rng(0)
    rows = [packed(rng, 45, branches=branches) for _ in range(2)]
    columns = columns_of(*map(np.stack, zip(*rows, strict=True)))
    q, k, v = normal(0, 2, 45, 6, 8), normal(1, 2, 45, 2, 8), normal(2, 2, 45, 2, 8)
    real = (columns.segments > 0)[..., None, None]

    def value_and_gradients(attention: Attention) -> Any:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            x = attention(q, k, v, columns, columns, jnp.int32(window))
            return jnp.sum(jnp.sin(jnp.where(real, x, 0.0)))

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)

    wanted = value_and_gradients(plain_attention)
    for block in (7, 16, 64):
        got = value_and_gradients(partial(chunked_attention, block=block))
        # Whichever blocks are skipped.
        for x, y in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_only_blocks_that_are_seen_are_computed() -> None:
    segments = np.repeat([[1, 2, 3, 0]], 8, axis=1).reshape(1, 32)
    _, (blocks, _) = _blocks((normal(0, 1, 32, 1, 2),), (columns_of(segments),) * 2, 4)
    order, number = _needed(blocks, blocks, jnp.int32(NO_WINDOW))
    needed = [list(map(int, row[:n])) for row, n in zip(order, number, strict=True)]
    assert needed == [[0], [0, 1], [2], [2, 3], [4], [4, 5], [], []]
    _, number = _needed(blocks, blocks, jnp.int32(1))
    assert list(number) == [1, 1, 1, 1, 1, 1, 0, 0]


def test_memory_grows_as_the_row_does() -> None:
    def held(size: int) -> int:
        q = jax.ShapeDtypeStruct((1, size, 2, 8), jnp.float32)
        columns = Columns(*[jax.ShapeDtypeStruct((1, size), jnp.int32)] * 4)

        def total(q: jax.Array, columns: Columns) -> jax.Array:
            x = chunked_attention(q, q, q, columns, columns, jnp.int32(NO_WINDOW))
            return jnp.sum(x)

        compiled = jax.jit(jax.grad(total)).lower(q, columns).compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    assert held(4096) < 4.5 * held(1024)


def test_rope_turns_the_half_split_pairs() -> None:
    x, positions = normal(0, 2, 3, 2, 6), jnp.array([[0, 1, 2], [7, 900, 31]])
    got = apply_rope(x, rope_table(positions, 6, 500.0))
    for b, t, n in np.ndindex(2, 3, 2):
        wanted = reference.rope(np.asarray(x[b, t, n]), int(positions[b, t]), 500.0)
        np.testing.assert_allclose(got[b, t, n], wanted, atol=2e-5)


def test_rope_scores_depend_on_distance_only() -> None:
    q, k = normal(0, 1, 1, 1, 8), normal(1, 1, 1, 1, 8)

    def score(at: int, distance: int) -> float:
        tables = (rope_table(jnp.array([[p]]), 8, 10000.0) for p in (at + distance, at))
        turned = (apply_rope(x, t) for x, t in zip((q, k), tables, strict=True))
        return float(jnp.vdot(*turned))

    assert score(0, 5) == pytest.approx(score(40, 5), abs=1e-5)
    assert score(0, 5) != pytest.approx(score(0, 6), abs=1e-3)


SCALINGS = [
    LinearScaling(4.0),
    Llama3Scaling(8.0, 1.0, 4.0, 64),
    YarnScaling(4.0, 64),
    YarnScaling(4.0, 64, 4.0, 0.5, 1.25, truncate=False),
]


def stretched(scaling: RopeScaling, frequency: float, pair: int, half: int) -> float:
    """One frequency after scaling, in plain Python."""
    if isinstance(scaling, LinearScaling):
        return frequency / scaling.factor
    if isinstance(scaling, Llama3Scaling):
        wave = 2 * np.pi / frequency
        if wave < scaling.original_max_position_embeddings / scaling.high_freq_factor:
            return frequency
        if wave > scaling.original_max_position_embeddings / scaling.low_freq_factor:
            return frequency / scaling.factor
        turns = scaling.original_max_position_embeddings / wave
        keep = (turns - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        return (1 - keep) * frequency / scaling.factor + keep * frequency
    ends = [
        half
        * np.log(scaling.original_max_position_embeddings / turns / 2 / np.pi)
        / np.log(1e4)
        for turns in (scaling.beta_fast, scaling.beta_slow)
    ]
    if scaling.truncate:
        ends = [np.floor(ends[0]), np.ceil(ends[1])]
    low, high = max(ends[0], 0), min(ends[1], 2 * half - 1)
    slowed = min(max((pair - low) / (high - low), 0), 1)
    return slowed * frequency / scaling.factor + (1 - slowed) * frequency


@pytest.mark.fast
@pytest.mark.parametrize("scaling", SCALINGS)
def test_scaled_positions_are_those_of_the_formulas(scaling: RopeScaling) -> None:
    half, position = 16, 37
    cos, sin = rope_table(jnp.array([position]), 2 * half, 1e4, scaling)
    plain = [1e4 ** (-i / half) for i in range(half)]
    frequencies = [stretched(scaling, f, i, half) for i, f in enumerate(plain)]
    assert any(0.2 < got / f < 0.99 for got, f in zip(frequencies, plain, strict=True))
    angles = position * np.array(frequencies)
    factor = scaling.attention_factor
    np.testing.assert_allclose(cos[0], factor * np.cos(angles), atol=2e-5)
    np.testing.assert_allclose(sin[0], factor * np.sin(angles), atol=2e-5)


def test_yarn_of_no_stretching_is_plain() -> None:
    position = jnp.array([5])
    plain = rope_table(position, 8, 1e4)
    for scaling in (YarnScaling(1.0, 64), LinearScaling(1.0)):
        for got, wanted in zip(
            rope_table(position, 8, 1e4, scaling), plain, strict=True
        ):
            np.testing.assert_allclose(got, wanted, rtol=1e-6)


@pytest.mark.parametrize("group", [1, 3])
def test_one_softmax_over_shared_prompt_and_own_response(group: int) -> None:
    prompts, samples, kv_heads, width, size, head_dim = 2, 3, 2, 4, 5, 6
    rows, written = prompts * samples, 3
    q = normal(0, rows, kv_heads, group, head_dim)
    shared = [normal(i, prompts, kv_heads, width, head_dim) for i in (1, 2)]
    own = [normal(i, rows, kv_heads, size, head_dim) for i in (3, 4)]
    lengths = [4, 2]
    shared_mask = (
        jnp.arange(width)[None] < jnp.repeat(jnp.array(lengths), samples)[:, None]
    )
    got = cached_attention(
        q * head_dim**0.5,
        [PromptColumns(*shared), ResponseColumns(*own)],
        [shared_mask, jnp.arange(size)[None] < written],
    )
    for b, k, r in np.ndindex(rows, kv_heads, group):
        p = b // samples
        keys, values = (
            np.concatenate([s[p, k, : lengths[p]], o[b, k, :written]])
            for s, o in zip(shared, own, strict=True)
        )
        weights = np.exp(keys @ np.asarray(q[b, k, r]))
        wanted = weights / weights.sum() @ values
        np.testing.assert_allclose(got[b, k, r], wanted, atol=1e-5)
