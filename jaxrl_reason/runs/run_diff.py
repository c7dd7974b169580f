"""Where two runs part: the first row, sample or array that is not the same bits."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxrl_reason.runs.checkpoint_files import (
    HOST_ARRAYS,
    STATE,
    load_arrays,
    named_leaves,
)
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.manifest import differences
from jaxrl_reason.runs.metrics_log import read_metrics


@dataclass(frozen=True)
class Parting:
    """The first difference of one kind.

    Attributes:
      step: at which it is.
      where: the file or folder, as both runs call it.
      lines: the names that differ, with both values.
    """

    step: int
    where: str
    lines: list[str]


def diff_runs(first: str | Path, second: str | Path) -> list[Parting]:
    """The first difference in each file that both runs have, earliest first.

    Rows are compared up to the last step that both have, without what a clock says;
    then samples, then the arrays of checkpoints of the same step.

    Args:
      first: the folder of a run.
      second: the folder of another.

    Returns:
      Nothing if the runs are the same as far as both go; of one step, rows before
      samples before checkpoints.

    Raises:
      ValueError: a folder has no run, or a file cannot be read.
    """
    a, b = Path(first), Path(second)
    for folder in (a, b):
        if not (folder / "config.json").is_file():
            raise ValueError(f"a run must have a config.json, got none in {folder}")
    found = [*_rows(a, b), *_samples(a, b), *_checkpoints(a, b)]
    return sorted(found, key=lambda parting: parting.step)


def differing_settings(first: str | Path, second: str | Path) -> list[str]:
    """Settings that are not the same in two runs, with both values."""
    a, b = (
        json.loads((Path(folder) / "config.json").read_text("utf-8"))["settings"]
        for folder in (first, second)
    )
    lines = differences(a, b, names=("A", "B"))
    own = ("run_dir", "resume", "resume_step", "name", "trackers", "tracker_project")
    return [line for line in lines if line.partition(":")[0] not in own]


def differing_metrics(
    first: Mapping[str, float], second: Mapping[str, float]
) -> list[str]:
    """Names of two rows whose values are not the same bits, with both values.

    Args:
      first: a row.
      second: another; what a clock says is left out of both.

    Example:
      >>> differing_metrics({"step": 1, "time/step_s": 1.0}, {"step": 1, "a": 0.5})
      ['a: A absent, B 0.5']
    """
    lines = []
    for name in sorted({*first, *second}):
        if name.startswith("time/") or name.endswith("_per_s"):
            continue
        values = [row.get(name) for row in (first, second)]
        if values[0] != values[1] and not all(map(_is_nan, values)):
            shown = ["absent" if x is None else repr(x) for x in values]
            lines.append(f"{name}: A {shown[0]}, B {shown[1]}")
    return lines


def differing_arrays(
    first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]
) -> list[str]:
    """Names of arrays that are not the same bits, with their largest difference.

    Args:
      first: arrays by name.
      second: others.
    """
    lines = []
    for name in sorted({*first, *second}):
        a, b = first.get(name), second.get(name)
        if a is None or b is None:
            lines.append(f"{name}: only in {'B' if a is None else 'A'}")
        elif a.shape != b.shape or a.dtype != b.dtype:
            lines.append(f"{name}: A {a.dtype}{[*a.shape]}, B {b.dtype}{[*b.shape]}")
        elif apart := int((_bits(a) != _bits(b)).any(axis=1).sum()):
            with np.errstate(all="ignore"):
                most = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
            lines.append(f"{name}: {apart} of {a.size} elements, by up to {most:.3g}")
    return lines


def checkpoint_arrays(folder: CheckpointFolder, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint on the host, by the names of its manifest.

    Args:
      folder: of the checkpoints.
      step: one of them.

    Raises:
      ValueError: it is damaged; the message names the file.
    """
    if damage := folder.damage(step):
        raise ValueError(f"checkpoint {step} in {folder.path} is damaged: {damage[0]}")
    path = folder.folder(step)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        described = checkpointer.metadata(path / STATE).item_metadata.tree
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), described
        )
        tree = checkpointer.restore(
            path / STATE, args=ocp.args.PyTreeRestore(restore_args=as_numpy)
        )
    host = load_arrays(path / HOST_ARRAYS)
    return named_arrays(tree) | {f"arrays/{name}": x for name, x in host.items()}


def named_arrays(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by the way to them, on the host."""
    return {name: np.asarray(x) for name, x in named_leaves(jax.device_get(tree))}


def _bits(array: np.ndarray) -> np.ndarray:
    """[n, bytes of an element] uint8."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).reshape(flat.size, array.dtype.itemsize)


def _is_nan(value: float | None) -> bool:
    return value is not None and math.isnan(value)


def _rows(a: Path, b: Path) -> Iterator[Parting]:
    for path in sorted(a.glob("*.jsonl")):
        name = path.name
        if ".dropped" in name or not (b / name).is_file():
            continue
        rows = [
            {int(row["step"]): row for row in read_metrics(x / name)} for x in (a, b)
        ]
        last = min(max(own, default=0) for own in rows)
        for step in sorted({*rows[0], *rows[1]}):
            if step > last:
                break
            lines = differing_metrics(rows[0].get(step, {}), rows[1].get(step, {}))
            if lines:
                yield Parting(step, name, lines)
                break


def _samples(a: Path, b: Path) -> Iterator[Parting]:
    for path in sorted((a / "samples").glob("*.jsonl")):
        other = b / "samples" / path.name
        if not other.is_file():
            continue
        pages = [x.read_text("utf-8").splitlines() for x in (path, other)]
        lines = [] if len(pages[0]) == len(pages[1]) else ["another number of samples"]
        for number, (left, right) in enumerate(zip(*pages, strict=False), start=1):
            found = differences(json.loads(left), json.loads(right), names=("A", "B"))
            lines += [f"sample {number}, {line:.200}" for line in found]
        if lines:
            yield Parting(int(path.name[:8]), f"samples/{path.name}", lines)
            return


def _checkpoints(a: Path, b: Path) -> Iterator[Parting]:
    for folder in sorted(a.glob("checkpoints/*/")):
        both = [
            CheckpointFolder(x / "checkpoints" / folder.name, read_only=True)
            for x in (a, b)
        ]
        for step in sorted({*both[0].steps()} & {*both[1].steps()}):
            lines = differing_arrays(*(checkpoint_arrays(x, step) for x in both))
            if lines:
                yield Parting(step, f"checkpoints/{folder.name}/{step:08d}", lines)
                break
