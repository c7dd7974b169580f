from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models.attention import (
    apply_rope,
    attention_mask,
    cached_attention,
    layer_masks,
    rope_table,
    self_attention,
)
from jaxrl_reason.models.decode_step import PromptColumns, ResponseColumns
from jaxrl_reason.models.rope_scaling import (
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    YarnScaling,
)
from tests.models import numpy_transformer as reference


def normal(seed: int, *shape: int) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def test_mask_is_causal_inside_segments_and_empty_at_padding() -> None:
    mask = attention_mask(jnp.array([[1, 1, 2, 0]]))[0]
    wanted = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(mask, np.array(wanted, bool))


def test_a_window_counts_positions_not_columns() -> None:
    # The second sequence starts at column 3, with a gap of padding before it.
    segments, positions = (
        jnp.array([[1, 1, 0, 2, 2, 2]]),
        jnp.array([[0, 1, 0, 0, 1, 2]]),
    )
    ages = positions[:, :, None] - positions[:, None, :]
    causal = attention_mask(segments)
    two, one = (
        layer_masks(replace(reference.TINY, sliding_window=window), causal, ages)[0]
        for window in (2, 1)
    )
    seen = [[0], [0, 1], [], [3], [3, 4], [4, 5]]
    assert [list(np.flatnonzero(row)) for row in two[0][0]] == seen
    assert not one[0][0, 5, 4]


@pytest.mark.fast
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_grouped_attention_is_multi_head_attention_with_repeated_heads(
    kv_heads: int,
) -> None:
    q = normal(0, 2, 5, 6, 4)
    k, v = normal(1, 2, 5, kv_heads, 4), normal(2, 2, 5, kv_heads, 4)
    got = self_attention(q, k, v, attention_mask(jnp.ones((2, 5), int)))
    for b in range(2):
        wide = [np.repeat(np.asarray(x[b]), 6 // kv_heads, axis=1) for x in (k, v)]
        wanted = reference.attention(np.asarray(q[b]), *wide)
        np.testing.assert_allclose(got[b], wanted, atol=1e-6)


def test_rows_without_keys_are_finite_in_value_and_gradient() -> None:
    q, k, v = (normal(i, 1, 4, 2, 4) for i in range(3))
    mask = attention_mask(jnp.array([[0, 0, 1, 1]]))
    value, gradients = jax.value_and_grad(
        lambda q, k, v: jnp.sum(self_attention(q, k, v, mask) ** 2), argnums=(0, 1, 2)
    )(q, 100 * k, v)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


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
