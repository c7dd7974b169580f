"""The folder of a run: its settings, its results and its other files.

runs/<name>/
    config.json      settings, versions, command, git revision, devices
    metrics.jsonl    one row per step (metrics_log.py)
    run.log          what the run said (run_log.py)
    tensorboard/     the same for TensorBoard
    samples/         prompts, answers, rewards: JSON lines and a page to read
    checkpoints/     (checkpoints.py)
    curves.png       (plots.py)
    report.json      the results, with report.md to read (run_report.py)
"""

import contextlib
import dataclasses
import datetime
import enum
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax

import jaxrl_reason
from jaxrl_reason.runs.files import atomic_write
from jaxrl_reason.runs.monitor import versions
from jaxrl_reason.sharding.agreement import on_main
from jaxrl_reason.sharding.processes import count, index, is_main


class RunFolderError(ValueError):
    """A run folder has another run, has no run, or is in use."""


class RunFolder:
    """The paths of a run, and a lock against a second process.

    Created by `open_run`. The lock is released when the process ends, in any way.

    Args:
      path: the folder, which must exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_path = self.path / "config.json"
        self.metrics_path = self.path / "metrics.jsonl"
        self.log_path = self.path / "run.log"
        self.checkpoints_path = self.path / "checkpoints"
        self.samples_path = self.path / "samples"
        self.curves_path = self.path / "curves.png"
        self.report_path = self.path / "report.json"
        self._lock: int | None = None

    def config(self) -> dict[str, Any]:
        """Reads config.json."""
        config: dict[str, Any] = json.loads(self.config_path.read_text("utf-8"))
        return config

    def lock(self) -> None:
        """Locks the folder against other processes.

        Raises:
          RunFolderError: another process has the folder.
        """
        try:
            import fcntl
        except ImportError:  # Windows: no lock
            return
        handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # Unlike flock, not inherited by forked grader processes, which may outlive
            # a killed run.
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            raise RunFolderError(
                f"run folder {self.path} is in use by process {holder or 'unknown'}"
            ) from error
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._lock = handle

    def close(self) -> None:
        """Releases the lock. May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def open_run(
    path: str | Path,
    settings: Any,
    *,
    resume: bool = False,
    argv: Sequence[str] | None = None,
) -> RunFolder:
    """Creates the folder of a new run, or opens that of a run to resume.

    A new run writes config.json. A resumed one keeps it and adds the time, the command
    and the versions to its "resumed" list.

    Args:
      path: the folder; created if missing.
      settings: dataclass or mapping; stored as nested JSON.
      resume: continue the run in the folder.
      argv: command line; this process's if None.

    Returns:
      The folder, locked against other runs. All processes of this one share it.

    Raises:
      RunFolderError: the folder is not empty without `resume`, is not a run with
      `resume`, is in use, or is not shared by all processes.
    """
    folder = RunFolder(path)
    on_main("run folder", partial(_open, folder, settings, resume, argv))
    if not is_main() and not folder.config_path.is_file():
        raise RunFolderError(
            f"run folder {folder.path} must be on a file system that all processes "
            f"share, but process {index()} does not see it"
        )
    return folder


def _open(
    folder: RunFolder, settings: Any, resume: bool, argv: Sequence[str] | None
) -> None:
    if resume and not folder.config_path.is_file():
        raise RunFolderError(
            f"nothing to resume in {folder.path}: it has no config.json; "
            "--resume auto starts a new run there"
        )
    if folder.path.exists() and not folder.path.is_dir():
        raise RunFolderError(f"run folder {folder.path} is a file")
    if not resume and folder.path.is_dir() and _has_files(folder.path):
        if not folder.config_path.is_file():
            raise RunFolderError(
                f"run folder {folder.path} is not empty and has no run (no "
                "config.json); pass another --run-dir for a new one"
            )
        raise RunFolderError(
            f"run folder {folder.path} is not empty; pass --resume must to "
            "continue the run in it, or another --run-dir for a new one"
        )
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.lock()
    now = _environment(argv)
    plain = to_plain(settings)
    if resume:
        config = folder.config()
        changed = {"settings": plain} if plain != config["settings"] else {}
        config["resumed"] = [*config.get("resumed", []), {**now, **changed}]
    else:
        config = {"name": folder.path.name, **now, "settings": plain, "resumed": []}
    atomic_write(folder.config_path, json.dumps(config, indent=2) + "\n")


def to_plain(value: Any) -> Any:
    """Turns settings into JSON values.

    Dataclasses and mappings become objects, sequences lists, functions and classes
    their names, nan and inf their names, anything else its text.

    >>> to_plain({"betas": (0.9, 0.95), "path": Path("runs/x")})
    {'betas': [0.9, 0.95], 'path': 'runs/x'}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: to_plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {str(key): to_plain(inner) for key, inner in value.items()}
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, (list, tuple)):
        return [to_plain(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted(map(to_plain, value), key=str)
    if hasattr(value, "tolist"):  # numpy and jax: numbers, arrays
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return str(value)


def git_revision() -> dict[str, Any] | None:
    """The commit of this package's checkout, or None if it is installed.

    Returns:
      {"revision": hash, "changed": whether tracked files differ from it}.
    """
    package = Path(jaxrl_reason.__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(package), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        # An environment inside another repository is not a checkout of this one.
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no")
        return {"revision": git("rev-parse", "HEAD"), "changed": bool(changed)}
    return None


def _environment(argv: Sequence[str] | None) -> dict[str, Any]:
    devices = jax.devices()
    command = list(sys.argv if argv is None else argv)
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": shlex.join(command),
        "versions": versions(),
        "git": git_revision(),
        "devices": {
            "platform": devices[0].platform,
            "kind": devices[0].device_kind,
            "count": len(devices),
            "processes": count(),
            "cpu_cores": os.cpu_count(),
        },
    }


def _has_files(folder: Path) -> bool:
    # The third is left by a start that was killed, before there was a run.
    own = (".lock", ".DS_Store", ".config.json.tmp")
    return any(entry.name not in own for entry in folder.iterdir())
