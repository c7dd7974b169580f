"""One checkpoint: what it holds, its host arrays, and how it is being written."""

import contextlib
import io
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxrl_reason.sharding.agreement import exchange, on_main
from jaxrl_reason.sharding.processes import count

HOST_ARRAYS, EXTRA, STATE = "arrays.npz", "extra.json", "state"


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

    @contextlib.contextmanager
    def in_form(self) -> Iterator[None]:
        """A block that reads what a loop saved: what is not there is damage.

        Raises:
          CheckpointError: a name that the block reads is not there, or of another kind.
        """
        try:
            yield
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"the checkpoint of step {self.step} must be as this loop saves it, "
                f"got {type(error).__name__}: {error}"
            ) from error


class Writing:
    """A checkpoint that is being written: orbax writes arrays, then `finish` commits.

    Orbax has copied what it writes when this is made: updates may then donate it.

    Args:
      checkpointer: has been told to save.
      finish: writes the rest and moves the folder into place; runs on process 0.
      background: in a thread, while training goes on.
    """

    def __init__(
        self,
        checkpointer: ocp.AsyncCheckpointer,
        finish: Callable[[], None],
        *,
        background: bool,
    ) -> None:
        self._checkpointer, self._finish = checkpointer, finish
        self._error: BaseException | None = None
        # Processes meet in their main threads only, where they are at the same place.
        self._finishes_alone = count() == 1
        self._thread = threading.Thread(target=self._write, name="checkpoint")
        if background:
            self._thread.start()
        else:
            self._write()

    def is_written(self) -> bool:
        """Whether `wait` would not wait, on any process."""
        return all(exchange("checkpoint", not self._thread.is_alive()))

    def wait(self) -> None:
        """Returns when the checkpoint is in place; raises what went wrong."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        if not self._finishes_alone:
            on_main("end of a checkpoint", self._finish)

    def _write(self) -> None:
        try:
            with self._checkpointer as checkpointer:
                checkpointer.wait_until_finished()
            if self._finishes_alone:
                self._finish()
        except BaseException as error:  # raised where somebody waits
            self._error = error


def is_there(checkpoint: Path) -> bool:
    """Whether there is a folder, or a link to one that may be gone."""
    return checkpoint.is_symlink() or checkpoint.exists()


def remove(checkpoint: Path) -> None:
    """Deletes a checkpoint, or a link to one on another disk, if there is one."""
    if checkpoint.is_symlink() or checkpoint.is_file():
        checkpoint.unlink()
    elif checkpoint.exists():
        shutil.rmtree(checkpoint)


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes host arrays by name.

    Raises:
      ValueError: one is not of numbers.
    """
    # As numpy.savez does, which cannot store an array called "file".
    with path.open("wb") as whole, zipfile.ZipFile(whole, "w") as archive:
        for name, given in arrays.items():
            array = np.asarray(given)
            if array.dtype.kind not in "biufc":
                raise ValueError(
                    f"host arrays must be numbers or booleans that npz can hold, got "
                    f"{name} of {array.dtype}"
                )
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `save_arrays` wrote.

    Raises:
      ValueError: it is not of that form.
      OSError: it cannot be read.
    """
    try:
        whole = io.BytesIO(path.read_bytes())
        with np.load(whole, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, AttributeError) as error:
        raise ValueError(f"not an archive of arrays ({error})") from error


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a tree, each with the way to it.

    Example:
      >>> named_leaves({"policy": {"step": 3}})
      [('policy/step', 3)]
    """
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]


def describe(tree: Any) -> dict[str, str]:
    """Maps every array's path to its dtype and shape, as text.

    Raises:
      ValueError: there is none, or something else than an array.
    """
    described = {}
    for name, leaf in named_leaves(tree):
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            raise ValueError(f"the state must be arrays only, got {name} = {leaf!r}")
        described[name] = f"{leaf.dtype}{list(leaf.shape)}"
    if not described:
        raise ValueError("the state must hold at least one array, got none")
    return described


def with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    """An abstract array with its sharding, or on the first device."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
