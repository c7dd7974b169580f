"""The life of a process in a run of several: it joins, is watched, and leaves.

XLA waits for ever for a process that does not come to a collective. JAX itself ends a
run one of whose processes has died; a thread here ends one in which a process has
failed or is stuck. Whatever started the run starts it again, and it resumes.
"""

import contextlib
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import jax

from jaxrl_reason.sharding.agreement import exchange
from jaxrl_reason.sharding.processes import MOVES, count, index, store

_FAILED, _PLACES = "jaxrl_reason/failed/", "jaxrl_reason/places/"
_STUCK, _LEAVES = "jaxrl_reason/stuck/", "jaxrl_reason/leaves/"
# Seconds between two looks at the other processes, at most.
_PERIOD = 2.0
# Seconds without a look of a process after which it counts as dead; JAX waits for 100.
_SILENT = 60.0


@contextlib.contextmanager
def joined(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    stuck_after: float = 1800.0,
) -> Iterator[None]:
    """Joins the processes of a run, for a block; before anything touches a device.

    Under Slurm, Open MPI, GKE and on TPU VMs, JAX finds the arguments itself. An error
    in the block ends the process with its message, and the others with another: an
    orderly exit of JAX would wait for them.

    Args:
      coordinator_address: host:port of process 0.
      num_processes: of the run.
      process_id: of this one, from 0.
      stuck_after: seconds without an array or a value from or to the other processes
        after which the run ends; more than any compilation or rollout takes.

    Raises:
      ValueError: `stuck_after` is not above 0, or JAX cannot find an argument.
    """
    if not stuck_after > 0:
        raise ValueError(f"stuck_after must be above 0 seconds, got {stuck_after:g}")
    # It would take SIGTERM away from `GracefulInterrupt`, and from everything before.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(coordinator_address, num_processes, process_id)
    MOVES.add()
    watch = _Watch(stuck_after)
    if count() > 1:
        watch.start()
    try:
        yield
        exchange("end", None)  # nobody leaves while another is at work
    except BaseException as error:
        watch.left.set()
        if count() == 1:
            raise
        _leave(error)
    finally:
        watch.left.set()


def leave_together(said: str, status: int) -> NoReturn:
    """Ends this process where it is, and the others of its run with the same status.

    Args:
      said: what the others print.
      status: of all.
    """
    if count() > 1:
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            told = json.dumps([said, status])
            store().key_value_set(f"{_LEAVES}{index()}", told, allow_overwrite=True)
        _exit(status)
    os._exit(status)


def _follow() -> None:
    """Ends this process if another one has left for all."""
    for number, told in _values(_LEAVES).items():
        if number != index():
            said, status = json.loads(told)
            print(f"\n{said}", file=sys.stderr, flush=True)
            _exit(status)


def _leave(error: BaseException) -> NoReturn:
    """Tells the others of an error and ends the process."""
    said = f"{type(error).__name__}: {error}"
    status = 130 if isinstance(error, KeyboardInterrupt) else 1
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0 is gone
        _follow()
        # XLA's errors begin with a status. That of a lost peer does not name it.
        if re.match("[A-Z_]{5,}: ", str(error)) and (other := _lost()):
            _stop(other, status)
        store().key_value_set(f"{_FAILED}{index()}", said, allow_overwrite=True)
    if not isinstance(error, (ValueError, ImportError, OSError, KeyboardInterrupt)):
        traceback.print_exception(error)
    _stop(str(error) or type(error).__name__, status)


def _lost() -> str | None:
    """What the others say of a process that has failed, died or is stuck, if any is."""
    before = _values(_PLACES)
    time.sleep(3 * _PERIOD)
    now, failed = _values(_PLACES), _values(_FAILED)
    for said in _values(_STUCK).values():
        return said
    for number in range(count()):
        if number in failed:
            return f"process {number} failed: {failed[number]}"
        if number != index() and now.get(number) == before.get(number):
            return f"process {number} has died"
    return None


