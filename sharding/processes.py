"""The processes of one run: all that crosses between hosts, or from hosts to a mesh.

Every process runs the same program on the same host data, so that all take the same
decisions; only the devices hold different parts. Where processes differ (a verdict of a
grader, a signal, an error, a file), they exchange it, so that none decides alone. With
one process, every function here is its plain counterpart.
"""

import itertools
import json
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

T = TypeVar("T")

# Seconds for which a process waits for the others; `initialize` sets it.
_limits = {"seconds": 1800.0}
_exchanges = itertools.count()


class ProcessError(ValueError):
    """Another process failed, or the processes of a run differ."""


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

    return jax.tree.map(place, tree)


def fetch(tree: Any) -> Any:
    """Brings arrays to the host, whole, on every process.

    Args:
      tree: arrays of devices or of the host.

    Returns:
      The tree with NumPy arrays.
    """
    leaves, treedef = jax.tree.flatten(tree)
    far = [i for i, x in enumerate(leaves) if _is_parted(x)]
    if far:
        mesh = leaves[far[0]].sharding.mesh
        whole = _replicate(mesh)([leaves[i] for i in far])
        for i, x in zip(far, whole, strict=True):
            leaves[i] = x
    return jax.device_get(jax.tree.unflatten(treedef, leaves))


def _is_parted(x: Any) -> bool:
    return isinstance(x, jax.Array) and not (
        x.is_fully_addressable or x.is_fully_replicated
    )


@lru_cache
def _replicate(mesh: Mesh) -> Callable[[list[jax.Array]], list[jax.Array]]:
    return jax.jit(
        lambda arrays: arrays, out_shardings=NamedSharding(mesh, PartitionSpec())
    )


def initialize(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    limit: float = 1800.0,
) -> None:
    """Joins the processes of a run; before anything touches a device.

    Under Slurm, Open MPI, GKE or on TPU VMs, JAX finds the arguments itself.

    Args:
      coordinator_address: host:port of process 0.
      num_processes: of the run.
      process_id: of this one, from 0.
      limit: seconds for which a process waits for the others.

    Raises:
      ValueError: the limit is not above 0, or JAX cannot find an argument.
    """
    if not limit > 0:
        raise ValueError(f"limit must be above 0 seconds, got {limit}")
    _limits["seconds"] = limit
    jax.distributed.initialize(coordinator_address, num_processes, process_id)


def exchange(name: str, value: Any) -> list[Any]:
    """Gives every process the values of all.

    Args:
      name: of the place in the program, which must be the same on all.
      value: JSON.

    Returns:
      One value for each process, in their order.

    Raises:
      ProcessError: a process did not come within the limit, or came to another place.
    """
    if count() == 1:
        return [value]
    number, store = next(_exchanges), _store()
    folder = f"jaxrl_reason/exchange/{number}"
    text = json.dumps([name, value]).encode()
    store.key_value_set_bytes(f"{folder}/{index()}", text)
    if is_main():
        found = [_wait(f"{folder}/{i}", name, i) for i in range(count())]
        store.key_value_set_bytes(f"{folder}/all", json.dumps(found).encode())
        # Everybody is here, so nobody still reads the values of the exchange before.
        store.key_value_delete(f"jaxrl_reason/exchange/{number - 1}/")
    else:
        found = _wait(f"{folder}/all", name, 0)
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
      run: the same work on every process, without any exchange in it.

    Returns:
      This process's result.

    Raises:
      ProcessError: another process failed; the message says which, and how.
      Exception: of this process's own run.
    """
    try:
        result, error = run(), None
    except Exception as raised:
        if count() == 1:
            raise
        result, error = None, raised
    said = exchange(name, None if error is None else f"{type(error).__name__}: {error}")
    if error is not None:
        raise error
    _raise_first(name, said)
    return cast(T, result)


def on_main(name: str, run: Callable[[], T]) -> T:
    """Runs a function on process 0, for all.

    Args:
      name: of the place in the program.
      run: returns JSON; without any exchange in it.

    Returns:
      Its result, on every process.

    Raises:
      ProcessError: it failed on process 0, on the others.
      Exception: the failure itself, on process 0.
    """
    if count() == 1:
        return run()
    found = together(name, run if is_main() else _nothing)
    return cast(T, exchange(name, found)[0])


def _nothing() -> Any:
    return None


def own_part(rows: range) -> range:
    """The rows of this process, if all processes share them."""
    return rows[index() :: count()]


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
    own = own_part(range(size))
    found = exchange(name, together(name, lambda: [run(row) for row in own]))
    return [found[row % count()][row // count()] for row in range(size)]


def _raise_first(name: str, said: Sequence[str | None]) -> None:
    for number, text in enumerate(said):
        if text is not None:
            raise ProcessError(f"process {number} failed at {name}: {text}")


def _wait(key: str, name: str, of: int) -> Any:
    """The value of a key that another process sets."""
    end = time.monotonic() + _limits["seconds"]
    while True:
        try:
            return json.loads(_store().blocking_key_value_get_bytes(key, 1000))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
        if time.monotonic() > end:
            raise ProcessError(
                f"process {of} must come to {name!r} within {_limits['seconds']:g} "
                "seconds of the first process, but did not"
            )


def _store() -> Any:
    return _state().client


def _state() -> Any:
    # JAX has no public name for the key-value store of its coordination service, nor
    # for what `jax.distributed.initialize` found out.
    from jax._src import distributed

    return distributed.global_state
