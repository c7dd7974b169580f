from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import chunked_logprobs
from jaxrl_reason.models import Transformer, prefill, unembedding
from jaxrl_reason.models.layers import cast_slice
from tests.models import numpy_transformer as reference
from tests.models.numpy_transformer import (
    TINY,
    VARIANTS,
    build,
    compiled,
    hidden_of,
    tokens_of,
)


def logprobs_of(
    model: Transformer,
    params: Any,
    tokens: jax.Array,
    positions: jax.Array,
    segments: jax.Array,
) -> jax.Array:
    """[B, S]: log-prob of each token after the column before it."""
    hidden = compiled(model)({"params": params}, tokens, positions, segments)
    targets = jnp.roll(tokens, -1, axis=1)
    logprobs, _ = chunked_logprobs(hidden, unembedding(model, params), targets)
    return jnp.roll(logprobs, 1, axis=1)


def place(tokens: jax.Array, starts: list[int], width: int) -> list[jax.Array]:
    """Sequences [n, S] in one row at the given columns: tokens, positions, segments."""
    size = tokens.shape[1]
    row, positions, segments = (np.zeros((1, width), np.int32) for _ in range(3))
    for i, start in enumerate(starts):
        row[0, start : start + size] = tokens[i]
        positions[0, start : start + size] = np.arange(size)
        segments[0, start : start + size] = i + 1
    return [jnp.asarray(x) for x in (row, positions, segments)]


@pytest.mark.parametrize("name", VARIANTS)
def test_hidden_states_equal_the_numpy_reference(name: str) -> None:
    config = VARIANTS[name]
    model, params = build(config)
    tokens = tokens_of(2, 9)
    got = hidden_of(model, params, tokens)
    for row, wanted in zip(got, tokens, strict=True):
        np.testing.assert_allclose(
            row, reference.forward(config, params, wanted), atol=1e-5
        )


@pytest.mark.parametrize("name", ["grouped", "windows", "everything"])
def test_padding_side_and_packing_leave_log_probs_alone(name: str) -> None:
    model, params = build(VARIANTS[name])
    tokens = tokens_of(2, 6)
    alone = logprobs_of(model, params, *_alone(tokens))[:, 1:]
    layouts = {"right": [0], "left": [9], "middle": [4], "packed": [1, 8]}
    for layout, starts in layouts.items():
        got = logprobs_of(model, params, *place(tokens, starts, 15))
        for i, start in enumerate(starts):
            np.testing.assert_allclose(
                got[0, start + 1 : start + 6], alone[i], atol=1e-5, err_msg=layout
            )


def _alone(tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1])[None], tokens.shape)
    return tokens, positions, jnp.ones_like(tokens)


def test_prefill_gives_the_last_state_and_keys_of_each_prompt() -> None:
    model, params = build(VARIANTS["everything"])
    tokens, lengths = tokens_of(3, 7), [7, 1, 4]
    run = jax.jit(prefill, static_argnums=0)
    last, cache = run(model, params, tokens, jnp.array(lengths))
    for p, size in enumerate(lengths):
        short = tokens[p : p + 1, :size]
        np.testing.assert_allclose(
            last[p], hidden_of(model, params, short)[0, -1], atol=1e-5
        )
        _, alone = run(model, params, short, jnp.array([size]))
        for got, wanted in zip(cache.keys, alone.keys, strict=True):
            np.testing.assert_allclose(got[p, :, :size], wanted[0], atol=1e-5)


def test_prefill_refuses_prompts_wider_than_the_context() -> None:
    model, params = build(TINY)
    with pytest.raises(ValueError, match=r"context_length \(64\), got rows of 65"):
        prefill(model, params, tokens_of(1, 65), jnp.array([65]))