class _Watch(threading.Thread):
    """Looks, until this process leaves, whether the run must end."""

    def __init__(self, stuck_after: float) -> None:
        super().__init__(daemon=True)  # it must not keep a process alive
        self.left = threading.Event()
        self._stuck_after = stuck_after
        self._signs: dict[int, tuple[str | None, float]] = {}  # place, since when

    def run(self) -> None:
        """Looks every few seconds."""
        period = min(_PERIOD, self._stuck_after / 4)
        while not self.left.is_set():
            try:
                _follow()
                said = self._look()
            except jax.errors.JaxRuntimeError as error:
                said = f"process 0, which leads the others, does not answer: {error}"
            if said is not None and not self.left.is_set():
                _stop(said)
            self.left.wait(period)

    def _look(self) -> str | None:
        """Why the run must end."""
        here = json.dumps([MOVES.count, MOVES.still(), place()])
        store().key_value_set(f"{_PLACES}{index()}", here, allow_overwrite=True)
        for number, said in _values(_FAILED).items():
            return f"process {number} failed: {said}"
        stuck = MOVES.still() > self._stuck_after
        places = _values(_PLACES) if stuck or index() == 0 else {}
        if index() == 0 and (silent := self._silent(places)) is not None:
            said = f"no sign of life for {_SILENT:g} seconds"
            store().key_value_set(f"{_FAILED}{silent}", said)
            return f"process {silent} failed: {said}"
        for said in _values(_STUCK).values():
            return said
        if not stuck:
            return None
        said = stuck_message(places, self._stuck_after)
        # For a process whose collective breaks off because this one ends.
        store().key_value_set(f"{_STUCK}{index()}", said)
        return said

    def _silent(self, places: dict[int, str]) -> int | None:
        now = time.monotonic()
        for number in range(count()):
            text, since = self._signs.get(number, (None, now))
            if places.get(number) != text or number not in self._signs:
                self._signs[number] = (places.get(number), now)
            elif now - since > _SILENT:
                return number
        return None


def _values(folder: str) -> dict[int, str]:
    found = store().key_value_dir_get(folder)
    return {int(key.rpartition("/")[2]): value for key, value in sorted(found)}


def stuck_message(places: dict[int, str], stuck_after: float) -> str:
    """What a run that is stuck says: who is behind, and where everybody is.

    Args:
      places: of each process, in JSON: number of its moves, seconds since the last one,
        its place in the program.
      stuck_after: the limit in seconds.

    >>> places = {0: '[7, 9.0, "fetch"]', 1: '[6, 9.5, "parity"]'}
    >>> stuck_message(places, 8)
    'process 1 has been stuck for 8 seconds: it is in parity; process 0 is in fetch'
    """
    read = {number: json.loads(text) for number, text in places.items()}
    least = min(moves for moves, _, _ in read.values())
    behind = [number for number, (moves, _, _) in read.items() if moves == least]
    others = [number for number in read if number not in behind]
    who = f"process {behind[0]} has" if len(behind) == 1 else "all processes have"
    if len(behind) > 1 and others:
        who = f"processes {', '.join(map(str, behind))} have"
    where = [f"process {n} is in {read[n][2]}" for n in (*behind, *others)]
    if len(behind) == 1:
        where[0] = f"it is in {read[behind[0]][2]}"
    return f"{who} been stuck for {stuck_after:g} seconds: {'; '.join(where[:8])}"


def place() -> str:
    """The functions that the main thread is in, the last ones of a run's own code."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    names = []
    while frame is not None:
        path, name = Path(frame.f_code.co_filename), frame.f_code.co_name
        if not _is_dull(path):
            names.append(f"{name} ({path.name}:{frame.f_lineno})")
        frame = frame.f_back
    return " < ".join(names[:3]) or "no code of its own"


def _is_dull(path: Path) -> bool:
    """Whether a file says nothing about where a run is: a package's, or this one's."""
    library = {"site-packages", "<frozen importlib._bootstrap>"} & set(path.parts)
    package = library or Path(os.__file__).parent in path.parents
    own = path.parent == Path(__file__).parent and path.name != "rules.py"
    return own or bool(package and "jaxrl_reason" not in path.parts)


def _stop(said: str, status: int = 1) -> NoReturn:
    print(f"error: {said}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    _exit(status)


def _exit(status: int) -> NoReturn:
    if index() == 0:  # its store is what the others read
        time.sleep(2 * _PERIOD)
    os._exit(status)
