import io
import math

import numpy as np
import pytest
from rich.console import Console

from jaxrl_reason.runs.progress import TrainingProgress, _clock_text


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def make(terminal=False, interval=10.0):
    file = io.StringIO()
    console = Console(
        file=file,
        force_terminal=terminal,
        width=100,
        color_system=None,
        _environ={"TERM": "xterm"},
    )
    clock = Clock()
    return TrainingProgress(interval, console, clock), file, clock


ROW = {
    "reward/mean": 0.412,
    "reward/accuracy": 0.381,
    "rollout/length_mean": 52.4,
    "policy/entropy": 0.812,
    "rollout/tokens_per_s": 8123.4,
    "policy/clip_fraction_low": 0.01,
}


def test_plain_lines_come_every_interval_and_at_the_end():
    progress, file, clock = make()
    with progress:
        progress.stage("RL", total=30)
        for step in range(1, 31):
            clock.now += 1.0
            progress.update(step, ROW)
    lines = file.getvalue().splitlines()
    assert lines[0] == "RL"
    assert [line.split(" | ")[0] for line in lines[1:]] == [
        "RL 1/30",
        "RL 11/30",
        "RL 21/30",
        "RL 30/30",
    ]
    assert lines[2] == (
        "RL 11/30 | reward 0.41 | right 38.1% | length 52 | entropy 0.81 | "
        "8,123 tokens/s | 0:19 left"
    )
    assert lines[-1].endswith("took 0:30")


@pytest.mark.parametrize("terminal", [False, True])
def test_a_stage_ends_with_its_last_step_not_with_what_follows(terminal):
    progress, file, clock = make(terminal)
    with progress:
        progress.stage("sft", total=2)
        progress.update(1)
        clock.now += 65.0
        progress.update(2)
        clock.now += 40.0  # an evaluation
        progress.note("before RL: 12.5%")
        progress.stage("RL", total=1)
        progress.update(1)
    text = file.getvalue()
    assert text.count("took 1:05") == 1
    assert text.count("took 0:00") == 1
    assert text.index("took 1:05") < text.index("before RL")


def test_the_time_left_leaves_the_first_step_out():
    progress, file, clock = make(interval=0.0)
    with progress:
        progress.stage("RL", total=5)
        clock.now += 100.0  # compiles
        progress.update(1)
        clock.now += 2.0
        progress.update(2)
    lines = file.getvalue().splitlines()
    assert lines[1:] == [
        "RL 1/5 | 1:40 elapsed",
        "RL 2/5 | 0:06 left",
        "RL 2/5 | took 1:42",
    ]


def test_a_resumed_stage_reckons_from_where_it_began():
    progress, file, clock = make(interval=0.0)
    with progress:
        progress.stage("RL", total=100, start=90)
        for step in (91, 92):
            clock.now += 3.0
            progress.update(step)
    assert "RL 92/100 | 0:24 left" in file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"reward": None, "accuracy": math.nan, "length": math.inf},
        {"reward": "high", "entropy": [1, 2], "unknown": 3},
        {"reward": np.float32(0.5), "length": np.int64(3)},
    ],
)
def test_an_odd_metric_breaks_nothing(terminal, numbers):
    progress, file, _ = make(terminal, interval=0.0)
    with progress:
        progress.update(1, **numbers)  # without a stage, too
        progress.stage("[RL]")
        progress.update(1, None, **numbers)
        progress.update(2, {"accuracy": None}, **{**numbers, "loss": 1.0})
    text = file.getvalue()
    assert "[RL]" in text
    assert "loss 1.000" in text
    for odd in ("nan", "inf", "None", "high", "unknown"):
        assert odd not in text
    assert ("reward 0.50" in text) == isinstance(numbers.get("reward"), np.float32)


def test_heldout_accuracy_stays_until_there_is_a_newer_one():
    progress, file, _ = make(interval=0.0)
    with progress:
        progress.stage("RL", total=4)
        progress.update(1, {"heldout/accuracy": 0.25})
        progress.update(2, {})
        progress.update(3, {"heldout/accuracy": math.nan})
        progress.stage("next")
        progress.update(1)
    lines = [line for line in file.getvalue().splitlines() if "|" in line]
    assert all("held-out 25.0%" in line for line in lines[:4])
    assert "held-out" not in lines[4]


def test_a_terminal_gets_a_bar_and_one_line_a_finished_stage():
    progress, file, clock = make(terminal=True)
    with progress:
        progress.stage("sft", total=2)
        progress.update(1, loss=2.0)
        progress.note("a [note]")
        clock.now += 65
        progress.update(2, loss=1.0)
        progress.stage("RL", total=4)
        progress.update(2, ROW)
        progress._live._live.refresh()
    text = file.getvalue()
    assert "a [note]" in text
    assert "sft   2/2   took 1:05   loss 1.000" in text
    assert "━" in text
    assert "reward 0.41   right 38.1%   length 52" in text


def fail(progress):
    with progress:
        progress.stage("RL", total=4)
        progress.update(1, ROW)
        raise RuntimeError("no signal")


def test_an_error_passes_and_leaves_the_console_as_it_was():
    for terminal in (False, True):
        progress, file, _ = make(terminal)
        with pytest.raises(RuntimeError, match="no signal"):
            fail(progress)
        assert "took" in file.getvalue()
        if terminal:
            assert file.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_clock_texts():
    assert [_clock_text(x) for x in (-1, 59.6, 75, 4000)] == [
        "0:00",
        "1:00",
        "1:15",
        "1:06:40",
    ]
