from collections.abc import Callable
from typing import Any

import pytest

SCRIPT = """
    import json
    import re
    from dataclasses import replace
    from functools import partial

    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    import numpy as np
    from jaxrl_reason.models import Transformer, param_axes, prefill
    from jaxrl_reason.models.params import decode_params
    from jaxrl_reason.sampler.slot_state import compiled
    from jaxrl_reason.sampler import (
        BatchSettings,
        SamplingSettings,
        make_batch_sampler,
        make_sampler,
        sampling_keys,
    )
    from jaxrl_reason.sharding import ShardingRules, make_mesh, tree_shardings
    from tests.models.numpy_transformer import VARIANTS, build, hidden_of, tokens_of

    config = replace(VARIANTS["qwen2"], vocab_size=38)
    model, params = build(config)
    settings = SamplingSettings(max_new_tokens=10, eos_token_ids=(3,))
    tokens, lengths, ids = tokens_of(4, 6), jnp.array([6, 2, 4, 5]), jnp.arange(4)
    keys = sampling_keys(0, 0, ids, 4)
    wanted = make_sampler(model, settings, 4)(params, tokens, lengths, keys)

    mesh, rules = make_mesh(data=2, fsdp=2, tensor=2), ShardingRules()
    sharded = Transformer(config, constrain=rules.constrainer(mesh))
    placed = jax.device_put(
        params, tree_shardings(mesh, rules, param_axes(model), params)
    )
    rows = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    prompts = jax.device_put((tokens, lengths), rows)
    got = make_sampler(sharded, settings, 4)(placed, *prompts, keys)
    batch = BatchSettings(8, (6,), slots_per_group=2, shrink_to=(4,))
    slots = make_batch_sampler(sharded, settings, 4, batch)
    slots = slots(placed, *prompts, jax.device_put(keys, rows))
    # Prompts that begin alike, and fewer than the mesh has rows for.
    alike = tokens.at[:, :2].set(tokens[0, :2])[:3], jnp.maximum(lengths, 3)[:3]
    wanted_alike = make_sampler(model, settings, 4)(params, *alike, keys[:12])
    shared = replace(batch, common_prefix=tuple(tokens[0, :2].tolist()))
    once = make_batch_sampler(sharded, settings, 4, shared)(placed, *alike, keys[:12])
    try:
        make_batch_sampler(sharded, settings, 4, replace(batch, shrink_to=(6,)))
        refused = ""
    except ValueError as error:
        refused = str(error)
    hidden = hidden_of(sharded, placed, jax.device_put(tokens, rows))

    # The caches of the slots, after each program that writes them.
    programs = compiled(sharded, settings, batch)
    last, prefix = jax.jit(partial(prefill, sharded))(placed, *prompts)
    decode = decode_params(sharded, placed, jnp.zeros(1, jnp.int32), 16)
    state, parts = programs.empty(2, None), []
    for program in ("empty", "install", "refill", "advance", "shrink"):
        if program == "install":
            state = programs.install(state, last, prefix, 1, 0)
        if program == "refill":
            state = programs.refill(state, np.ones(8, bool), np.zeros((8, 2), "uint32"))
        if program == "advance":
            state = programs.advance(decode, state, 2, 1, key_impl="threefry2x32")
        if program == "shrink":
            state = programs.shrink(state, np.arange(4), np.arange(2))
        parts.append([
            sorted({
                x.nbytes // shard.data.nbytes
                for x in jax.tree.leaves(cache) for shard in x.addressable_shards
            })
            for cache in (state.cache.prompts, state.cache.responses)
        ])
    split = sorted({
        x.nbytes // x.addressable_shards[0].data.nbytes
        for x in jax.tree.leaves((decode.layers, decode.embedding)) if x.ndim > 1
    })

    # What the decode loop gathers, in numbers.
    lowered = make_sampler(sharded, settings, 4).program.lower(placed, *prompts, keys)
    gathers = re.findall(
        r"= \\w+\\[([\\d,]*)\\].* all-gather.*op_name=.jit.sample.*/while/body/(\\w+)",
        lowered.compile().as_text(),
    )
    gathered = [
        int(np.prod([int(n) for n in shape.split(",")]))
        # Not those of the prefill, which gathers weights for many tokens.
        for shape, of in gathers if of not in ("closed_call", "draw", "jit")
    ]
    print(json.dumps({
        "tokens": bool((got.tokens == wanted.tokens).all()),
        "logprobs": float(jnp.abs(got.logprobs - wanted.logprobs).max()),
        "slots": bool((slots.tokens == wanted.tokens).all()),
        "slot_logprobs": float(np.abs(slots.logprobs - wanted.logprobs).max()),
        "refused": refused,
        "once": bool((once.tokens == wanted_alike.tokens).all()),
        "once_logprobs": float(np.abs(once.logprobs - wanted_alike.logprobs).max()),
        "parts": parts,
        "split": split,
        "gathered": gathered,
        "hidden": float(jnp.abs(hidden - hidden_of(model, params, tokens)).max()),
    }))
"""


@pytest.fixture(scope="module")
def found(eight_devices_run: Callable[..., Any]) -> Any:
    return eight_devices_run(SCRIPT)


def test_eight_devices_give_the_tokens_of_one(found: Any) -> None:
    assert found["tokens"]
    assert found["logprobs"] < 1e-5
    assert found["slots"]
    assert found["slot_logprobs"] < 1e-5
    assert "must be multiples of 4, the parts" in found["refused"]
    assert found["once"]
    assert found["once_logprobs"] < 1e-5
    assert found["hidden"] < 1e-5


def test_every_device_holds_an_eighth_of_the_caches(found: Any) -> None:
    # Two groups that four parts of the mesh do not divide are split by head only.
    assert found["parts"] == [[[8], [8]]] * 4 + [[[2], [8]]]


def test_a_token_sends_activations_and_no_weights(found: Any) -> None:
    # Matrices are in fsdp x tensor parts, biases and key norms in tensor parts; of the
    # smallest matrix, the keys', a gather over fsdp would make 24 x 8 numbers.
    assert found["split"] == [2, 4]
    assert 0 < max(found["gathered"]) <= 8 * 16
