"""The kernel for GPUs, interpreted; `test_row_attention` has its masks."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models.attention import NO_WINDOW, plain_attention
from jaxrl_reason.models.flash_attention import (
    COLUMNS,
    TILES,
    Rows,
    Tile,
    flash_attention,
    tables,
    tiles_of,
)
from tests.models.test_attention import columns_of, normal


@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "programs"), [(4, 2, 16, 1), (2, 2, 24, 1024)]
)
def test_blocks_that_are_seen_whole(
    monkeypatch: pytest.MonkeyPatch,
    heads: int,
    kv_heads: int,
    head_dim: int,
    programs: int,
) -> None:
    """Long sequences, whose inner blocks need no mask."""
    monkeypatch.setattr("jaxrl_reason.models.flash_attention.PROGRAMS", programs)
    size = 3 * COLUMNS
    columns = columns_of(np.repeat([[1, 2]], [300, size - 300], axis=1))
    q = normal(0, 1, size, heads, head_dim)
    k, v = (normal(i, 1, size, kv_heads, head_dim) for i in (1, 2))

    def value_and_gradients(attention: Any, *how: Any) -> Any:
        def total(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
            given = q, k, v, columns, columns, jnp.int32(NO_WINDOW)
            return jnp.sum(jnp.sin(attention(*given, *how)))

        return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))(q, k, v)

    got = value_and_gradients(flash_attention, None, True)
    wanted = value_and_gradients(plain_attention)
    for x, y in zip(*map(jax.tree.leaves, (got, wanted)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def test_a_query_that_sees_nothing_is_zero_and_moves_nothing() -> None:
    q, k, v = (normal(i, 1, 4, 2, 4) for i in range(3))
    columns = columns_of([[0, 0, 1, 1]])
    run = lambda q, k, v: flash_attention(  # noqa: E731
        *(q, k, v, columns, columns, jnp.int32(NO_WINDOW), None, True)
    )

    def with_gradients(*given: jax.Array) -> Any:
        context, back = jax.vjp(run, *given)
        return context, *back(jnp.ones_like(context))

    for x in jax.jit(with_gradients)(q, 100 * k, v):
        assert np.isfinite(x).all()
        assert not np.any(x[:, :2])


def test_a_program_reads_only_what_it_sees() -> None:
    # Two texts of 8 columns, the second with two branches of 4, then padding.
    columns = columns_of(
        [[1] * 8 + [2] * 16 + [0] * 8],
        [[*range(8), *range(8), *range(8, 12), *range(8, 12), *range(8)]],
        [[0] * 16 + [1] * 4 + [2] * 4 + [0] * 8],
    )
    at = jnp.stack(columns, axis=1)

    def read(per: str, window: int) -> list[list[list[int]]]:
        """For each block, the blocks that are seen whole, and those seen in part."""
        q = normal(0, 1, 32, 1, 4)
        rows = Rows(q, q, q, at, at, jnp.array([window]))
        table, counts = tables(rows, Tile(4, 4, 1, 1), per)
        return [
            [list(map(int, row[:whole])), list(map(int, row[whole:number]))]
            for row, (whole, number) in zip(table[0], counts[0], strict=True)
        ]

    nothing: list[list[int]] = [[], []]
    of_queries = [[[], [0]], [[0], [1]], [[], [2]], [[2], [3]]]
    of_queries += [[[2, 3], [4]], [[2, 3], [5]], nothing, nothing]
    assert read("q", NO_WINDOW) == of_queries
    of_keys = [[[1], [0]], [[], [1]], [[3, 4, 5], [2]], [[4, 5], [3]], [[], [4]]]
    assert read("k", NO_WINDOW) == [*of_keys, [[], [5]], nothing, nothing]
    # Of the text, a branch sees the last 4 columns or fewer, by its positions.
    of_queries[4:6] = [[[], [3, 4]], [[], [3, 5]]]
    assert read("q", 5) == [
        [[], [0]],
        [[], [0, 1]],
        [[], [2]],
        [[], [2, 3]],
        *of_queries[4:],
    ]


def test_blocks_divide_the_columns_that_rows_are_padded_to() -> None:
    for tiles in TILES.values():
        assert not any(COLUMNS % size for tile in tiles for size in tile[:2])
    sizes = list(TILES)
    found = [
        tiles_of(jax.ShapeDtypeStruct((1, 1, 1, head_dim), dtype))  # type: ignore[arg-type]
        for head_dim, dtype in (
            (8, jnp.float32),
            (64, jnp.bfloat16),
            (80, jnp.bfloat16),
            (128, jnp.bfloat16),
            (256, jnp.bfloat16),
            (256, jnp.float32),
        )
    ]
    assert found == [TILES[sizes[i]] for i in (0, 0, 1, 1, 2, 3)]
