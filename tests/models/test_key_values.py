"""Keys and values in blocks, whatever width the CPU's vectors ask for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.models import key_values
from jaxrl_reason.models.key_values import block_sizes, quantize, roll, update_slice

pytestmark = pytest.mark.fast


@pytest.fixture(params=[False, True], ids=["narrow", "wide"])
def wide(request, monkeypatch):
    monkeypatch.setattr(key_values, "_wide_vectors", lambda: request.param)
    return request.param


def draw(key, *shape):
    return jax.random.normal(jax.random.key(key), shape)


@pytest.mark.parametrize("size", [16, 32, 48, 64, 96])
def test_two_blocks_stay_at_least(wide, size):
    columns, dimensions = block_sizes((1, 1, size, 64), 16)
    assert dimensions == (32 if wide else 16)
    assert columns == (32 if wide and size in (64, 96) else 16)
    assert block_sizes((1, 1, size, 24), 16) == (columns, 24)
    assert block_sizes((1, 1, size, 64), 0) == (size, 64)


def test_a_column_and_more_room_where_whole_rows_would_have_them(wide):
    """32 columns of 16 become 64 of 32, the oldest first."""
    keys, values = draw(0, 3, 2, 32, 64), draw(1, 3, 2, 32, 64)
    cached = quantize(keys, values, "float32", block_sizes(keys.shape, 16))
    key, value, place = draw(2, 3, 2, 1, 64), draw(3, 3, 2, 1, 64), 20
    new = quantize(key, value, "float32", (1, cached.blocks[1]))
    cached = update_slice(cached, new, 0, place)
    cached = roll(cached, jnp.asarray(place + 1), 64, 16)
    assert cached.blocks == ((32, 32) if wide else (16, 16))

    def whole(x, one):
        x = jnp.roll(x.at[:, :, place].set(one[:, :, 0]), -(place + 1), 2)
        return jnp.pad(x, [(0, 0), (0, 0), (0, 32), (0, 0)])

    q, weights = draw(4, 3, 2, 4, 64), draw(5, 3, 2, 4, 64)
    want = jnp.einsum("nkqh,nkth->nkqt", q, whole(keys, key))
    np.testing.assert_allclose(cached.scores(q), want, atol=2e-5)
    want = jnp.einsum("nkqt,nkth->nkqh", weights, whole(values, value))
    np.testing.assert_allclose(cached.context(weights), want, atol=2e-5)
