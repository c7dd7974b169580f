import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from jaxrl_reason.sharding import (
    Constrainer,
    ShardingRules,
    make_mesh,
    no_constraint,
    stationary,
)


@pytest.mark.fast
def test_default_specs() -> None:
    rules = ShardingRules()
    assert rules.spec(()) == PartitionSpec()
    assert rules.spec(("vocab", "embed")) == PartitionSpec("tensor", "fsdp")
    assert rules.spec(("batch", "sequence", None)) == PartitionSpec(
        ("data", "fsdp"), "context", None
    )
    assert rules.spec(("layers", "embed", "heads", "head_dim")) == PartitionSpec(
        None, "fsdp", "tensor", None
    )


def test_another_strategy_is_another_value() -> None:
    rules = dataclasses.replace(ShardingRules(), embed=None, mlp=("fsdp", "tensor"))
    assert rules.spec(("embed", "mlp")) == PartitionSpec(None, ("fsdp", "tensor"))


def test_unknown_logical_axis_is_named() -> None:
    with pytest.raises(ValueError, match=r"logical axes are batch, .*; got 'width'"):
        ShardingRules().spec(("width", None))


def test_two_logical_axes_on_one_mesh_axis_are_both_named() -> None:
    with pytest.raises(ValueError, match="'mlp' and 'heads' are both on 'tensor'"):
        ShardingRules().spec(("heads", "mlp"))
    with pytest.raises(ValueError, match="'embed' and 'batch' are both on 'fsdp'"):
        ShardingRules().spec(("batch", "embed"))
    # An array with the same axis twice is refused for the same reason.
    with pytest.raises(ValueError, match="'vocab' and 'vocab' are both on 'tensor'"):
        ShardingRules().spec(("vocab", "vocab"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "rule embed must be a mesh axis, a tuple of mesh axes or None, got 3"),
        (["fsdp"], "rule embed must be a mesh axis"),
        ("", "rule embed must be a mesh axis"),
        (("fsdp", 1), "rule embed must be a mesh axis"),
        (("fsdp", "fsdp"), "rule embed must name a mesh axis once"),
    ],
)
def test_bad_rules_are_named(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardingRules(embed=value)  # type: ignore[arg-type]


def test_a_mesh_axis_that_the_mesh_lacks_is_named() -> None:
    rules = ShardingRules(embed="model")
    with pytest.raises(
        ValueError,
        match="rule embed names the mesh axis 'model', but this mesh has 'data'",
    ):
        rules.sharding(make_mesh(), ("embed",))


@pytest.mark.fast
def test_constrainer_keeps_values_and_hashes_by_value() -> None:
    mesh, rules = make_mesh(), ShardingRules()
    constrain = rules.constrainer(mesh)
    assert constrain == Constrainer(mesh, ShardingRules())
    assert hash(constrain) == hash(Constrainer(mesh, ShardingRules()))
    x = jnp.arange(6.0).reshape(2, 3)
    pinned = jax.jit(lambda x: constrain(x, ("batch", "sequence")))(x)
    assert jnp.array_equal(pinned, x)
    assert no_constraint(x, ("batch", "sequence")) is x


@pytest.mark.fast
def test_constrainer_says_into_how_many_parts() -> None:
    constrain = ShardingRules().constrainer(make_mesh())
    assert constrain.split("batch") == constrain.split(None) == 1


def test_constrainer_wants_one_axis_for_each_dimension() -> None:
    constrain = ShardingRules().constrainer(make_mesh())
    with pytest.raises(
        ValueError,
        match=re.escape("one logical axis for each dimension, got ('batch',) for"),
    ):
        constrain(jnp.zeros((2, 3)), ("batch",))


def test_weights_stay_where_a_mesh_splits_their_hidden_size() -> None:
    mesh = jax.sharding.AbstractMesh((2, 4, 1), ("data", "fsdp", "tensor"))
    rows = ("batch", "sequence", "residual")
    before = ShardingRules().constrainer(mesh)
    found = stationary(before)
    assert isinstance(found, Constrainer)
    assert found.rules.spec(rows) == PartitionSpec("data", None, "fsdp")
    assert before.rules.spec(rows) == PartitionSpec(("data", "fsdp"), "context", None)
    # Whole parameters have nothing that could be gathered.
    for whole in (
        ShardingRules().constrainer(make_mesh()),
        ShardingRules(embed=None).constrainer(mesh),
    ):
        assert stationary(whole) is whole
