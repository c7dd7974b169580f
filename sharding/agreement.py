"""Values that the processes of a run exchange, so that all take the same decisions.

For what is the same everywhere by itself nothing needs to be exchanged. A verdict of a
grader, a signal, an error or a file may differ between processes.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

from jaxrl_reason.sharding.processes import MOVES, count, index, is_main, store

T = TypeVar("T")


class ProcessError(ValueError):
    """Another process failed, or the processes of a run differ."""


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


def divide_rows(name: str, size: int, run: Callable[[int], T]) -> list[T]:
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
