"""What crosses between processes, in a run of one: the plain counterparts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrl_reason.sharding import make_mesh
from jaxrl_reason.sharding.agreement import divide_rows, exchange, on_main, together
from jaxrl_reason.sharding.processes import count, fetch, index, is_main, put

pytestmark = pytest.mark.fast


def broken():
    raise OSError("the disk is full")


def test_a_run_of_one_process_is_its_own_main_process():
    assert (index(), count(), is_main()) == (0, 1, True)
    assert exchange("here", {"a": 1}) == [{"a": 1}]
    assert on_main("here", lambda: 3) == together("here", lambda: 3) == 3
    assert divide_rows("here", 3, lambda row: row * row) == [0, 1, 4]


@pytest.mark.parametrize("run", [on_main, together])
def test_an_error_is_raised_as_it_is(run):
    with pytest.raises(OSError, match="the disk is full"):
        run("here", broken)


def test_arrays_go_to_a_mesh_and_come_back():
    whole = NamedSharding(make_mesh(devices=jax.devices()[:1]), PartitionSpec())
    tree = {"x": np.arange(6.0).reshape(2, 3), "y": jnp.ones(2, jnp.int32)}
    placed = put(tree, whole)
    assert all(x.sharding == whole for x in jax.tree.leaves(placed))
    back = fetch(placed)
    assert isinstance(back["x"], np.ndarray)
    np.testing.assert_array_equal(back["x"], tree["x"])
