"""What a run says: on the console, for as long as that can be written, and in run.log.

A console is a luxury: the reader of a pipe goes away, an ssh connection breaks, a disk
is full. None of this may end a run of a week.
"""

import contextlib
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxrl_reason.sharding.processes import is_main

_LOG = logging.getLogger("jaxrl_reason")
# Not passed on: a handler of the root logger would print it beside the console.
_SAID = logging.getLogger("jaxrl_reason.said")
_SAID.propagate = False
_SAID.setLevel(logging.INFO)
_SAID.addHandler(logging.NullHandler())


def say(text: str) -> None:
    """Prints a line, once for all processes of the run; it also goes into run.log.

    Args:
      text: one line or several.
    """
    if is_main():
        print(text, flush=True)
        keep(text)


def keep(text: str) -> None:
    """Puts a line into run.log alone, where the console shows the same in another way.

    Args:
      text: one line or several.
    """
    _SAID.info("%s", text.rstrip("\n"))


@contextlib.contextmanager
def run_log(path: str | Path) -> Iterator[None]:
    """Keeps what the run says in a file, for a block in which printing cannot fail.

    A stream that cannot be written to is given up, and the file says so. Warnings of
    this library go to the file and, as everywhere, to the standard error; the error
    that ends the block goes to the file alone.

    Args:
      path: of the file, which is appended to; process 0 writes it.
    """
    streams = sys.stdout, sys.stderr
    output: Any = tuple(map(_Tolerant, streams))
    sys.stdout, sys.stderr = output
    handlers: list[tuple[logging.Logger, logging.Handler]] = []
    if not _LOG.hasHandlers():  # only then does logging itself print warnings
        handlers.append((_LOG, logging.StreamHandler()))
    if is_main():
        file = _File(path, encoding="utf-8", delay=True)
        file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        handlers += [(_LOG, file), (_SAID, file)]
    for logger, handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        # The console may be gone when the command prints it.
        keep(f"ended by {type(error).__name__}: {error}")
        ours = type(error).__module__.startswith("jaxrl_reason.")
        if not ours and not isinstance(error, ValueError | OSError | KeyboardInterrupt):
            keep("".join(traceback.format_exception(error)))
        raise
    finally:
        for logger, handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        sys.stdout, sys.stderr = streams


class _File(logging.FileHandler):
    """A file that may be on a full disk."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Drops the record, where logging would print a traceback for each."""


class _Tolerant:
    """A stream that is given up at its first error."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes, if that is possible."""
        try:
            if not self._lost:
                self._stream.write(text)
        except (OSError, ValueError) as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Flushes, if that is possible."""
        try:
            if not self._lost:
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        self._lost = True
        name = getattr(self._stream, "name", "the console")
        keep(f"{name} cannot be written to any more ({error}); the run goes on")
        # What is still in buffers would raise again when the process ends.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
