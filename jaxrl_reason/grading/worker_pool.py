"""Worker processes with a deadline and a memory limit for every job.

A worker is a Python of its own, started from nothing: it shares no threads, locks or
devices with this process, and sees no accelerator. Jobs and results are lines of JSON.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

MEMORY_BYTES = 512 * 2**20
# The part of the deadline that every job gets before others get more.
_FIRST_SHARE = 1 / 40
_START_SECONDS = 60.0
_GRACE_SECONDS = 0.5


class WorkerError(RuntimeError):
    """A worker could not be started: the fault of this machine and not of a job."""


class WorkerPool:
    """Runs a function on many arguments in worker processes, one for each core.

    Jobs that hang do not hold up the others: of more jobs than workers, each first gets
    a fortieth of the deadline. Those that need more share one deadline of all workers
    when the others have ended. 64 jobs that hang take less than two deadlines on two
    cores. A worker interrupts a late job itself; one that does not react, takes too
    much memory or dies is replaced.

    May be called from any thread, and works beside JAX: nothing is forked.

    Args:
      function: `package.module:name` of a function of JSON values.
      deadline: seconds of wall-clock time per job.
      workers: jobs at once; None for the number of cores.
      memory_bytes: of one worker's address space.

    Raises:
      ValueError: the deadline is not above 0, or workers is below 1.

    Example:
      >>> with WorkerPool("math:sqrt", deadline=20) as pool:
      ...     pool.map([[4], [-1], [9]])
      [2.0, None, 3.0]
    """

    def __init__(
        self,
        function: str,
        deadline: float = 10.0,
        workers: int | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        workers = (os.cpu_count() or 1) if workers is None else workers
        if not deadline > 0:
            raise ValueError(f"deadline must be above 0 seconds, got {deadline}")
        if workers < 1:
            raise ValueError(f"workers must be >= 1, got {workers}")
        self.function, self.deadline, self.workers = function, deadline, workers
        self.memory_bytes = memory_bytes
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False

    def map(self, jobs: Sequence[Sequence[Any]]) -> list[Any]:
        """The function's results.

        Args:
          jobs: the arguments of each call.

        Returns:
          One result per job; None for a job that raised, missed the deadline or died.

        Raises:
          WorkerError: a worker could not be started.
        """
        found: list[Any] = [_LATE] * len(jobs)
        seconds, todo = self.deadline, list(range(len(jobs)))
        if len(jobs) > self.workers:
            todo = self._turn(jobs, todo, seconds * _FIRST_SHARE, found)
            seconds *= min(1.0, self.workers / max(len(todo), 1))
        if seconds > self.deadline * _FIRST_SHARE:
            self._turn(jobs, todo, seconds, found)
        return [None if result is _LATE else result for result in found]

    def _turn(
        self,
        jobs: Sequence[Sequence[Any]],
        todo: Sequence[int],
        seconds: float,
        found: list[Any],
    ) -> list[int]:
        """Runs jobs with a limit each; returns those that were late."""
        if len(todo) == 1:
            results = [self._run(jobs[todo[0]], seconds)]
        else:
            with ThreadPoolExecutor(self.workers, "jaxrl-workers") as threads:
                each = (self._run, (jobs[i] for i in todo), [seconds] * len(todo))
                results = list(threads.map(*each))
        for index, result in zip(todo, results, strict=True):
            found[index] = result
        return [index for index in todo if found[index] is _LATE]

    def close(self) -> None:
        """Ends the workers."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for worker in idle:
            worker.end()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _run(self, job: Sequence[Any], seconds: float) -> Any:
        """The result of one job; _LATE if it was late, None if it raised or died."""
        for _ in range(2):  # a worker may die for reasons that are not the job's
            with self._lock:
                worker = self._idle.pop() if self._idle else None
            worker = worker or _Worker(self.function, self.memory_bytes)
            result = _DEAD
            try:
                result = worker.ask(job, seconds)
            finally:
                with self._lock:
                    keep = worker.alive and not self._closed and result is not _DEAD
                    if keep:
                        self._idle.append(worker)
                if not keep:
                    worker.end()
            if result is not _DEAD:
                return result
        return None


_LATE, _DEAD = object(), object()


class _Worker:
    """One process, and the thread that waits for its answers."""

    def __init__(self, function: str, memory_bytes: int) -> None:
        # No accelerator, no second copy of this program's settings for one.
        environment = {
            **os.environ,
            **{"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            **{
                "JAX_PLATFORMS": "cpu",
                "CUDA_VISIBLE_DEVICES": "",
                "TPU_SKIP_MDS_QUERY": "1",
            },
        }
        command = [sys.executable, "-m", "jaxrl_reason.grading.pool_worker"]
        try:
            self.process = subprocess.Popen(
                [*command, function, str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                # Ctrl-C is for this program, which may finish its step first.
                start_new_session=True,
            )
        except OSError as error:
            raise WorkerError(f"a worker must start, got {error}") from error
        self.alive = True
        if self.answer(_START_SECONDS) != ["ready"]:
            self.end()
            raise WorkerError(f"a worker for {function} must start, got none")

    def ask(self, job: Sequence[Any], seconds: float) -> Any:
        """The result of a job, None if it raised, _LATE or _DEAD."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # a dead worker is noticed below
            self.process.stdin.write(json.dumps([seconds, list(job)]).encode() + b"\n")
            self.process.stdin.flush()
        said, *result = self.answer(seconds + _GRACE_SECONDS)
        if said == "done":
            return result[0]
        return {"late": _LATE, "dead": _DEAD}.get(said)

    def answer(self, seconds: float) -> list[Any]:
        """What the worker says next; it is not alive after it said nothing in time."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else b""
        self.alive = line.endswith(b"\n")
        said: list[Any] = (
            json.loads(line) if self.alive else ["dead" if ready else "late"]
        )
        return said

    def end(self) -> None:
        """Kills the process."""
        self.alive = False
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
