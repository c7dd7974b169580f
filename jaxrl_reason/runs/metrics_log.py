"""A run's metrics: one JSON object per step, TensorBoard and trackers.

The loop keeps metrics as (total, count) pairs, because pairs add up over micro-batches,
devices and updates while means do not. They are divided once, here, on the host.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxrl_reason.runs.event_file import EventFile
from jaxrl_reason.runs.files import append
from jaxrl_reason.runs.trackers import Trackers
from jaxrl_reason.sharding.processes import is_main

Row = dict[str, float]
Pairs = Mapping[str, tuple[ArrayLike, ArrayLike]]

# JSON has no nan or inf: their names are stored under this key of the row.
NON_FINITE_KEY = "non_finite"


def add_metrics(first: Pairs, second: Pairs) -> dict[str, tuple[Any, Any]]:
    """Adds (total, count) pairs of the same name.

    A name on only one side is copied.

    Args:
      first: name -> (total, count), scalars.
      second: the same, with the same or other names.

    Returns:
      name -> (total, count).

    >>> add_metrics({"entropy": (2.0, 4.0)}, {"entropy": (1.0, 2.0)})
    {'entropy': (3.0, 6.0)}
    """
    merged: dict[str, tuple[Any, Any]] = dict(first)
    for name, (total, count) in second.items():
        if name in merged:
            total, count = merged[name][0] + total, merged[name][1] + count
        merged[name] = (total, count)
    return merged


def finish_metrics(metrics: Pairs, group: str = "") -> Row:
    """Divides (total, count) pairs once, on the host, and adds the group's name.

    A count of 0 means that nothing was measured: the name is left out instead of being
    reported as 0 or nan.

    Args:
      metrics: name -> (total, count), scalars.
      group: "policy" or "critic" for example, a section in dashboards; none for names
        without a prefix. The losses' `clip_frac_low` is written as `clip_fraction_low`,
        like every other fraction of a row.

    Returns:
      "group/name" -> total / count.

    >>> finish_metrics({"entropy": (3.0, 6.0), "approx_kl_k3": (0.0, 0.0)})
    {'entropy': 0.5}
    >>> finish_metrics({"clip_frac_low": (1.0, 4.0)}, "policy")
    {'policy/clip_fraction_low': 0.25}
    """
    prefix = f"{group}/" if group else ""
    on_host = jax.device_get(dict(metrics))  # one transfer for all of them
    return {
        prefix + name.replace("_frac_", "_fraction_"): float(total) / float(count)
        for name, (total, count) in on_host.items()
        if float(count) != 0.0
    }


class PhaseTimer:
    """Adds up the wall seconds of named phases.

    JAX returns before the device has finished: a phase should end by waiting for its
    result (`jax.block_until_ready`), or its time counts in the next phase.

    >>> timer = PhaseTimer()
    >>> with timer("rollout"):
    ...     pass
    >>> list(timer.take())
    ['time/rollout_s']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        """Times the block; blocks with the same name add up, also if one fails."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(phase, time.perf_counter() - start)

    def add(self, phase: str, seconds: float) -> None:
        """Adds seconds that were measured elsewhere, such as in another thread.

        Args:
          phase: its name.
          seconds: of wall time.
        """
        self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds

    def take(self) -> dict[str, float]:
        """Returns `time/<phase>_s` of every phase and resets them to zero."""
        row = {f"time/{phase}_s": spent for phase, spent in self.seconds.items()}
        self.seconds = {}
        return row


class MetricsLog:
    """Appends one row per step to `<run_dir>/<name>.jsonl`, TensorBoard and trackers.

    A row is on disk when `write` returns, so that a killed run keeps every finished
    step. A partial last line is removed when the file is opened again. Steps must
    increase: a run that goes back to an earlier step calls `truncate_after` first.

    Args:
      run_dir: folder of the run; created if missing.
      tensorboard: also write TensorBoard events to `<run_dir>/tensorboard/<name>`.
      name: file name without the extension; the supervised stage, for example, has
        another name for its rows.
      trackers: also get every row, as stage `name`; not closed here.
    """

    def __init__(
        self,
        run_dir: str | Path,
        tensorboard: bool = True,
        name: str = "metrics",
        trackers: Trackers | None = None,
    ) -> None:
        self._name, self._trackers = name, trackers
        self.path = Path(run_dir) / f"{name}.jsonl"
        self.last_step: int | None = None
        self._tensorboard: EventFile | None = None
        self._file: Any = None
        if not is_main():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        last = _repair(self.path)
        self.last_step = None if last is None else int(last["step"])
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        if tensorboard:
            # The last row again: a kill may have come before TensorBoard had it.
            folder = Path(run_dir) / "tensorboard" / name
            self._tensorboard = EventFile(folder, self.last_step or 0)
            if last is not None:
                again = {name: x for name, x in last.items() if name != "step"}
                self._tensorboard.write(int(last["step"]), again)

    def write(self, step: int, row: Mapping[str, ArrayLike]) -> None:
        """Appends a row, which is on disk when this returns.

        Args:
          step: greater than every earlier step.
          row: name -> number. nan and inf are allowed.

        Raises:
          ValueError: the step does not increase, or a value is not a single number.
          OSError: the row cannot be written, and is not; or the file was deleted.
        """
        step = int(step)
        if self.last_step is not None and step <= self.last_step:
            raise ValueError(
                f"steps of {self.path} must rise: the last row has step "
                f"{self.last_step}, got {step} (truncate_after goes back)"
            )
        values = {name: _number(name, value) for name, value in row.items()}
        if self._file is None:
            return
        line = _encode({"step": step, **values}) + "\n"
        append(self.path, self._file, line.encode())
        os.fsync(self._file.fileno())
        self.last_step = step
        if self._tensorboard is not None:
            self._tensorboard.write(step, values)
        if self._trackers is not None:
            self._trackers.log(step, values, self._name)

    def close(self) -> None:
        """Closes the files. May be called twice."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_metrics(path: str | Path) -> list[Row]:
    """Reads the rows of a metrics file, oldest first.

    A partial last line is skipped. nan and inf are restored.

    Args:
      path: a `metrics.jsonl`; a missing file has no rows.

    Returns:
      The rows, each with its "step".

    Raises:
      ValueError: a line before the last is not a row.
    """
    path = Path(path)
    if not path.exists():
        return []
    return _parse(path.read_bytes(), path)[0]


