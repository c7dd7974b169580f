"""Where checkpoints are in object storage, whose folders cannot be renamed.

There the manifest is what makes a checkpoint of a folder: it is written last, in one
request, and deleted first. A checkpoint that is set aside keeps its folder, with its
manifest under another name.
"""

import contextlib
from typing import Any

from etils import epath

from jaxrl_reason.runs import manifest


def is_remote(path: object) -> bool:
    """Whether a path is an address, such as gs://bucket/run.

    >>> is_remote("gs://bucket/run"), is_remote("runs/mine")
    (True, False)
    """
    return "://" in str(path)


class BucketPlaces:
    """The folders of checkpoints under an address; as `CheckpointPlaces`.

    Args:
      path: the address.
      read_only: another run is writing there; nothing is removed.
    """

    def __init__(self, path: Any, *, read_only: bool) -> None:
        self.path, self.read_only = epath.Path(path), read_only

    def of(self, step: int) -> Any:
        """The folder of a step, whether or not there is one."""
        return self.path / f"{step:08d}"

    def steps(self) -> list[int]:
        """Steps with a checkpoint, ascending."""
        found = self._folders()
        return [step for step in found if (self.of(step) / manifest.NAME).exists()]

    def link_to_nothing(self, step: int) -> str | None:
        """None: there are no links."""
        return None

    def writes_to(self, step: int) -> Any:
        """The folder to write a checkpoint in, from `begin` to `commit`."""
        return self.of(step)

    def begin(self, step: int) -> None:
        """Makes that folder, without what was there."""
        self.clean()
        self.delete(step)
        self.of(step).mkdir(parents=True, exist_ok=True)

    def commit(self, step: int) -> None:
        """Nothing more: the manifest has been written."""

    def delete(self, step: int) -> None:
        """Deletes a checkpoint, if there is one."""
        folder = self.of(step)
        (folder / manifest.NAME).unlink(missing_ok=True)
        if folder.exists():
            with contextlib.suppress(FileNotFoundError):  # no folder without objects
                folder.rmtree()

    def move(self, step: int, group: str, *, replace: bool = False) -> Any:
        """Renames a checkpoint's manifest, after which it does not count.

        Args:
          step: of the checkpoint.
          group: why; it is in the manifest's new name.
          replace: not used; a folder has one manifest.

        Returns:
          Where the manifest is now; its folder if it had none.
        """
        folder = self.of(step)
        old, new = folder / manifest.NAME, folder / f"manifest.{group}.json"
        if not old.exists():
            return folder
        new.write_bytes(old.read_bytes())
        old.unlink()
        return new

    def clean(self) -> None:
        """Removes what saves left that were killed: folders without any manifest."""
        for step in () if self.read_only else self._folders():
            if not self._has_manifest(step):
                self.delete(step)

    def _folders(self) -> list[int]:
        if not self.path.exists():
            return []
        names = [entry.name.rstrip("/") for entry in self.path.iterdir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def _has_manifest(self, step: int) -> bool:
        """Whether a checkpoint has one, under any of its names."""
        with contextlib.suppress(NotADirectoryError, FileNotFoundError):
            names = [entry.name for entry in self.of(step).iterdir()]
            return any(name.startswith("manifest.") for name in names)
        return False
