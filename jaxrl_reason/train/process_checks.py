"""Checks that all processes of a run are the same, before anything is trained.

They take the same decisions from the same data, so a difference would show as a run
that hangs, or not at all. With one process there is nothing to compare.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jaxrl_reason
from jaxrl_reason import losses, sharding
from jaxrl_reason.runs.files import file_sha256
from jaxrl_reason.runs.manifest import as_json, differences
from jaxrl_reason.runs.monitor import versions
from jaxrl_reason.runs.run_folder import to_plain
from jaxrl_reason.sharding.agreement import ProcessError, exchange
from jaxrl_reason.sharding.processes import count
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.train_settings import TrainSettings


def check_processes(settings: TrainSettings) -> None:
    """Compares versions, source files, settings and the files that these name.

    Raises:
      ProcessError: a process has others; the message says which, and what differs.
    """
    if count() == 1:
        return
    plain = to_plain(settings)
    code = {name: x for name, x in versions().items() if name != "platform"}
    check_same("code", {**code, "source": source_digest()})
    check_same("settings", plain)
    check_same("files", {path: file_sha256(Path(path)) for path in named_files(plain)})


def check_data(setup: RunSetup) -> None:
    """Compares questions, prompts and the model's files.

    Raises:
      ProcessError: a process has others; the message says which, and what differs.
    """
    if count() == 1:
        return
    found = {"model": None if setup.files is None else setup.files.digest}
    for name in ("train", "heldout"):
        digest = hashlib.sha256()
        for problem in getattr(setup.problems, name):
            prompt = setup.task.prompt_tokens(problem)
            digest.update(f"{problem!r} {prompt}\n".encode())
        found[name] = digest.hexdigest()
    check_same("data", found)


def check_same(what: str, value: Mapping[str, Any]) -> None:
    """Compares a JSON object with that of process 0.

    Raises:
      ProcessError: a process has another.
    """
    first, *others = exchange(f"comparison of {what}", as_json(what, value))
    for number, other in enumerate(others, start=1):
        if lines := differences(first, other, ("process 0", f"process {number}")):
            more = f"; and {len(lines) - 4} more" if lines[4:] else ""
            raise ProcessError(
                f"all processes must have the same {what}, but process {number} "
                f"differs: {'; '.join(lines[:4])}{more}"
            )


def source_digest() -> str:
    """SHA-256 of this package's source, which is part of no version in a checkout."""
    digest = hashlib.sha256()
    for package in (jaxrl_reason, losses, sharding):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)} {file_sha256(path)}".encode())
    return digest.hexdigest()


def named_files(value: Any) -> Iterator[str]:
    """The files that settings name, also as `file.py:function`."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from named_files(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from named_files(inner)
    elif isinstance(value, str):
        path = value if Path(value).is_file() else value.rpartition(":")[0]
        if path and Path(path).is_file():
            yield path
