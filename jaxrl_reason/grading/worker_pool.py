"""Worker processes with a deadline and a memory limit for every job.

A worker is a Python of its own, started from nothing: it shares no threads, locks or
devices with this process, and sees no accelerator. Jobs and results are lines of JSON.

Not multiprocessing or pebble: their spawned workers run the program's main file again
(a script without a guard would train twice), and replace a process for every job that
is late.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

MEMORY_BYTES = 512 * 2**20
_START_SECONDS = 60.0
_GRACE_SECONDS = 0.25
# Once late jobs have used up the deadline of all workers, others get this part of it,
# or this many times the mean time of the jobs that ended.
_SHORT_PART, _TIMES_MEAN = 1 / 40, 4.0
# No accelerator, and one thread per worker, of which there is one for each core.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "CUDA_VISIBLE_DEVICES": "",
    "HIP_VISIBLE_DEVICES": "",
    "TPU_SKIP_MDS_QUERY": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class WorkerError(RuntimeError):
    """A worker could not be started: the fault of this machine and not of a job."""


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
      value: what the function returned.
      error: why it returned nothing; None if it did.
      late: whether it was interrupted, after `seconds`.
      seconds: that it had.
    """

    value: Any = None
    error: str | None = None
    late: bool = False
    seconds: float = 0.0


