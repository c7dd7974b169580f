"""Files that are complete or absent after a kill, and their checksums."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

from jaxrl_reason.sharding.processes import is_main


def atomic_write(path: str | Path, text: str) -> None:
    """Writes a text file atomically: readers see the old one or the new one.

    Only process 0 of a run writes.

    Args:
      path: the file; its folder must exist.
      text: its contents, written as UTF-8.
    """
    if not is_main():
        return
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError:  # a full disk
        temporary.unlink(missing_ok=True)
        raise
    os.replace(temporary, path)
    fsync_folder(path.parent)


def append(path: Path, file: io.RawIOBase, data: bytes) -> None:
    """Appends to a file of which readers know only whole pieces, such as lines.

    All of the data is in the file afterwards or, if the disk is full, nothing of it.

    Args:
      path: of the file.
      file: opened to append, without a buffer.
      data: the piece.

    Raises:
      OSError: it cannot be written, or the file is no longer at its path.
    """
    size = os.fstat(file.fileno()).st_size
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[file.write(rest) or 0 :]
    except OSError:
        os.ftruncate(file.fileno(), size)
        raise
    try:
        same = os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        same = False
    if not same:
        raise OSError(f"{path} must stay in place while it is written, but is gone")


def fsync_folder(folder: Path) -> None:
    """Flushes a folder's entries to disk (which a rename changes)."""
    if os.name == "nt":  # Windows has no folder handles and needs none
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_tree(folder: Path) -> None:
    """Flushes every file and folder under `folder`, and itself, to disk."""
    for name in list_files(folder):
        with open(folder / name, "rb+") as file:
            os.fsync(file.fileno())
    for root, _, _ in os.walk(folder, topdown=False):
        fsync_folder(Path(root))


def list_files(folder: Path) -> list[str]:
    """Paths of all files under `folder`, relative to it, with "/", sorted.

    Args:
      folder: on this machine, or in object storage as of `etils.epath`.
    """
    if "://" in str(folder):
        base = str(folder).partition("://")[2]
        return sorted(
            f"{str(root).rpartition('://')[2]}/{name}".removeprefix(f"{base}/")
            for root, _, names in folder.walk()  # type: ignore[attr-defined]
            for name in names
        )
    return sorted(
        Path(root, name).relative_to(folder).as_posix()
        for root, _, names in os.walk(folder)
        for name in names
    )


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_size(path: Path) -> int:
    """Bytes of a file, on this machine or in object storage."""
    found: Any = path.stat()
    return int(found.length if hasattr(found, "length") else found.st_size)
