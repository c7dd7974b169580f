"""One line per response, written immediately, so that a kill loses none."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrl_reason.runs.files import append, atomic_write
from jaxrl_reason.runs.manifest import as_json, differences
from jaxrl_reason.runs.run_folder import open_run

Record = dict[str, Any]
Group = tuple[str, int]  # a decoding's name and a question's id


class EvaluationFolderError(ValueError):
    """A folder has records of another evaluation, or damaged ones."""


class Records:
    """The records of an evaluation in its folder, locked against other processes.

    All responses to a question with one decoding are written together; partial records
    of a question are dropped.

    folder/
        config.json     identity, settings, versions, command, when it was resumed
        records.jsonl   one row per response
        report.json     written at the end

    Args:
      folder: of the records; created if missing.
      identity: what the responses depend on. Records are reused only if it
        is the same.
      settings: saved for information.

    Raises:
      EvaluationFolderError: the folder's records have another identity, or a line
        other than the last is damaged.
      RunFolderError: the folder has something else in it, or is in use.
    """

    def __init__(
        self,
        folder: str | Path,
        identity: Mapping[str, Any],
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        identity = as_json("identity", identity)
        known = (Path(folder) / "config.json").is_file()
        if known:
            _check_identity(Path(folder), identity)
        self._run = open_run(
            folder, {"identity": identity, "settings": settings or {}}, resume=known
        )
        self.path = self._run.path / "records.jsonl"
        self.report_path = self._run.report_path
        try:
            self._groups = _read(self.path)
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
        except BaseException:
            self._run.close()
            raise

    def __contains__(self, group: Group) -> bool:
        return group in self._groups

    def add(self, group: Group, records: Sequence[Record]) -> None:
        """Writes all responses to one question.

        Args:
          group: the decoding's name and the question's id.
          records: one per sample, in order.
        """
        self._groups[group] = [
            {
                "decoding": group[0],
                "problem_id": group[1],
                "sample": index,
                "of": len(records),
                **record,
            }
            for index, record in enumerate(records)
        ]
        # Half a surrogate pair cannot be encoded in UTF-8, but can be escaped.
        lines = (json.dumps(record) + "\n" for record in self._groups[group])
        append(self.path, self._file, "".join(lines).encode())

    def flush(self) -> None:
        """Flushes the records to disk."""
        os.fsync(self._file.fileno())

    def of(self, decoding: str) -> dict[int, list[Record]]:
        """The records of one decoding: question's id -> samples.

        Args:
          decoding: its name.

        Returns:
          The records, with ids in ascending order.
        """
        chosen = sorted(group for group in self._groups if group[0] == decoding)
        return {group[1]: self._groups[group] for group in chosen}

    def close(self) -> None:
        """Releases the lock."""
        self._file.close()
        self._run.close()

    def __enter__(self) -> "Records":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check_identity(folder: Path, asked: dict[str, Any]) -> None:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        saved = config["settings"]["identity"]
    except (ValueError, KeyError, TypeError) as error:
        raise EvaluationFolderError(
            f"{folder} holds a run that is not an evaluation; choose another --out"
        ) from error
    changed = differences(saved, asked)
    if changed:
        raise EvaluationFolderError(
            f"{folder} holds the records of another evaluation ({'; '.join(changed)}); "
            "choose another --out"
        )


def _read(path: Path) -> dict[Group, list[Record]]:
    """The complete groups of a file; everything else is removed from it."""
    if not path.exists():
        return {}
    data = path.read_bytes()
    lines = data.split(b"\n")
    groups: dict[Group, list[Record]] = {}
    # Text after the last line break is incomplete.
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            group = (str(record["decoding"]), int(record["problem_id"]))
            groups.setdefault(group, []).append(record)
            if record["sample"] != len(groups[group]) - 1:
                raise ValueError("samples out of order")
        except (ValueError, KeyError, TypeError) as error:
            raise EvaluationFolderError(
                f"{path}, line {number} is not a record: {line[:60]!r} ({error})"
            ) from error
    whole = {g: rows for g, rows in groups.items() if len(rows) == rows[0]["of"]}
    if len(whole) < len(groups) or lines[-1]:
        rows = (json.dumps(row) + "\n" for group in whole.values() for row in group)
        atomic_write(path, "".join(rows))
    return whole
