"""Scalars for TensorBoard, one record of its event file per row.

A record is complete or, after a kill, cut off and not read: so a row has all of its
scalars or none. tensorboardX's own writer puts each of them through a queue into a
record of its own.
"""

import os
import time
from collections.abc import Mapping
from pathlib import Path


class EventFile:
    """A new event file in a folder; TensorBoard reads all of a folder as one run.

    Args:
      folder: created if missing.
      first_step: of the rows to come; TensorBoard discards what earlier files have from
        there on.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboardX.event_file_writer import EventsWriter  # slow to import
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.proto.summary_pb2 import Summary

        self._event, self._summary = Event, Summary
        folder.mkdir(parents=True, exist_ok=True)
        # Names have the time in seconds, and files are read in their order; two
        # processes within one second must not share one.
        here = len(list(folder.iterdir()))
        self._file = EventsWriter(str(folder / "events"), f".{here:06d}.{os.getpid()}")
        start = SessionLog(status=SessionLog.START)
        self._write(Event(step=first_step, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes a row; it is in the file when this returns."""
        value = self._summary.Value
        found = [value(tag=name, simple_value=x) for name, x in values.items()]
        summary = self._summary(value=found)
        self._write(self._event(step=step, summary=summary))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, event: object) -> None:
        event.wall_time = time.time()  # type: ignore[attr-defined]
        self._file.write_event(event)
        self._file.flush()
