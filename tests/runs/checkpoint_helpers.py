"""A state to save, and what restores it."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

SETTINGS = {"model": {"width": 8, "num_layers": 2}, "eos_token_ids": (1, 2)}


@flax.struct.dataclass
class State:
    step: Any
    params: Any
    opt_state: Any
    key: Any


def make_state(seed=0, width=8):
    params = {
        "embed": jax.random.normal(jax.random.key(seed), (16, width)),
        "head": {"kernel": jnp.full((width, 16), seed, jnp.bfloat16)},
    }
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    opt_state = jax.tree.map(lambda x: x + 1, optimiser.init(params))
    return State(jnp.int32(seed), params, opt_state, jax.random.key(seed))


def abstract(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for left, right in zip(
        jax.tree.leaves(first), jax.tree.leaves(second), strict=True
    ):
        assert left.dtype == right.dtype
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def restore(folder, step=None, settings=SETTINGS):
    return folder.restore(abstract(make_state()), settings, step)
