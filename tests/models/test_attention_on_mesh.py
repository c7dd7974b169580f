"""Attention in blocks runs on a mesh as it does on one device, and moves no rows."""

from collections.abc import Callable
from typing import Any

import pytest

SCRIPT = """
    import json, re, sys
    from dataclasses import replace
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    from jaxrl_reason.learner.state import init_model_state
    from jaxrl_reason.learner.forward import head_logprobs
    from jaxrl_reason.models import Transformer, unembedding
    from jaxrl_reason.models.chunked_attention import BLOCK
    from jaxrl_reason.sharding import ShardingRules, make_mesh, parse_mesh
    from tests.models.numpy_transformer import TINY, tokens_of

    rules, size = ShardingRules(sequence=sys.argv[1] or None), 2 * BLOCK + 40
    config = replace(TINY, context_length=size, attention=sys.argv[2])
    tokens = np.asarray(tokens_of(8, size))
    # Four sequences per row, of other lengths in each, then padding.
    ends = np.sort(np.random.default_rng(0).integers(1, size - 20, (8, 3)), axis=1)
    segments = 1 + (np.arange(size)[None, :, None] >= ends[:, None]).sum(-1)
    segments[:, -20:] = 0
    starts = np.concatenate([np.zeros((8, 1), int), ends], axis=1)
    positions = np.arange(size) - np.take_along_axis(
        starts, np.maximum(segments, 1) - 1, axis=1)

    def run(mesh):
        model = Transformer(config, constrain=rules.constrainer(mesh))
        state = init_model_state(model, optax.adam(0.1), jax.random.key(0), mesh, rules)

        def loss(params, *rows):
            x = model.apply({"params": params}, *rows)
            found, entropy = head_logprobs(model.constrain)(
                x, unembedding(model, params), rows[0])
            return jnp.sum(jnp.where(rows[2] > 0, found + jnp.sin(entropy), 0.0))

        put = lambda x: jax.device_put(x, rules.sharding(mesh, ("batch", None)))
        given = state.params, *map(put, (tokens, positions, segments))
        step = jax.jit(jax.value_and_grad(loss)).lower(*given).compile()
        return step(*given), step.as_text()

    (alone, _), (spread, program) = (
        run(mesh) for mesh in (make_mesh(devices=jax.devices()[:1]),
                               parse_mesh(sys.argv[3])))
    collective = re.compile(r" (all-\\S+|collective-permute|reduce-scatter)\\(")
    moved = [line for line in program.splitlines()
             if "attention" in line and collective.search(line)]
    rows = [line for line in moved if "shard_map" in line]
    print(json.dumps({
        "worst": max(float(np.max(np.abs(x - y)) / np.max(np.abs(x)))
                     for x, y in zip(*(map(np.asarray, jax.tree.leaves(found))
                                       for found in (alone, spread)), strict=True)),
        "parameters": len(moved) - len(rows),
        "rows": [collective.search(line)[1] for line in rows],
    }))
"""


MESH = "data=2,fsdp=2,tensor=2"


@pytest.mark.parametrize(
    ("sequence", "way", "mesh"),
    [
        ("", "chunked", MESH),
        ("tensor", "chunked", MESH),
        ("", "splash", MESH),
        ("", "chunked", "fsdp=2,context=4"),
        ("tensor", "splash", "fsdp=2,context=2,tensor=2"),
        ("tensor", "flash", "fsdp=2,context=2,tensor=2"),
    ],
)
def test_rows_on_eight_devices(
    sequence: str, way: str, mesh: str, eight_devices_run: Callable[..., Any]
) -> None:
    found = eight_devices_run(SCRIPT, sequence, way, mesh)
    assert found["worst"] < 1e-5
    # What moves is parameters, to where they are multiplied, and the columns of a row,
    # to the devices of its heads; inside attention only keys and values, if several
    # devices share a row, and their gradients.
    assert found["parameters"] > 0
    if "context" in mesh:
        assert {"all-gather", "reduce-scatter"} <= set(found["rows"])
    else:
        assert found["rows"] == []