def test_gradients_flow_to_earlier_columns_of_the_same_segment_only() -> None:
    model, params = build(TINY)
    _, positions, segments = place(tokens_of(2, 4), [1, 5], 10)

    def hidden(embedded: jax.Array) -> jax.Array:
        # A vocabulary of one token a column: rows of the embedding are the inputs.
        wide = {**params, "embedding": embedded}
        columns = jnp.arange(10)[None]
        return model.apply({"params": wide}, columns, positions, segments)[0].sum(-1)

    jacobian = jax.jit(jax.jacrev(hidden))(params["embedding"])
    depends = np.abs(np.asarray(jacobian)).sum(-1)[:, :10] > 0
    ids = np.asarray(segments[0])
    allowed = (ids[:, None] == ids[None]) & np.tri(10, dtype=bool)
    real = ids != 0
    np.testing.assert_array_equal(depends[real], allowed[real])
    assert not depends[real][:, ~real].any()


def test_other_segments_and_padding_change_nothing() -> None:
    model, params = build(TINY)
    batch = place(tokens_of(2, 4), [1, 5], 10)
    before = compiled(model)({"params": params}, *batch)
    changed = batch[0].at[0, 5:].add(1).at[0, 0].add(1) % TINY.vocab_size
    after = compiled(model)({"params": params}, changed, *batch[1:])
    np.testing.assert_array_equal(before[0, 1:5], after[0, 1:5])
    assert np.isfinite(before).all()


@pytest.mark.parametrize("change", [{"remat": "full"}, {"remat": "dots"}])
def test_what_is_recomputed_changes_no_gradient(change: dict[str, Any]) -> None:
    model, params = build(TINY)
    other = Transformer(replace(TINY, **change))
    batch = _alone(tokens_of(2, 6))

    def gradient(model: Transformer) -> Any:
        return jax.jit(
            jax.grad(lambda p: jnp.sum(model.apply({"params": p}, *batch) ** 3))
        )(params)

    compare = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)  # noqa: E731
    jax.tree.map(compare, gradient(model), gradient(other))


def test_a_slice_is_cast_as_astype_casts_it() -> None:
    """To the bit, with halves between two numbers, denormals, infinities and nan."""
    upper = np.arange(2**16, dtype=np.uint32) << 16
    lower = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    wide = jnp.asarray((upper[:, None] + lower).view(np.float32))
    got, want = cast_slice(wide, jnp.bfloat16), wide.astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    got, want = (np.asarray(x)[~np.isnan(x)].view(np.uint16) for x in (got, want))
    np.testing.assert_array_equal(got, want)

    slopes = jnp.linspace(-3.0, 3.0, 99)
    gradient = jax.grad(lambda x, cast: jnp.sum(cast(x, jnp.bfloat16) * slopes))
    np.testing.assert_array_equal(
        gradient(slopes, cast_slice), gradient(slopes, jnp.asarray)
    )
    assert cast_slice(slopes, slopes.dtype) is slopes


def test_bfloat16_is_finite_and_near_float32() -> None:
    model, params = build(VARIANTS["everything"])
    half = Transformer(replace(model.config, dtype="bfloat16"))
    tokens = tokens_of(2, 12)
    wide, narrow = (hidden_of(m, params, tokens) for m in (model, half))
    assert narrow.dtype == jnp.bfloat16
    narrow = narrow.astype(jnp.float32)
    assert np.isfinite(narrow).all()
    assert float(jnp.abs(wide - narrow).mean()) < 0.03


def test_constrain_sees_activations_and_the_matrices_of_layers() -> None:
    seen = set()

    def constrain(x: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
        assert len(axes) == x.ndim
        seen.add(axes)
        return x

    _, params = build(TINY)
    hidden_of(Transformer(TINY, constrain=constrain), params, tokens_of(1, 3))
    rows, columns = ("batch", "sequence"), ("batch", "columns")
    assert seen == {
        (*rows, "residual"),
        (*columns, "residual"),
        (*columns, "heads", None),
        (*columns, "mlp"),
        # Gathered by name in each layer.
        ("residual", "heads", None),
        ("residual", "kv_heads", None),
        ("heads", None, "residual"),
        ("residual", "mlp"),
        ("mlp", "residual"),
    }
