"""Processes that clean parts and write shards."""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from jaxrl_reason.data.clean_benchmark import BenchmarkTexts
from jaxrl_reason.data.clean_dataset import ExampleWriter, Shard
from jaxrl_reason.data.clean_part import PartCleaner, RawRow
from jaxrl_reason.data.clean_settings import CleanSettings
from jaxrl_reason.tasks.question_rows import Row

_T = TypeVar("_T")
_LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class ShardJob:
    """A file of the dataset to write.

    Attributes:
      path: of the file.
      parts: files of rows.
      kept: which rows of each stay.
      rates: [rows, 2] right and graded responses of each; None if none were sampled.
    """

    path: Path
    parts: Sequence[Path]
    kept: Sequence[np.ndarray]
    rates: Sequence[np.ndarray] | None


class Workers:
    """Does the work of parts in several processes, or in this one.

    Processes are started only if there is a second job. They end with this one, however
    it ends.

    Args:
      settings: what a row has to be, and the number of processes.
      benchmark: questions that must not be trained on.
    """

    def __init__(self, settings: CleanSettings, benchmark: BenchmarkTexts) -> None:
        self._count = settings.workers or os.cpu_count() or 1
        self._rules = (settings, benchmark)
        self._pool: ProcessPoolExecutor | None = None

    def clean(
        self, parts: Iterable[tuple[str, list[RawRow]]], folder: Path
    ) -> Iterator[tuple[str, dict[str, int]]]:
        """Cleans parts, those that are there already excepted.

        Args:
          parts: name and rows of each.
          folder: of their files.

        Yields:
          Names in order, with how many rows were kept and dropped by reason.
        """

        def jobs() -> Iterator[tuple[str, Any]]:
            for name, rows in parts:
                done = folder / f"{name}.json"
                job = None if done.exists() else (rows, folder, name)
                yield name, job

        for name, result in self._in_order(_clean, jobs()):
            found = result
            if found is None:
                found = json.loads((folder / f"{name}.json").read_text("utf-8"))
            yield name, found

    def write(self, jobs: Sequence[ShardJob]) -> list[Shard]:
        """Writes files of the dataset.

        Args:
          jobs: one per file.

        Returns:
          Their sizes in order.
        """
        named = ((str(job.path), (job,)) for job in jobs)
        return [shard for _, shard in self._in_order(_write, named) if shard]

    def _in_order(
        self,
        work: Callable[..., _T],
        jobs: Iterable[tuple[str, tuple[Any, ...] | None]],
    ) -> Iterator[tuple[str, _T | None]]:
        """Results in the order of the jobs, a few of which are done at once."""
        rest = iter(jobs)
        first, real = [], 0
        for entry in rest:
            first.append(entry)
            real += entry[1] is not None
            if real == 2:  # processes take seconds to start
                break
        every = itertools.chain(first, rest)
        if real < 2 or self._count == 1:
            for name, job in every:
                yield name, None if job is None else self._here(work, job)
            return
        pool = self._started()
        waiting: deque[tuple[str, Future[_T] | None]] = deque()
        for name, job in every:
            waiting.append((name, None if job is None else pool.submit(work, *job)))
            while len(waiting) > 2 * self._count:
                first_name, done = waiting.popleft()
                yield first_name, None if done is None else done.result()
        for first_name, done in waiting:
            yield first_name, None if done is None else done.result()

    def _here(self, work: Callable[..., _T], job: tuple[Any, ...]) -> _T:
        if not _CLEANERS:
            _prepare(*self._rules)
        return work(*job)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._count,
                multiprocessing.get_context("spawn"),
                _start,
                (os.getpid(), *self._rules),
            )
        return self._pool

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        _CLEANERS.clear()


# The cleaner of this process, which lasts from job to job.
_CLEANERS: list[PartCleaner] = []


def _prepare(settings: CleanSettings, benchmark: BenchmarkTexts) -> None:
    _CLEANERS[:] = [PartCleaner(settings, benchmark)]


def _start(parent: int, settings: CleanSettings, benchmark: BenchmarkTexts) -> None:
    """Runs first in a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends its workers

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_LOOK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    _prepare(settings, benchmark)


def _clean(rows: list[RawRow], folder: Path, name: str) -> dict[str, int]:
    return _CLEANERS[0](rows, folder, name)


def _write(job: ShardJob) -> Shard:
    temporary = job.path.with_name(f".{job.path.name}")
    try:
        shard = ExampleWriter(job.rates is not None).write(temporary, _kept_rows(job))
        temporary.replace(job.path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
    return shard


def _kept_rows(job: ShardJob) -> Iterator[Row]:
    for number, path in enumerate(job.parts):
        kept = job.kept[number]
        with open(path, "rb") as file:
            for i, line in enumerate(file):
                if not kept[i]:
                    continue
                row: Row = json.loads(line)
                del row["place"]
                if job.rates is not None:
                    right, graded = job.rates[number][i].tolist()
                    row |= {"solved": right, "samples": graded}
                yield row