class WorkerPool:
    """Runs a function on many arguments in worker processes, one for each core.

    Every job has the deadline, but jobs that hang do not hold up the others: once those
    of one call have used up one deadline of all workers, each further job is
    interrupted after a fortieth of the deadline, or after four times as long as the
    jobs that ended took on average. What is cut short in this way shares another half
    of a deadline at the end. 64 jobs that hang take less than three deadlines on two
    cores.

    A worker interrupts a late job itself; one that does not react, dies, or has grown
    by half of the memory is replaced.

    May be called from any thread, and works beside JAX: nothing is forked.

    Args:
      function: place of a function of JSON values, `package.module:name` or
        `file.py:name`.
      deadline: seconds of wall-clock time per job.
      workers: jobs at once; None for the number of cores.
      memory_bytes: that a job may take, besides what the loaded function takes.
      given: if not empty, each worker calls the function with it once, and what that
        returns is the function of the jobs.

    Raises:
      ValueError: the deadline is not above 0, workers is below 1, or memory_bytes is.

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
        given: str = "",
    ) -> None:
        workers = (os.cpu_count() or 1) if workers is None else workers
        if not deadline > 0:
            raise ValueError(f"deadline must be above 0 seconds, got {deadline}")
        for name, value in (("workers", workers), ("memory_bytes", memory_bytes)):
            if value < 1:
                raise ValueError(f"{name} must be >= 1, got {value}")
        self.function, self.deadline, self.workers = function, deadline, workers
        self.memory_bytes, self.given = memory_bytes, given
        self._idle: list[_Worker] = []
        self._lock = threading.Lock()
        self._closed = False
        self._ended, self._seconds = 0, 0.0  # of jobs that ended

    def start(self) -> Any:
        """Starts a worker now, not at the first job.

        Returns:
          What the function of the jobs says of itself, its attribute `about`.

        Raises:
          WorkerError: it could not be started, or the function could not be loaded.
        """
        worker = self._worker()
        self._put_back(worker)
        return worker.about

    def map(self, jobs: Sequence[Sequence[Any]]) -> list[Any]:
        """The function's results.

        Args:
          jobs: the arguments of each call.

        Returns:
          One result per job; None for a job that raised, missed the deadline or died.

        Raises:
          WorkerError: a worker could not be started.
        """
        return [outcome.value for outcome in self.run(jobs)]

    def run(self, jobs: Sequence[Sequence[Any]]) -> list[Outcome]:
        """What becomes of the jobs.

        Args:
          jobs: the arguments of each call.

        Returns:
          One outcome per job, in their order.

        Raises:
          WorkerError: a worker could not be started.
        """
        budget = _Budget(self.deadline * self.workers)

        def limit() -> float:
            return self.deadline if budget.is_left() else self._short()

        found = self._all(jobs, limit, budget)
        cut = [i for i, x in enumerate(found) if x.late and x.seconds < self.deadline]
        seconds = self.deadline * self.workers / (2 * max(len(cut), 1))
        if cut and seconds > self._short():
            seconds = min(seconds, self.deadline)
            again = self._all([jobs[i] for i in cut], lambda: seconds, budget)
            for index, outcome in zip(cut, again, strict=True):
                found[index] = outcome
        return found

    def close(self) -> None:
        """Ends the workers; later jobs end theirs."""
        with self._lock:
            idle, self._idle, self._closed = self._idle, [], True
        for worker in idle:
            worker.end()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _all(
        self, jobs: Sequence[Sequence[Any]], limit: Callable[[], float], lost: "_Budget"
    ) -> list[Outcome]:
        def one(job: Sequence[Any]) -> Outcome:
            began = time.monotonic()
            with self._lock:
                seconds = limit()
                lost.running.append(began)
            try:
                outcome = self._run(job, seconds)
            finally:
                with self._lock:
                    lost.running.remove(began)
            took = time.monotonic() - began
            with self._lock:
                if outcome.late:
                    lost.left -= took
                else:
                    self._ended, self._seconds = self._ended + 1, self._seconds + took
            return outcome

        if len(jobs) <= 1:
            return [one(job) for job in jobs]
        with ThreadPoolExecutor(self.workers, "jaxrl-workers") as threads:
            return list(threads.map(one, jobs))

    def _short(self) -> float:
        """The limit once too much time was lost."""
        mean = self._seconds / max(self._ended, 1)
        return min(self.deadline, max(self.deadline * _SHORT_PART, _TIMES_MEAN * mean))

    def _run(self, job: Sequence[Any], seconds: float) -> Outcome:
        """The outcome of one job."""
        outcome = Outcome(error="the worker died", seconds=seconds)
        for _ in range(2):  # a worker may die for reasons that are not the job's
            worker = self._worker()
            said: list[Any] = ["dead", None, True]
            try:
                said = worker.ask(job, seconds)
            finally:
                self._put_back(worker, keep=not said[2])
            if said[0] == "done":
                return Outcome(said[1], seconds=seconds)
            if said[0] == "late":
                error = f"not done after {seconds:g} seconds"
                return Outcome(error=error, late=True, seconds=seconds)
            if said[0] == "failed":
                return Outcome(error=str(said[1]), seconds=seconds)
        return outcome

    def _worker(self) -> "_Worker":
        with self._lock:
            worker = self._idle.pop() if self._idle else None
        return worker or _Worker(self.function, self.memory_bytes, self.given)

    def _put_back(self, worker: "_Worker", keep: bool = True) -> None:
        with self._lock:
            keep = keep and worker.alive and not self._closed
            if keep:
                self._idle.append(worker)
        if not keep:
            worker.end()


@dataclass
class _Budget:
    """Seconds that jobs may lose.

    Attributes:
      left: of them, after the jobs that have ended.
      running: when the jobs began that have not.
    """

    left: float
    running: list[float] = field(default_factory=list)

    def is_left(self) -> bool:
        """Whether any would be left if all running jobs were lost.

        Else of jobs that hang and end together, the first would give its successor a
        whole deadline.
        """
        now = time.monotonic()
        return self.left > sum(now - began for began in self.running)


def _plain(x: Any) -> Any:
    """Values of a row that JSON does not have."""
    if hasattr(x, "tolist"):  # arrays and their scalars
        return x.tolist()
    if isinstance(x, bytes):
        return x.decode(errors="replace")
    return sorted(x, key=str) if isinstance(x, set | frozenset) else str(x)


class _Worker:
    """One process, and the thread that waits for its answers."""

    def __init__(self, function: str, memory_bytes: int, given: str) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            **_ENVIRONMENT,
        }
        command = [sys.executable, "-m", "jaxrl_reason.grading.pool_worker"]
        try:
            self.process = subprocess.Popen(
                [*command, function, str(memory_bytes), given],
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
        said, self.about, _ = self.answer(_START_SECONDS)
        if said != "ready":
            self.end()
            why = self.about or "none"
            raise WorkerError(f"a worker for {given or function} must start, got {why}")

    def ask(self, job: Sequence[Any], seconds: float) -> list[Any]:
        """What the worker says of a job: what happened, value or error, if it leaves.

        What happened is "done", "failed", "late" or "dead".
        """
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):  # a dead worker is noticed below
            line = json.dumps([seconds, list(job)], default=_plain)
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()
        return self.answer(seconds + _GRACE_SECONDS)

    def answer(self, seconds: float) -> list[Any]:
        """What the worker says next; it is not alive after it said nothing in time."""
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if ready else b""
        self.alive = line.endswith(b"\n")
        if not self.alive:
            return ["dead" if ready else "late", None, True]
        said: list[Any] = json.loads(line)
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
