import json
import math
import os
import shutil
import signal
import subprocess
import sys
import textwrap

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.runs.metrics_log import (
    MetricsLog,
    add_metrics,
    finish_metrics,
    read_metrics,
    truncate_after,
)


def write_rows(run_dir, steps):
    with MetricsLog(run_dir, tensorboard=False) as log:
        for step in steps:
            log.write(step, {"loss": 0.5 * step})


def test_finish_metrics_divides_once_and_leaves_out_what_was_not_measured():
    row = finish_metrics(
        {
            "entropy": (jnp.float32(3.0), jnp.float32(6.0)),
            "rollout/length_correct": (jnp.float32(0.0), jnp.float32(0.0)),
            "updates": (8, 1),
        }
    )
    assert row == {"entropy": 0.5, "updates": 8.0}
    assert all(type(value) is float for value in row.values())


def test_finish_metrics_keeps_a_nan_total_visible():
    assert math.isnan(finish_metrics({"loss": (jnp.nan, 2.0)})["loss"])


def test_add_metrics_gives_the_mean_over_all_tokens_not_the_mean_of_means():
    parts = [{"entropy": (2.0, 1.0)}, {"entropy": (1.0, 9.0), "kl": (3.0, 1.0)}]
    merged = add_metrics(parts[0], parts[1])
    assert finish_metrics(merged) == {"entropy": 0.3, "kl": 3.0}
    assert parts[0] == {"entropy": (2.0, 1.0)}  # the inputs are left alone


def test_rows_come_back_with_the_step_first(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(1, {"loss": jnp.float32(0.25), "updates": 8, "on": np.bool_(True)})
        log.write(2, {"loss": np.float64(0.125), "half": jnp.bfloat16(1.5)})
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.25, "updates": 8, "on": 1.0},
        {"step": 2, "loss": 0.125, "half": 1.5},
    ]
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text.startswith('{"step": 1, "loss": 0.25, "updates": 8')


def test_nan_and_inf_keep_the_file_valid_json_and_come_back(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0})
    line = (tmp_path / "metrics.jsonl").read_text()

    def refuse(name):
        raise AssertionError(f"not JSON: {name}")

    strict = json.loads(line, parse_constant=refuse)
    assert strict["a"] is None
    assert strict["non_finite"] == {"a": "nan", "b": "inf", "c": "-inf"}
    (row,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(row["a"])
    assert (row["b"], row["c"], row["d"]) == (math.inf, -math.inf, 1.0)


@pytest.mark.parametrize("value", [np.zeros(2), "high", None, [1.0, 2.0]])
def test_a_value_that_is_not_a_number_is_named(tmp_path, value):
    with (
        MetricsLog(tmp_path, tensorboard=False) as log,
        pytest.raises(ValueError, match="must be one number, got reward"),
    ):
        log.write(1, {"reward": value})
    assert read_metrics(tmp_path / "metrics.jsonl") == []


@pytest.mark.parametrize("name", ["step", "non_finite"])
def test_reserved_names_are_refused(tmp_path, name):
    with (
        MetricsLog(tmp_path, tensorboard=False) as log,
        pytest.raises(ValueError, match="must not be called"),
    ):
        log.write(1, {name: 3.0})


def test_steps_rise_also_after_opening_again(tmp_path):
    write_rows(tmp_path, [1, 2])
    with MetricsLog(tmp_path, tensorboard=False) as log:
        with pytest.raises(ValueError, match=r"last row has step 2, got 2 "):
            log.write(2, {"loss": 0.0})
        log.write(3, {"loss": 0.0})
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 3]


@pytest.mark.parametrize("torn", [b'{"step": 3, "lo', b"\0\0\0\0", b'{"step": 3}'])
def test_a_torn_last_line_is_left_out_and_cut_off(tmp_path, torn):
    write_rows(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    with open(path, "ab") as file:
        file.write(torn)
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    write_rows(tmp_path, [3])
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3]


def test_a_row_that_does_not_fit_on_the_disk_leaves_nothing(tmp_path):
    resource = pytest.importorskip("resource", reason="no limits on this system")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.write(1, {"loss": 1.0})
        size = log.path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 9, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                log.write(2, {"loss": 2.0})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert log.path.stat().st_size == size
        log.write(2, {"loss": 2.0})
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2]


def test_a_folder_deleted_under_the_run_is_said(tmp_path):
    with MetricsLog(tmp_path / "run", tensorboard=False) as log:
        log.write(1, {"loss": 1.0})
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(OSError, match=r"metrics.jsonl must stay in place .* gone"):
            log.write(2, {"loss": 2.0})


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2 is not a row"):
        read_metrics(path)


def test_no_file_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == []
    assert truncate_after(tmp_path / "metrics.jsonl", 3) == 0
    assert not (tmp_path / "metrics.jsonl").exists()


def test_truncate_after_keeps_the_dropped_rows_beside(tmp_path):
    write_rows(tmp_path, [1, 2, 3, 4])
    path = tmp_path / "metrics.jsonl"
    assert truncate_after(path, 2) == 2
    assert [row["step"] for row in read_metrics(path)] == [1, 2]
    write_rows(tmp_path, [3])
    assert truncate_after(path, 2) == 1
    dropped = read_metrics(tmp_path / "metrics.dropped.jsonl")
    assert [row["step"] for row in dropped] == [3, 4, 3]
    assert truncate_after(path, 2) == 0
    beside = tmp_path / "metrics.dropped.jsonl"
    beside.write_bytes(beside.read_bytes() + b'{"step": 4, "lo')  # killed there
    write_rows(tmp_path, [3])
    assert truncate_after(path, 2) == 1
    assert [row["step"] for row in read_metrics(beside)] == [3, 4, 3, 3]
    assert sorted(os.listdir(tmp_path)) == ["metrics.dropped.jsonl", "metrics.jsonl"]


def test_rows_survive_kill_9(tmp_path):
    code = textwrap.dedent(
        """
        import sys
        from jaxrl_reason.runs.metrics_log import MetricsLog
        log = MetricsLog(sys.argv[1])
        step = 0
        while True:
            step += 1
            log.write(step, {"loss": float(step)})
            print(step, flush=True)
        """
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as output:
        for line in output:
            if int(line) >= 5:
                process.send_signal(signal.SIGKILL)
                break
        process.wait()
        seen = [int(line), *map(int, output.read().split())]
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == list(range(1, len(steps) + 1))
    assert steps[-1] >= seen[-1]  # every step that was announced is there


def test_tensorboard_gets_the_scalars(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write(1, {"reward/mean": 0.5, "loss": math.nan})
    log.close()  # twice is fine
    with MetricsLog(tmp_path) as log:  # a resumed run opens a file of its own
        log.write(2, {"reward/mean": 0.75})
    events = list((tmp_path / "tensorboard" / "metrics").iterdir())
    assert events
    assert b"reward/mean" in b"".join(file.read_bytes() for file in events)


def test_another_name_keeps_its_own_file(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False, name="sft") as log:
        log.write(0, {"loss": 1.0})
    assert [path.name for path in tmp_path.iterdir()] == ["sft.jsonl"]
