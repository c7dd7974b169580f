"""The processes of one run: all that crosses between hosts, or from hosts to a mesh.

Every process runs the same program on the same host data, so that all take the same
decisions; only the devices hold different parts. Where processes may differ (a verdict
of a grader, a signal, an error, a file), they exchange it, so that none decides alone.
With one process, every function here is its plain counterpart. `lifetime.py` starts
them, watches over them and ends them.
"""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar, cast

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

T = TypeVar("T")


class ProcessError(ValueError):
    """Another process failed, or the processes of a run differ."""


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


def exchange(name: str, value: Any) -> list[Any]:
    """Gives every process the values of all.

    Args:
      name: of the place in the program, which must be the same on all.
      value: JSON, up to some megabytes.

    Returns:
      One value for each process, in their order.

    Raises:
      ProcessError: the processes are at different places.
    """
    if count() == 1:
        return [value]
    MOVES.add()
    number = next(MOVES.exchanges)
    folder = f"jaxrl_reason/exchange/{number}"
    said = json.dumps([name, value]).encode()
    store().key_value_set_bytes(f"{folder}/{index()}", said)
    if is_main():
        found = [_wait(f"{folder}/{i}") for i in range(count())]
        store().key_value_set_bytes(f"{folder}/all", json.dumps(found).encode())
        # Everybody is here, so nobody still reads the values of the exchange before.
        store().key_value_delete(f"jaxrl_reason/exchange/{number - 1}/")
    else:
        found = _wait(f"{folder}/all")
    places = [place for place, _ in found]
    if len(set(places)) > 1:
        raise ProcessError(
            f"all processes must meet at the same place, got {dict(enumerate(places))}"
        )
    return [value for _, value in found]


def together(name: str, run: Callable[[], T]) -> T:
    """Runs a function on every process; an error on one is raised on all.

    Args:
      name: of the place in the program.
      run: without any exchange in it.

    Returns:
      This process's result.

    Raises:
      ProcessError: another process failed; the message says which, and how.
      Exception: of this process's own run.
    """
    if count() == 1:
        return run()
    result, error = None, None
    try:
        result = run()
    except Exception as raised:
        error = raised
    said = exchange(name, None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    for number, text in enumerate(said):
        if text is not None:
            raise ProcessError(f"process {number} failed at {name}: {text}")
    return cast(T, result)


def on_main(name: str, run: Callable[[], T]) -> T:
    """Runs a function on process 0, for all.

    Args:
      name: of the place in the program.
      run: returns JSON; without any exchange in it.

    Returns:
      Its result, on every process.

    Raises:
      ProcessError: it failed on process 0; raised on the others.
      Exception: the failure itself, on process 0.
    """
    found = together(name, run if is_main() else lambda: cast(T, None))
    return cast(T, exchange(name, found)[0])


def main_first(name: str, run: Callable[[], T]) -> T:
    """Runs a function on process 0, then on the others, which find what it left.

    Args:
      name: of the place in the program.
      run: without any exchange in it; it downloads or writes files, for example.

    Returns:
      This process's result.

    Raises:
      ProcessError, Exception: as `together`.
    """
    parts = [is_main(), not is_main()]
    found = [together(name, run if own else lambda: cast(T, None)) for own in parts]
    return found[parts.index(True)]


def share(name: str, size: int, run: Callable[[int], T]) -> list[T]:
    """Computes something for each of some rows; each process does a part of them.

    Args:
      name: of the place in the program.
      size: number of rows.
      run: a row's number -> JSON; without any exchange in it.

    Returns:
      The results of all rows, on every process.

    Raises:
      ProcessError: another process failed.
    """
    own = range(index(), size, count())
    found = exchange(name, together(name, lambda: [run(row) for row in own]))
    return [found[row % count()][row // count()] for row in range(size)]


def _wait(key: str) -> Any:
    """The value of a key that another process sets."""
    limit = 1000  # milliseconds; Python handles signals between two waits
    while True:
        try:
            return json.loads(store().blocking_key_value_get_bytes(key, limit))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        limit = min(2 * limit, 30_000)  # a large value takes time to come


def store() -> Any:
    """The client of the key-value store that all processes of a run share."""
    return _state().client


def _state() -> Any:
    # JAX has no public name for the key-value store of its coordination service, nor
    # for what `jax.distributed.initialize` found out.
    from jax._src import distributed

    return distributed.global_state
