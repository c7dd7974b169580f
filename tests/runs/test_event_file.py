"""What TensorBoard reads of a run that was killed."""

import os
import signal
import subprocess
import sys

import pytest

from jaxrl_reason.runs.metrics_log import MetricsLog, truncate_after
from tests.runs.event_helpers import as_rows, scalars

WRITE_FOR_EVER = """
import sys
from jaxrl_reason.runs.metrics_log import MetricsLog
log = MetricsLog(sys.argv[1])
step = log.last_step or 0
while True:
    step += 1
    log.write(step, {f"group/name_{i}": step + i / 64 for i in range(45)})
    print(step, flush=True)
"""


def test_a_killed_run_has_every_scalar_of_its_rows(tmp_path):
    for wanted in (3, 8):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        with process.stdout as output:
            for line in output:
                if int(line) >= wanted:
                    process.send_signal(signal.SIGKILL)
                    break
        process.wait()
        events = scalars(tmp_path / "tensorboard" / "metrics")
        rows = as_rows(tmp_path / "metrics.jsonl")
        # The last row may lack its record, which the next start writes.
        assert events == {step: x for step, x in rows.items() if step in events}
        assert len(rows) - len(events) <= 1
    MetricsLog(tmp_path).close()
    assert scalars(tmp_path / "tensorboard" / "metrics") == rows


def test_the_next_start_adds_the_row_that_a_kill_left_out(tmp_path, monkeypatch):
    values = {"a": 0.5, "b": 2.0, "c": 0.25}
    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, values)
        # Killed between the two files.
        monkeypatch.setattr(log._tensorboard, "write", lambda *row: None)
        log.write(4, values)
    folder = tmp_path / "tensorboard" / "metrics"
    assert list(scalars(folder)) == [1, 2, 3]
    MetricsLog(tmp_path).close()
    assert scalars(folder) == as_rows(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("back", [0, 2])
def test_rows_that_a_resumed_run_drops_are_dropped(tmp_path, back):
    with MetricsLog(tmp_path) as log:
        for step in (1, 2, 3, 4):
            log.write(step, {"old": float(step)})
    truncate_after(tmp_path / "metrics.jsonl", back)
    with MetricsLog(tmp_path) as log:
        log.write(back + 1, {"new": 9.0})
    found = scalars(tmp_path / "tensorboard" / "metrics")
    assert found == as_rows(tmp_path / "metrics.jsonl")
    assert len(found) == back + 1


def test_a_torn_record_hides_nothing_that_follows(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"a": 1.0})
        log.write(2, {"a": 2.0})
    folder = tmp_path / "tensorboard" / "metrics"
    (file,) = folder.iterdir()
    os.truncate(file, file.stat().st_size - 3)
    with MetricsLog(tmp_path) as log:
        log.write(3, {"a": 3.0})
    assert scalars(folder) == as_rows(tmp_path / "metrics.jsonl")