def truncate_after(path: str | Path, step: int) -> int:
    """Removes the rows after a step from a metrics file, for a resumed run.

    They are not lost: they are appended to `<name>.dropped.jsonl` in the same folder.
    The file is replaced atomically, so a kill leaves the old file or the new one.

    Args:
      path: a `metrics.jsonl`; may be missing.
      step: the last step to keep.

    Returns:
      The number of removed rows.
    """
    path = Path(path)
    rows = read_metrics(path) if is_main() else []
    dropped = [row for row in rows if row["step"] > step]
    if not dropped:
        return 0
    beside = path.with_name(f"{path.stem}.dropped{path.suffix}")
    _repair(beside)
    with open(beside, "ab", buffering=0) as side:
        lines = b"".join(_encode(row).encode() + b"\n" for row in dropped)
        append(beside, side, lines)
        os.fsync(side.fileno())
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as new:
        kept = rows[: len(rows) - len(dropped)]
        new.write(b"".join(_encode(row).encode() + b"\n" for row in kept))
        new.flush()
        os.fsync(new.fileno())
    os.replace(temporary, path)
    return len(dropped)


def _number(name: str, value: Any) -> float:
    if name in ("step", NON_FINITE_KEY):
        raise ValueError(f"a metric must not be called {name!r}: the row uses it")
    if type(value) is int:
        return value
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind in "OUSc":
        raise ValueError(
            f"a metric must be one number, got {name} = {value!r} "
            f"(shape {array.shape}, {array.dtype})"
        )
    number = array.reshape(()).item()
    return number if type(number) is int else float(number)


def _encode(row: Mapping[str, float]) -> str:
    odd = {name: str(value) for name, value in row.items() if not math.isfinite(value)}
    clean: dict[str, Any] = {k: None if k in odd else v for k, v in row.items()}
    if odd:
        clean[NON_FINITE_KEY] = odd
    return json.dumps(clean, allow_nan=False)


def _decode(line: bytes) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict) or "step" not in row:
        raise ValueError("not a row")
    odd = row.pop(NON_FINITE_KEY, {})
    return {**row, **{name: float(value) for name, value in odd.items()}}


def _parse(data: bytes, path: Path) -> tuple[list[Row], int]:
    """The rows, and the number of bytes of the file that they fill."""
    rows: list[Row] = []
    size = 0
    lines: Iterable[bytes] = data.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("torn")
            rows.append(_decode(line))
        except ValueError as error:
            if size + len(line) < len(data):  # not the last line, so not from a kill
                raise ValueError(
                    f"{path}, line {number} is not a row of metrics: {line[:60]!r}"
                ) from error
            break
        size += len(line)
    return rows, size


def _repair(path: Path) -> Row | None:
    """Removes a partial last line and returns the last complete row."""
    if not path.exists():
        return None
    data = path.read_bytes()
    rows, size = _parse(data, path)
    if size < len(data):
        with open(path, "r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
    return rows[-1] if rows else None
