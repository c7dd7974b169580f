"""Workers: deadlines, memory, and many jobs that hang."""

import os
import time
from pathlib import Path

import pytest

from jaxrl_reason.grading.worker_pool import WorkerError, WorkerPool

JOBS = """
import os, sys, time

def spin(turns):
    while turns:
        pass
    return "done"

def grow(megabytes):
    return len(bytearray(megabytes * 2**20)) // 2**20

def die(code):
    if code:
        os._exit(code)
    return os.getpid()

def environment(name):
    print("noise on the output")
    return os.environ.get(name)
"""


@pytest.fixture
def jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "jobs_of_test.py").write_text(JOBS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "jobs_of_test"


def test_jobs_that_hang_do_not_hold_up_the_others(jobs: str) -> None:
    deadline = 4.0
    with WorkerPool(f"{jobs}:spin", deadline, workers=2) as pool:
        start = time.monotonic()
        found = pool.run([[True]] * 64 + [[False]] * 20)
        assert time.monotonic() - start < 3 * deadline
        assert [x.value for x in found] == [None] * 64 + ["done"] * 20
        # Those that hang first; they end together, and none after them has as long.
        assert sum(x.late and x.seconds == deadline for x in found) == 2
        assert pool.map([[False]]) == ["done"]


def test_memory_is_limited_and_the_worker_goes_on(jobs: str) -> None:
    with WorkerPool(f"{jobs}:grow", deadline=30, workers=1) as pool:
        assert pool.map([[16], [4096], [32]]) == [16, None, 32]


def test_a_worker_that_dies_is_replaced(jobs: str) -> None:
    with WorkerPool(f"{jobs}:die", deadline=30, workers=1) as pool:
        first, dead, second = pool.map([[0], [9], [0]])
        assert dead is None
        assert first != second
        assert os.getpid() not in (first, second)


def test_a_death_that_is_not_the_jobs_costs_no_verdict(jobs: str) -> None:
    with WorkerPool(f"{jobs}:die", deadline=30, workers=1) as pool:
        (first,) = pool.map([[0]])
        os.kill(first, 9)
        (second,) = pool.map([[0]])
        assert second not in (None, first)
        # Ctrl-C reaches this process's group, which is not the workers'.
        assert os.getpgid(second) != os.getpgid(0)


def test_workers_see_no_accelerator(jobs: str) -> None:
    with WorkerPool(f"{jobs}:environment", deadline=30, workers=1) as pool:
        assert pool.map([["JAX_PLATFORMS"], ["CUDA_VISIBLE_DEVICES"]]) == ["cpu", ""]


def test_a_worker_that_cannot_start_is_no_verdict() -> None:
    with (
        WorkerPool("no_such_module:f", deadline=30) as pool,
        pytest.raises(WorkerError, match="a worker for no_such_module:f must start"),
    ):
        pool.map([[1]])


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="deadline must be above 0 seconds, got 0"):
        WorkerPool("math:sqrt", deadline=0)
    with pytest.raises(ValueError, match="workers must be >= 1, got 0"):
        WorkerPool("math:sqrt", workers=0)
