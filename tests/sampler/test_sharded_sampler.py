from collections.abc import Callable
from typing import Any

SCRIPT = """
    import json
    from dataclasses import replace

    import jax
    import jax.numpy as jnp
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxrl_reason.models import Transformer, param_axes
    import numpy as np
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
    print(json.dumps({
        "tokens": bool((got.tokens == wanted.tokens).all()),
        "logprobs": float(jnp.abs(got.logprobs - wanted.logprobs).max()),
        "slots": bool((slots.tokens == wanted.tokens).all()),
        "slot_logprobs": float(np.abs(slots.logprobs - wanted.logprobs).max()),
        "refused": refused,
        "once": bool((once.tokens == wanted_alike.tokens).all()),
        "once_logprobs": float(np.abs(once.logprobs - wanted_alike.logprobs).max()),
        "hidden": float(jnp.abs(hidden - hidden_of(model, params, tokens)).max()),
    }))
"""


def test_eight_devices_give_the_tokens_of_one(
    eight_devices_run: Callable[..., Any],
) -> None:
    found = eight_devices_run(SCRIPT)
    assert found["tokens"]
    assert found["logprobs"] < 1e-5
    assert found["slots"]
    assert found["slot_logprobs"] < 1e-5
    assert "must be multiples of 4, the parts" in found["refused"]
    assert found["once"]
    assert found["once_logprobs"] < 1e-5
    assert found["hidden"] < 1e-5
