"""Checkpoints that are complete or absent, and that detect damaged files.

Orbax writes and reads the arrays. It restores a file with a flipped bit without an
error, so a manifest records every file's size and SHA-256 and is checked first.

    <path>/00000020/state/         arrays, written by orbax
                    arrays.npz     host arrays (surplus rollouts, for example)
                    extra.json     state of the loop (data iterator, counters)
                    manifest.json  files, tree of arrays, settings, versions
"""

import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxrl_reason.runs import manifest
from jaxrl_reason.runs.files import fsync_folder, fsync_tree
from jaxrl_reason.runs.monitor import versions
from jaxrl_reason.sharding.agreement import on_main


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or of another model."""


class Restored(NamedTuple):
    """The result of `CheckpointFolder.restore`.

    Attributes:
      state: tree of arrays, in the requested shardings.
      extra: the JSON object that was saved.
      arrays: name -> host array, as saved.
      step: the step of this checkpoint.
    """

    state: Any
    extra: dict[str, Any]
    arrays: dict[str, np.ndarray]
    step: int


class CheckpointFolder:
    """Saves and restores the state of a run, one folder per step.

    One run writes; others may read at the same time. All processes of a run save and
    restore together, in a folder that all of them see: each writes the arrays of its
    own devices, process 0 everything else.

    Args:
      path: folder of the checkpoints; created at the first save.
      keep: how many of the newest checkpoints are kept.

    Raises:
      ValueError: keep is below 1.
    """

    def __init__(self, path: str | Path, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep must be >= 1, got {keep}")
        self.path = Path(path).absolute()
        self.keep = keep

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending; does not read their files."""
        return on_main("checkpoints", self._steps)

    def _steps(self) -> list[int]:
        if not self.path.is_dir():
            return []
        # Undo the first of the two moves of `save` if it was killed between them.
        for old in self.path.glob(".old-*"):
            folder = self.path / old.name.removeprefix(".old-")
            if not folder.exists():
                os.rename(old, folder)
        names = [entry.name for entry in self.path.iterdir() if entry.is_dir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def save(
        self,
        step: int,
        state: Any,
        extra: Mapping[str, Any] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
    ) -> Path:
        """Saves a checkpoint; it is on disk when this returns.

        It is written to a temporary folder and moved into place, so a kill leaves all
        of it or nothing. A checkpoint of the same step is replaced; the oldest beyond
        `keep` are deleted.

        Args:
          step: updates or iterations done, >= 0.
          state: tree of arrays, on one device or sharded over many.
          extra: JSON object with the rest of the loop's state (tuples become lists).
          fingerprint: JSON object with the settings that a restore must match.
          arrays: name -> host array, for what does not belong in JSON.

        Returns:
          The checkpoint's folder.

        Raises:
          ValueError: the step is negative, or something cannot be written.
        """
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}")
        contents = {
            "step": int(step),
            "fingerprint": manifest.as_json("fingerprint", fingerprint or {}),
            "tree": _describe(state),
            "versions": versions(),
        }
        extra_text = json.dumps(manifest.as_json("extra", extra or {}), indent=1)
        temporary = self.path / f".tmp-{step:08d}"

        def begin() -> None:
            self._remove_leftovers()
            temporary.mkdir(parents=True)
            _save_arrays(temporary / "arrays.npz", arrays or {})
            (temporary / "extra.json").write_text(extra_text, encoding="utf-8")

        def finish() -> None:
            manifest.write(temporary, contents)
            fsync_tree(temporary)
            self._move_into_place(temporary, step)
            self._prune(step)

        on_main("begin of a checkpoint", begin)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(temporary / "state", args=ocp.args.StandardSave(state))
        on_main("end of a checkpoint", finish)
        return self._folder(step)

    def restore(
        self,
        abstract_state: Any,
        fingerprint: Mapping[str, Any],
        step: int | None = None,
    ) -> Restored:
        """Restores a checkpoint after checking its settings and its files.

        Args:
          abstract_state: tree of `jax.ShapeDtypeStruct` with the wanted shardings
            (none: the first device). They need not be the saved ones.
          fingerprint: settings of this run; must equal the saved ones.
          step: of the checkpoint; the newest if None.

        Returns:
          The state, the extra, the host arrays and the step.

        Raises:
          CheckpointError: there is no checkpoint, settings differ (the error names both
          values), a file is damaged (the error names it and the newest intact older
          step), or the arrays are not those requested.
        """

        def check() -> int:
            chosen = self._choose(step)
            saved = self._manifest(chosen)
            asked = manifest.as_json("fingerprint", fingerprint)
            self._compare("settings", chosen, saved["fingerprint"], asked)
            if damage := self.damage(chosen):
                raise CheckpointError(self._damage_message(chosen, damage))
            self._compare("arrays", chosen, saved["tree"], _describe(abstract_state))
            return chosen

        chosen = on_main("check of a checkpoint", check)
        folder = self._folder(chosen)
        target = jax.tree.map(_with_sharding, abstract_state)
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            state = checkpointer.restore(
                folder / "state", args=ocp.args.StandardRestore(target)
            )
        extra = json.loads((folder / "extra.json").read_text("utf-8"))
        with np.load(folder / "arrays.npz", allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return Restored(state, extra, arrays, chosen)

    def fingerprint(self, step: int | None = None) -> dict[str, Any]:
        """The settings of a checkpoint (of the newest if step is None)."""
        return on_main(
            "settings of a checkpoint",
            lambda: dict(self._manifest(self._choose(step))["fingerprint"]),
        )

    def damage(self, step: int) -> list[str]:
        """Reads every file of a checkpoint and reports what is wrong with it.

        Args:
          step: a step of `steps()`.

        Returns:
          One line per fault, starting with the file's name; empty if it is intact.
        """
        return manifest.find_damage(self._folder(step), step)

    def newest_intact(self, before: int | None = None) -> int | None:
        """The newest undamaged step (below `before` if given), or None."""
        for step in reversed(self._steps()):
            if (before is None or step < before) and not self.damage(step):
                return step
        return None

    def drop_after(self, step: int) -> list[int]:
        """Moves checkpoints after a step to `<path>/dropped/`, for a run that rewinds.

        Otherwise the next restore would use a newer one, which the run has abandoned.

        Args:
          step: the last one to keep.

        Returns:
          The moved steps.
        """

        def move() -> list[int]:
            self._remove_leftovers()
            moved = [found for found in self._steps() if found > step]
            for found in moved:
                target = self.path / "dropped" / f"{found:08d}"
                target.parent.mkdir(exist_ok=True)
                _remove(target)
                os.rename(self._folder(found), target)
            return moved

        return on_main("move of later checkpoints", move)

    def _folder(self, step: int) -> Path:
        return self.path / f"{step:08d}"

    def _choose(self, step: int | None) -> int:
        steps = self._steps()
        if not steps:
            raise CheckpointError(f"no checkpoint in {self.path}")
        if step is None:
            return steps[-1]
        if step not in steps:
            raise CheckpointError(
                f"no checkpoint of step {step} in {self.path}, there are {steps}"
            )
        return step

    def _manifest(self, step: int) -> dict[str, Any]:
        try:
            return manifest.read(self._folder(step), step)
        except (OSError, ValueError) as error:
            message = self._damage_message(step, [f"{manifest.NAME}: {error}"])
            raise CheckpointError(message) from error

    def _damage_message(self, step: int, damage: list[str]) -> str:
        shown = "; ".join(damage[:3])
        if len(damage) > 3:
            shown += f"; and {len(damage) - 3} more"
        intact = self.newest_intact(before=step)
        advice = (
            "no older checkpoint is intact"
            if intact is None
            else f"the newest intact one before it: --resume-step {intact}"
        )
        return f"checkpoint {self._folder(step)} is damaged ({shown}); {advice}"

    def _compare(self, what: str, step: int, saved: Any, asked: Any) -> None:
        differences = manifest.differences(saved, asked)
        if differences:
            more = f"; and {len(differences) - 8} more" if differences[8:] else ""
            raise CheckpointError(
                f"checkpoint {self._folder(step)} has other {what}: "
                f"{'; '.join(differences[:8])}{more}"
            )

    def _move_into_place(self, temporary: Path, step: int) -> None:
        folder = self._folder(step)
        old = self.path / f".old-{step:08d}"
        if _is_there(folder):
            os.rename(folder, old)
        os.rename(temporary, folder)
        fsync_folder(self.path)
        _remove(old)

    def _prune(self, current: int) -> None:
        for step in self._steps()[: -self.keep]:
            if step != current:
                # Renamed first: a kill during the deletion must not leave half of it.
                going = self.path / f".tmp-{step:08d}-old"
                os.rename(self._folder(step), going)
                _remove(going)

    def _remove_leftovers(self) -> None:
        self._steps()  # undoes a move that was interrupted
        if self.path.is_dir():
            for pattern in (".tmp-*", ".old-*"):
                for leftover in self.path.glob(pattern):
                    _remove(leftover)


def _is_there(checkpoint: Path) -> bool:
    """Whether there is a folder, or a link to one that may be gone."""
    return checkpoint.is_symlink() or checkpoint.exists()


def _remove(checkpoint: Path) -> None:
    """Deletes a checkpoint, or a link to one on another disk, if there is one."""
    if checkpoint.is_symlink():
        checkpoint.unlink()
    elif checkpoint.exists():
        shutil.rmtree(checkpoint)


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # As numpy.savez does, which cannot store an array called "file".
    with zipfile.ZipFile(path, "w") as archive:
        for name, given in arrays.items():
            array = np.asarray(given)
            if array.dtype.kind not in "biufc":
                raise ValueError(
                    f"host arrays must be numbers or booleans that npz can hold, got "
                    f"{name} of {array.dtype}"
                )
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _describe(tree: Any) -> dict[str, str]:
    """Maps every array's path to its dtype and shape, as text."""
    described = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ValueError(f"the state must be arrays only, got {name} = {leaf!r}")
        described[name] = f"{leaf.dtype}{list(leaf.shape)}"
    if not described:
        raise ValueError("the state must hold at least one array, got none")
    return described


def _with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
