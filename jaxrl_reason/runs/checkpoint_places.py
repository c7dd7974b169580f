"""Where checkpoints are and how they come, go and move there: by renames.

A folder whose name is a step is a checkpoint. It gets that name when all of it is on
the disk, and loses it before any of it goes.
"""

import os
from pathlib import Path

from jaxrl_reason.runs.checkpoint_files import CheckpointError, is_there, remove
from jaxrl_reason.runs.files import fsync_folder, fsync_tree


class CheckpointPlaces:
    """The folders of checkpoints in a folder of a file system.

    Args:
      path: of all of them; created at the first save.
      read_only: another run is writing there; nothing is moved.
    """

    def __init__(self, path: Path, *, read_only: bool) -> None:
        self.path, self.read_only = path, read_only

    def of(self, step: int) -> Path:
        """The folder of a step, whether or not there is one."""
        return self.path / f"{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending.

        Raises:
          CheckpointError: the path is a link to a folder that is not there.
        """
        if self.path.is_symlink() and not self.path.exists():
            # A disk that is not mounted: a run must not start again beside it.
            target = self.path.readlink()
            raise CheckpointError(
                f"{self.path} is a link to {target}, which is not there"
            )
        if not self.path.is_dir():
            return []
        # Undo the first of the two moves of `commit` if it was killed between them.
        for old in () if self.read_only else self.path.glob(".old-*"):
            folder = self.path / old.name.removeprefix(".old-")
            if not is_there(folder):
                os.rename(old, folder)
        # Also a file or a link to nothing in the place of one, which is damage.
        names = [entry.name for entry in self.path.iterdir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def link_to_nothing(self, step: int) -> str | None:
        """What is wrong with a checkpoint that is such a link; None for any other."""
        folder = self.of(step)
        if not folder.is_symlink() or folder.exists():
            return None
        return f"{folder.name}: a link to {folder.readlink()}, which is not there"

    def writes_to(self, step: int) -> Path:
        """The folder to write a checkpoint in, from `begin` to `commit`."""
        return self.path / f".tmp-{step:08d}"

    def begin(self, step: int) -> None:
        """Makes that folder."""
        self.clean()
        self.writes_to(step).mkdir(parents=True)

    def commit(self, step: int) -> None:
        """Makes what was written since `begin` the checkpoint of the step."""
        temporary, folder = self.writes_to(step), self.of(step)
        fsync_tree(temporary)
        old = self.path / f".old-{step:08d}"
        if is_there(folder):
            os.rename(folder, old)
        os.rename(temporary, folder)
        fsync_folder(self.path)
        remove(old)

    def delete(self, step: int) -> None:
        """Deletes a checkpoint."""
        # Renamed first: a kill during the deletion must not leave half of it.
        going = self.path / f".tmp-{step:08d}-old"
        os.rename(self.of(step), going)
        remove(going)

    def move(self, step: int, group: str, *, replace: bool = False) -> Path:
        """Moves a checkpoint to a folder beside the others, where it does not count.

        Args:
          step: of the checkpoint.
          group: name of that folder.
          replace: what is there of the same step; otherwise this one gets a number.

        Returns:
          Its new place.
        """
        folder = self.of(step)
        target, number = self.path / group / folder.name, 1
        target.parent.mkdir(exist_ok=True)
        if replace:
            remove(target)
        while is_there(target):  # the run has been here before
            number += 1
            target = target.with_name(f"{folder.name}-{number}")
        os.rename(folder, target)
        fsync_folder(self.path)
        return target

    def clean(self) -> None:
        """Removes what saves left that were killed."""
        self.steps()  # undoes a move that was interrupted
        if self.path.is_dir():
            for pattern in (".tmp-*", ".old-*"):
                for leftover in self.path.glob(pattern):
                    remove(leftover)
