"""The processes of one run: all that crosses between hosts, or from hosts to a mesh.

Every process runs the same program on the same host data, so that all take the same
decisions; only the devices hold different parts. What may differ is exchanged
(`agreement.py`). With one process, every function of these two is its plain
counterpart. `lifetime.py` starts the processes, watches over them and ends them.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

T = TypeVar("T")


@dataclass
class Moves:
    """What this process has done here; equal on all that are at the same place.

    Attributes:
      count: number of calls of `put`, `fetch` and `exchange`.
      time: of the last one, in seconds of `time.monotonic`.
      exchanges: numbers of the exchanges to come.
    """

    count: int = 0
    time: float = 0.0
    exchanges: Any = field(default_factory=itertools.count)

    def add(self) -> None:
        """Counts a call."""
        self.count, self.time = self.count + 1, time.monotonic()

    def still(self) -> float:
        """Seconds since the last call."""
        return time.monotonic() - self.time


MOVES = Moves()


def index() -> int:
    """The number of this process, from 0."""
    return int(_state().process_id)


def count() -> int:
    """The number of processes of the run; unlike JAX's, it starts no backend."""
    return int(_state().num_processes or 1)


def is_main() -> bool:
    """Whether this process writes what a run leaves: process 0."""
    return index() == 0


def put(tree: T, sharding: Sharding) -> T:
    """Places host arrays, equal on every process, on a mesh.

    Each process copies the parts of its own devices; `jax.device_put` would first
    gather every array from all processes to compare them.

    Args:
      tree: arrays; one that is on the mesh already is moved there.
      sharding: of every array.

    Returns:
      The tree with arrays of this sharding.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def place(x: Any) -> jax.Array:
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return jax.device_put(x, sharding)
        if not hasattr(x, "shape"):
            x = jax.numpy.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

    MOVES.add()
    return jax.tree.map(place, tree)


def fetch(tree: Any) -> Any:
    """Brings arrays to the host, whole, on every process.

    Args:
      tree: arrays of devices or of the host.

    Returns:
      The tree with NumPy arrays.
    """
    MOVES.add()
    leaves, treedef = jax.tree.flatten(tree)
    parted = [i for i, x in enumerate(leaves) if _is_parted(x)]
    if parted:
        gather = _gather(leaves[parted[0]].sharding.mesh)
        whole = gather([leaves[i] for i in parted])
        for i, x in zip(parted, whole, strict=True):
            leaves[i] = x
    return jax.device_get(jax.tree.unflatten(treedef, leaves))


def _is_parted(x: Any) -> bool:
    return isinstance(x, jax.Array) and not (
        x.is_fully_addressable or x.is_fully_replicated
    )


@lru_cache
def _gather(mesh: Mesh) -> Callable[[list[jax.Array]], list[jax.Array]]:
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda arrays: arrays, out_shardings=whole)


def store() -> Any:
    """The client of the key-value store that all processes of a run share."""
    return _state().client


def _state() -> Any:
    # JAX has no public name for the key-value store of its coordination service, nor
    # for what `jax.distributed.initialize` found out.
    from jax._src import distributed

    return distributed.global_state
