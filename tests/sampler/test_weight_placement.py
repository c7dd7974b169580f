"""Every mesh and every place of the weights: the tokens and log-probs of one device."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxrl_reason.models import Transformer
from jaxrl_reason.sampler import WeightPlacement, weight_placement
from jaxrl_reason.sharding import BatchSharding, ShardingRules, make_mesh
from tests.models.numpy_transformer import TINY

SCRIPT = """
    import json
    from dataclasses import replace

    import jax
    import jax.numpy as jnp
    import numpy as np
    from jaxrl_reason.models import (
        LoraSettings, Transformer, init_lora, param_axes, with_lora,
    )
    from jaxrl_reason.sampler import (
        BatchSettings, SamplingSettings, make_batch_sampler, make_sampler,
        sampling_keys, weight_placement,
    )
    from jaxrl_reason.sharding import BatchSharding, ShardingRules, parse_mesh
    from jaxrl_reason.sharding import tree_shardings
    from tests.models.numpy_transformer import TINY, build, tokens_of

    # Biases, a head of its own, heads that four devices share.
    config = replace(TINY, num_layers=1, attention_bias=True, tie_embeddings=False,
                     vocab_size=38)
    model, params = build(config)
    settings = SamplingSettings(max_new_tokens=6, eos_token_ids=(3,))
    tokens, lengths = np.asarray(tokens_of(8, 6)), np.array([6, 2, 4, 5, 1, 3, 6, 6])
    keys = sampling_keys(0, 0, jnp.arange(8), 2)
    wanted = make_sampler(model, settings, 2)(params, tokens, lengths, keys)
    batch = BatchSettings(16, (6,), slots_per_group=2)

    def worst(got):
        same = bool((np.asarray(got.tokens) == wanted.tokens).all())
        return [same, float(np.abs(got.logprobs - np.asarray(wanted.logprobs)).max())]

    report = {}
    for sizes in ("fsdp=8", "data=2,fsdp=4", "fsdp=4,tensor=2",
                  "data=2,fsdp=2,tensor=2", "fsdp=2,tensor=4", "data=4,tensor=2"):
        mesh, rules = parse_mesh(sizes), ShardingRules()
        trained = Transformer(config, constrain=rules.constrainer(mesh))
        placed = jax.device_put(
            params, tree_shardings(mesh, rules, param_axes(model), params)
        )
        prompts = BatchSharding(mesh, rules).put_batch((tokens, lengths, keys))
        for weights in ("split", "whole"):
            place = weight_placement(trained, weights)
            sampled, given = trained, placed
            if place is not None:
                sampled, given = place.model, place(placed)
            embedding = given["embedding"]
            found = report[f"{sizes} {weights}"] = {
                "plain": worst(make_sampler(sampled, settings, 2)(given, *prompts)),
                "parts": embedding.size // embedding.addressable_shards[0].data.size,
            }
            if sizes in ("fsdp=8", "fsdp=4,tensor=2"):
                slots = make_batch_sampler(sampled, settings, 2, batch)
                found["slots"] = worst(slots(given, *prompts))

    # The last mesh with fsdp: what a copy is, with low-rank factors and less digits.
    mesh = parse_mesh("fsdp=2,tensor=4")
    low = replace(config, dtype="bfloat16")
    trained = Transformer(low, constrain=rules.constrainer(mesh))
    lora = LoraSettings(rank=2, targets=("up",))
    factors = with_lora(params, init_lora(model, lora, jax.random.key(0)), lora)
    shapes = param_axes(model)
    shapes["layers"]["mlp"] |= {
        "up_lora_a": ("layers", "embed", None), "up_lora_b": ("layers", None, "mlp"),
    }
    placed = jax.device_put(factors, tree_shardings(mesh, rules, shapes, factors))
    whole, split = (weight_placement(trained, how) for how in ("whole", "split"))
    copy = whole(placed)
    report["copy"] = {
        "types": sorted({str(x.dtype) for x in jax.tree.leaves(copy)}),
        "scale": str(copy["final_norm"]["scale"].dtype),
        "values": all(jax.tree.leaves(jax.tree.map(
            lambda x, y: bool((x.astype(y.dtype) == y).all()), factors, copy
        ))),
        "again": jax.tree.map(lambda x: x.sharding, whole(placed))
        == jax.tree.map(lambda x: x.sharding, copy),
        "received": [whole.bytes_received(placed), split.bytes_received(placed)],
        "held": [
            sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
            for tree in (copy, split(placed))
        ],
    }
    print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def report(eight_devices_run: Callable[..., Any]) -> Any:
    return eight_devices_run(SCRIPT)


def test_tokens_and_logprobs_are_those_of_one_device(report: Any) -> None:
    meshes = {name: found for name, found in report.items() if name != "copy"}
    assert len(meshes) == 12
    for name, found in meshes.items():
        for sampler in found.keys() - {"parts"}:
            same, difference = found[sampler]
            assert same, (name, sampler)
            assert difference < 1e-5, (name, sampler)
    assert sum("slots" in found for found in meshes.values()) == 4


def test_whole_weights_are_split_by_tensor_only(report: Any) -> None:
    parts = {name: report[name]["parts"] for name in report if name != "copy"}
    assert parts["fsdp=8 split"] == 8
    assert parts["fsdp=8 whole"] == 1
    assert parts["data=2,fsdp=2,tensor=2 split"] == 4
    assert parts["data=2,fsdp=2,tensor=2 whole"] == 2
    # Nothing is copied where fsdp splits nothing.
    assert parts["data=4,tensor=2 whole"] == parts["data=4,tensor=2 split"] == 2


def test_a_copy_has_the_compute_type_and_the_values(report: Any) -> None:
    copy = report["copy"]
    assert copy["types"] == ["bfloat16", "float32"]
    assert copy["scale"] == "float32"  # a norm multiplies in float32
    assert copy["values"]
    assert copy["again"]


def test_the_bytes_that_a_device_receives_are_counted(report: Any) -> None:
    received, held = report["copy"]["received"], report["copy"]["held"]
    # Of whole weights a device has half, of split ones all it needs.
    assert received == [held[0] - held[1], 0]


@pytest.mark.fast
def test_one_device_reads_the_parameters_of_the_training() -> None:
    for weights in ("auto", "split", "whole"):
        assert weight_placement(Transformer(TINY), weights) is None
        low = replace(TINY, dtype="bfloat16")
        assert weight_placement(Transformer(low), weights) is None
    with pytest.raises(ValueError, match=r"weights must be one of .*, got 'some'"):
        weight_placement(Transformer(TINY), "some")


@pytest.mark.fast
def test_only_the_scales_of_norms_keep_their_type() -> None:
    tree = {"up": jnp.ones((4, 6)), "norm": {"scale": jnp.ones(4)}}
    one = BatchSharding(make_mesh(devices=jax.devices()[:1]), ShardingRules())
    place = WeightPlacement(Transformer(TINY), ("fsdp",), "bfloat16")
    copy = place(one.replicate(tree))
    assert (copy["up"].dtype, copy["norm"]["scale"].dtype) == (jnp.bfloat16, "float32")
    assert place.bytes_received(one.replicate(tree)) == 0
