"""Checkpoints that are complete or absent, and that detect damaged files.

Orbax writes and reads the arrays. It restores a file with a flipped bit without an
error, so a manifest records every file's size and SHA-256 and is checked first.

    <path>/00000020/state/         arrays, written by orbax
                    arrays.npz     host arrays (surplus rollouts, for example)
                    extra.json     state of the loop (data iterator, counters)
                    manifest.json  files, tree of arrays, settings, versions
"""

import contextlib
import json
import math
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxrl_reason.runs import manifest
from jaxrl_reason.runs.checkpoint_bucket import BucketPlaces, is_remote
from jaxrl_reason.runs.checkpoint_files import (
    EXTRA,
    HOST_ARRAYS,
    STATE,
    CheckpointError,
    Restored,
    Writing,
    describe,
    load_arrays,
    save_arrays,
    with_sharding,
)
from jaxrl_reason.runs.checkpoint_places import CheckpointPlaces
from jaxrl_reason.runs.monitor import versions
from jaxrl_reason.sharding.agreement import on_main

# Seconds in which Orbax must have written a checkpoint.
_TIMEOUT = 24 * 3600


class CheckpointFolder:
    """Saves and restores the state of a run, one folder per step.

    One run writes; others may read at the same time. All processes of a run save and
    restore together, in a folder that all of them see: each writes the arrays of its
    own devices, process 0 everything else.

    Args:
      path: folder of the checkpoints; created at the first save. An address such as
        gs://bucket/run is one in object storage (docs/preemption.md).
      keep: how many of the newest checkpoints are kept.
      keep_best: how many with the highest scores are kept besides.
      background: a save returns when the state is copied from the devices; a thread
        writes it while training goes on, and the next save waits for it.
      read_only: of another run, in which nothing is moved.

    Raises:
      ValueError: keep is below 1 or keep_best below 0.
    """

    def __init__(
        self,
        path: str | Path,
        keep: int = 3,
        *,
        keep_best: int = 0,
        background: bool = False,
        read_only: bool = False,
    ) -> None:
        if keep < 1:
            raise ValueError(f"keep must be >= 1, got {keep}")
        if keep_best < 0:
            raise ValueError(f"keep_best must be >= 0, got {keep_best}")
        self._places: CheckpointPlaces | BucketPlaces
        if is_remote(path):
            self._places = BucketPlaces(path, read_only=read_only)
        else:
            here = Path(path).absolute()
            self._places = CheckpointPlaces(here, read_only=read_only)
        self.path = self._places.path
        self.keep, self.keep_best = keep, keep_best
        self.background, self.read_only = background, read_only
        self._writing: Writing | None = None
        self._saved_at = time.monotonic()
        self._best: float | None = None  # the highest score, once it was asked for
        self._intact: int | None = None  # a step whose files have been checked
        # A signal may save in another thread (interrupt.py). What runs in the thread
        # that writes never takes it.
        self._lock = threading.RLock()

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending; does not read their files.

        Raises:
          CheckpointError: the folder is a link to one that is not there.
        """
        with self._lock:
            self.wait()
            return on_main("checkpoints", self._places.steps)

    def folder(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self._places.of(step)

    def wait(self) -> None:
        """Returns when no checkpoint is being written; raises what went wrong."""
        with self._lock:
            writing, self._writing = self._writing, None
            if writing is not None:
                writing.wait()

    def poll(self) -> None:
        """Raises what went wrong with a checkpoint that is no longer being written.

        With several processes it is this that moves it into place: call it every step.
        """
        writing = self._writing
        if writing is not None and writing.is_written():
            self.wait()

    def save(
        self,
        step: int,
        state: Any,
        extra: Mapping[str, Any] | None = None,
        fingerprint: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        score: float | None = None,
    ) -> Path:
        """Saves a checkpoint; it is on disk when this returns, or `wait` does.

        It is written to a temporary folder, the manifest last, and moved into place, so
        a kill leaves all of it or nothing. A checkpoint of the same step is replaced;
        those that are neither among the newest nor among the best are deleted.

        Args:
          step: updates or iterations done, >= 0.
          state: tree of arrays, on one device or sharded over many.
          extra: JSON object with the rest of the loop's state (tuples become lists).
          fingerprint: JSON object with the settings that a restore must match.
          arrays: name -> host array, for what does not belong in JSON.
          score: by which the best are kept, the highest first.

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
            "tree": describe(state),
            "versions": versions(),
        }
        if score is not None and math.isfinite(score):
            contents["score"] = float(score)
            self._best = None if self._best is None else max(self._best, score)
        extra_text = json.dumps(manifest.as_json("extra", extra or {}), indent=1)

        # Each process writes there; it does not depend on what it is.
        temporary = self._places.writes_to(step)

        def begin() -> None:
            self._places.begin(step)
            save_arrays(temporary / HOST_ARRAYS, arrays or {})
            (temporary / EXTRA).write_text(extra_text, encoding="utf-8")

        def finish() -> None:
            manifest.write(temporary, contents)
            self._places.commit(step)
            self._prune(step)

        with self._lock:
            self.wait()
            on_main("begin of a checkpoint", begin)
            handler = ocp.StandardCheckpointHandler()
            checkpointer = ocp.AsyncCheckpointer(handler, timeout_secs=_TIMEOUT)
            checkpointer.save(temporary / STATE, args=ocp.args.StandardSave(state))
            self._writing = Writing(checkpointer, finish, background=self.background)
            self._saved_at = time.monotonic()
            if not self.background:
                self.wait()
        return self._places.of(step)

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
            known = chosen == self._intact
            if damage := [] if known else self.damage(chosen):
                raise CheckpointError(self._damage_message(chosen, damage))
            self._compare("arrays", chosen, saved["tree"], describe(abstract_state))
            return chosen

        self.wait()
        chosen = on_main("check of a checkpoint", check)
        folder = self._places.of(chosen)
        target = jax.tree.map(with_sharding, abstract_state)
        file = EXTRA
        try:
            extra = manifest.read_damaged_json(folder / EXTRA)
            file = HOST_ARRAYS
            arrays = load_arrays(folder / HOST_ARRAYS)
            file = STATE
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
                state = checkpointer.restore(
                    folder / STATE, args=ocp.args.StandardRestore(target)
                )
        except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
            # What was written with the manifest of a whole checkpoint, but not here.
            message = self._damage_message(chosen, [f"{file}: {error}"])
            raise CheckpointError(message) from error
        return Restored(state, extra, arrays, chosen)

    def fingerprint(self, step: int | None = None) -> dict[str, Any]:
        """The settings of a checkpoint (of the newest if step is None)."""
        self.wait()
        return on_main(
            "settings of a checkpoint",
            lambda: dict(self._manifest(self._choose(step))["fingerprint"]),
        )

    def is_best(self, score: float) -> bool:
        """Whether a score is above those of all checkpoints, and such ones are kept."""
        if not self.keep_best:
            return False
        if self._best is None:
            steps = self.steps()
            found = on_main("scores", lambda: list(self._scores(steps).values()))
            self._best = max(found, default=-math.inf)
        return score > self._best

    def seconds_since_save(self) -> float:
        """Since the last save of this process, or since it opened the folder."""
        return time.monotonic() - self._saved_at

    def _scores(self, steps: list[int]) -> dict[int, float]:
        scores = {}
        for step in steps:
            with contextlib.suppress(OSError, ValueError):  # damaged
                found = manifest.read(self._places.of(step), step).get("score")
                if found is not None:
                    scores[step] = found
        return scores

    def damage(self, step: int) -> list[str]:
        """Reads every file of a checkpoint and reports what is wrong with it.

        Args:
          step: a step of `steps()`.

        Returns:
          One line per fault, starting with the file's name; empty if it is intact.
        """
        gone = self._places.link_to_nothing(step)
        if gone is not None:
            return [gone]
        return manifest.find_damage(self._places.of(step), step)

    def newest_intact(self, before: int | None = None) -> int | None:
        """The newest undamaged step (below `before` if given), or None."""
        for step in reversed(self._places.steps()):
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
            self._places.clean()
            moved = [found for found in self._places.steps() if found > step]
            for found in moved:
                self._places.move(found, "dropped", replace=True)
            return moved

        self.wait()
        return on_main("move of later checkpoints", move)

    def set_aside_damaged(self) -> list[str]:
        """Moves damaged checkpoints after the newest intact one to `<path>/damaged/`.

        Returns:
          One sentence for each: what was wrong with it, and where it is now.
        """

        def move() -> list[str]:
            self._places.clean()
            told = []
            for step in reversed(self._places.steps()):
                damage = self.damage(step)
                if not damage:
                    self._intact = step
                    break
                place = self._places.move(step, "damaged")
                what = f"checkpoint {self._places.of(step)} is damaged"
                told.append(f"{what} ({_shown(damage)}) and now in {place}")
            return told

        self.wait()
        return on_main("check of checkpoints", move)

    def _choose(self, step: int | None) -> int:
        steps = self._places.steps()
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
            return manifest.read(self._places.of(step), step)
        except (OSError, ValueError) as error:
            message = self._damage_message(step, self.damage(step))
            raise CheckpointError(message) from error

    def _damage_message(self, step: int, damage: list[str]) -> str:
        intact = self.newest_intact(before=step)
        if intact is not None:
            advice = f"the newest intact one before it: --resume-step {intact}"
        else:
            advice = "no older checkpoint is intact"
        if not self.read_only:
            advice += "; --resume auto sets damaged ones aside and goes on from " + (
                "the start of this stage" if intact is None else "that one"
            )
        folder = self._places.of(step)
        return f"checkpoint {folder} is damaged ({_shown(damage)}); {advice}"

    def _compare(self, what: str, step: int, saved: Any, asked: Any) -> None:
        differences = manifest.differences(saved, asked)
        if differences:
            place, shown = self._places.of(step), _shown(differences, 8)
            raise CheckpointError(f"checkpoint {place} has other {what}: {shown}")

    def _prune(self, current: int) -> None:
        steps = self._places.steps()
        kept = {current, *steps[-self.keep :]}
        if self.keep_best:
            scores = self._scores(steps)
            ascending = sorted(scores, key=lambda step: (scores[step], step))
            kept.update(ascending[-self.keep_best :])
        for step in steps:
            if step not in kept:
                self._places.delete(step)


def _shown(faults: list[str], most: int = 3) -> str:
    more = f"; and {len(faults) - most} more" if len(faults) > most else ""
    return "; ".join(faults[:most]) + more
