import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import PartitionSpec

from jaxrl_reason.sharding import (
    ShardingRules,
    check_batch,
    make_mesh,
    state_shardings,
    tree_shardings,
)

AXES = {"w": ("embed",), "block": {"w": ("layers", "embed", "mlp")}}


class State(NamedTuple):
    params: Any
    opt_state: Any
    key: jax.Array
    step: jax.Array


def make_params() -> dict[str, Any]:
    return {"w": jnp.ones(8), "block": {"w": jnp.ones((2, 8, 4))}}


def specs(shardings: Any) -> Any:
    return jax.tree.map(lambda sharding: sharding.spec, shardings)


@pytest.mark.fast
def test_tree_shardings_follow_the_axes() -> None:
    found = tree_shardings(make_mesh(), ShardingRules(), AXES, make_params())
    assert specs(found) == {
        "w": PartitionSpec("fsdp"),
        "block": {"w": PartitionSpec(None, "fsdp", "tensor")},
    }


def test_trees_of_different_structure_name_the_path() -> None:
    mesh, rules, params = make_mesh(), ShardingRules(), make_params()
    with pytest.raises(ValueError, match="block/w is missing from the axes tree"):
        tree_shardings(mesh, rules, {"w": ("embed",)}, params)
    with pytest.raises(ValueError, match="extra is missing from the shapes tree"):
        tree_shardings(mesh, rules, {**AXES, "extra": ("embed",)}, params)


def test_axes_that_do_not_fit_the_rank_name_the_path() -> None:
    axes = {**AXES, "w": ("embed", "mlp")}
    message = "w needs one logical axis for each dimension, got ('embed', 'mlp')"
    with pytest.raises(ValueError, match=re.escape(message)):
        tree_shardings(make_mesh(), ShardingRules(), axes, make_params())


@pytest.mark.fast
def test_state_shardings_mirror_the_parameters_in_adamw() -> None:
    params = make_params()
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    state = State(params, optimiser.init(params), jax.random.key(0), jnp.int32(0))
    found = specs(state_shardings(make_mesh(), ShardingRules(), AXES, state))
    expected = {
        "w": PartitionSpec("fsdp"),
        "block": {"w": PartitionSpec(None, "fsdp", "tensor")},
    }
    adam = found.opt_state[1][0]
    assert found.params == adam.mu == adam.nu == expected
    assert adam.count == found.key == found.step == PartitionSpec()


def test_state_shardings_replicate_factored_moments() -> None:
    params = make_params()
    optimiser = optax.adafactor(1e-3, min_dim_size_to_factor=4)
    state = jax.eval_shape(optimiser.init, params)
    found = specs(state_shardings(make_mesh(), ShardingRules(), AXES, state))
    factored = found[0]
    assert factored.v_row["block"]["w"] == PartitionSpec()
    assert factored.v_row["w"] == PartitionSpec()
    assert factored.v["w"] == PartitionSpec("fsdp")


@pytest.mark.fast
@pytest.mark.parametrize("batch_size", [0, -8])
def test_an_empty_batch_is_refused(batch_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"prompts must be a positive multiple of 1.*got {batch_size}"
    ):
        check_batch(make_mesh(), ShardingRules(), batch_size, "prompts")


EIGHT_DEVICES = """
import json

import jax
import jax.numpy as jnp
import optax
from jaxrl_reason.sharding import (
    ShardingRules, check_batch, make_mesh, parse_mesh, state_shardings, tree_shardings
)

def error(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except ValueError as problem:
        return str(problem)

mesh, rules = parse_mesh("data=2,fsdp=2,tensor=2"), ShardingRules()
axes = {"w": ("embed", "mlp")}
shape = {"w": jax.ShapeDtypeStruct((4, 6), jnp.float32)}
optimiser = optax.adamw(1e-3)

def init(key):
    params = {"w": jax.random.normal(key, (4, 6))}
    return params, optimiser.init(params)

# Compiled for one device and for eight: the same numbers, split as the rules say.
abstract = jax.eval_shape(init, jax.random.key(0))
placed = jax.jit(init, out_shardings=state_shardings(mesh, rules, axes, abstract))
params, opt_state = placed(jax.random.key(0))
alone, _ = jax.jit(init)(jax.random.key(0))
constrain = rules.constrainer(mesh)
pinned = jax.jit(lambda x: constrain(x * 2.0, ("batch", None)))(jnp.ones((8, 3)))
small = make_mesh(fsdp=2, devices=jax.devices()[2:4])

print(json.dumps({
    "same": bool(jnp.array_equal(jax.device_get(params["w"]), alone["w"])),
    "param_shard": params["w"].sharding.shard_shape((4, 6)),
    "mu_shard": opt_state[0].mu["w"].sharding.shard_shape((4, 6)),
    "count_replicated": opt_state[0].count.sharding.is_fully_replicated,
    "pinned_shard": pinned.sharding.shard_shape((8, 3)),
    "small": sorted(device.id for device in small.devices.flat),
    "partial": make_mesh(data=4).size,
    "too_many": error(make_mesh, data=3, fsdp=3),
    "not_all": error(make_mesh, data=2, devices=jax.devices()),
    "dimension": error(
        tree_shardings, mesh, rules, axes, {"w": jax.ShapeDtypeStruct((4, 5), "int8")}
    ),
    "state_dimension": error(
        state_shardings, mesh, rules, axes, {"mu": {"w": jnp.zeros((3, 6))}}
    ),
    "activation": error(constrain, jnp.zeros((6, 3)), ("batch", None)),
    "batch": error(check_batch, mesh, rules, 6, "prompts"),
    "good_batch": error(check_batch, mesh, rules, 8, "prompts"),
}))
"""


def test_on_eight_devices(eight_devices_run: Callable[..., Any]) -> None:
    found = eight_devices_run(EIGHT_DEVICES)
    assert found["same"]
    assert found["param_shard"] == found["mu_shard"] == [2, 3]
    assert found["count_replicated"]
    assert found["pinned_shard"] == [2, 3]
    assert found["small"] == [2, 3]
    assert found["partial"] == 4
    assert found["too_many"].endswith("needs 9 devices, but only 8 are available")
    assert found["not_all"].endswith("needs 2 devices, but 8 were given")
    assert found["dimension"] == (
        "the mesh must divide every dimension: w of shape (4, 5) has 5 in dimension 1 "
        "(mlp), which tensor=2 does not divide"
    )
    assert (
        "mu/w of shape (3, 6) has 3 in dimension 0 (embed)" in found["state_dimension"]
    )
    assert "6 in dimension 0 (batch), which data=2 x fsdp=2" in found["activation"]
    assert found["batch"] == (
        "prompts must be a positive multiple of 4 (mesh data=2 x fsdp=2), got 6"
    )
    assert found["good_batch"] is None
