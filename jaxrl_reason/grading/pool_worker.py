"""A worker process of `WorkerPool`: reads jobs from its input, writes the results."""

import contextlib
import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def main(function: str, memory_bytes: int) -> None:
    """Answers one line of JSON for each, until the input ends.

    Args:
      function: `package.module:name`.
      memory_bytes: of the address space.
    """
    # The real output is for results: what a function prints must not mix with them.
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)
    with contextlib.suppress(ImportError):  # Windows has no limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, _interrupt)
    said: list[Any] = ["ready"]
    while True:
        results.write(json.dumps(said).encode() + b"\n")
        results.flush()
        line = sys.stdin.buffer.readline()
        if not line:
            return
        said = run_job(called, *json.loads(line))


def run_job(called: Callable[..., Any], seconds: float, job: list[Any]) -> list[Any]:
    """The result of one job, or what happened instead.

    Args:
      called: the function.
      seconds: after which it is interrupted.
      job: its arguments.

    Returns:
      ["done", result], ["late"] or ["failed"].
    """
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            result = called(*job)
            json.dumps(result)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Late:
        return ["late"]
    except Exception:  # of the job; the worker goes on
        return ["failed"]
    return ["done", result]


class Late(BaseException):
    """A job is interrupted; not an Exception, so that the job does not catch it."""


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise Late


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
