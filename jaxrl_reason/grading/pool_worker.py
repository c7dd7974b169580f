"""A worker process of `WorkerPool`: reads jobs from its input, writes the results."""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from jaxrl_reason.grading.load_function import load_function
from jaxrl_reason.grading.spoken_error import spoken_error


def main(function: str, memory_bytes: int, given: str) -> None:
    """Answers one line of JSON for each, until the input ends.

    A result is [what happened, value or error, whether the worker leaves].

    Args:
      function: place of the function.
      memory_bytes: that a job may take.
      given: if not empty, the function is called with it once and returns the one for
        the jobs.
    """
    # The real output is for results: what a function prints must not mix with them.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    said: list[Any] = ["ready", None, False]
    called: Callable[..., Any] | None = None
    try:
        called = load_function(function)
        called = called(given) if given else called
        said[1] = getattr(called, "about", None)
    except Exception as error:  # whatever a user's module does when it is imported
        said = ["broken", spoken_error(error), True]
    before = _address_space()
    _limit(before + memory_bytes)
    signal.signal(signal.SIGALRM, interrupt)
    while True:
        results.write(json.dumps(said).encode() + b"\n")
        results.flush()
        line = b"" if said[2] else sys.stdin.buffer.readline()
        if not line:
            return
        assert called is not None
        said = run_job(called, *json.loads(line))
        # What one job leaves behind must not make the next one fail.
        said[2] = said[2] or _address_space() - before > memory_bytes // 2


def run_job(called: Callable[..., Any], seconds: float, job: list[Any]) -> list[Any]:
    """The result of one job, or what happened instead.

    Args:
      called: the function.
      seconds: after which it is interrupted.
      job: its arguments.

    Returns:
      ["done", result, False], ["late", None, False] or ["failed", error, whether
      memory ran out].
    """
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            result = called(*job)
            json.dumps(result)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Late:
        return ["late", None, False]
    except Exception as error:  # of the job; the worker goes on
        return ["failed", spoken_error(error), isinstance(error, MemoryError)]
    return ["done", result, False]


class Late(BaseException):
    """A job is interrupted; not an Exception, so that the job does not catch it."""


def interrupt(number: int, frame: FrameType | None) -> None:
    """Handles an alarm: raises Late where the program is."""
    raise Late


def _address_space() -> int:
    """Bytes of this process's address space; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit(address_space: int) -> None:
    with contextlib.suppress(ImportError):  # Windows has no limits
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if hard != resource.RLIM_INFINITY:
            address_space = min(address_space, hard)
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
