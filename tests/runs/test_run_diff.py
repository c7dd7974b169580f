"""Where two runs part: rows, samples, arrays of checkpoints."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.cli.main import main
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import MetricsLog, read_metrics
from jaxrl_reason.runs.run_diff import (
    checkpoint_arrays,
    diff_runs,
    differing_arrays,
    differing_metrics,
    named_arrays,
)
from jaxrl_reason.runs.samples import write_samples
from tests.runs.checkpoint_helpers import State, make_state


def state(step: int) -> State:
    """Without the key, of which numpy has no array."""
    made = make_state(step)
    return State(made.step, made.params, made.opt_state, jnp.arange(step))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps, with checkpoints after the second and the fourth."""
    path = tmp_path_factory.mktemp("runs") / "a"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"settings": {"seed": 0, "x": 1}}))
    with MetricsLog(path, tensorboard=False) as log:
        for step in range(1, 5):
            row = {"loss": 1 / step, "odd": float("nan"), "time/step_s": 0.1}
            log.write(step, row)
            write_samples(path, step, [{"prompt": "p", "answer": f"a{step}"}], "train")
    checkpoints = CheckpointFolder(path / "checkpoints" / "rl")
    for step in (2, 4):
        arrays = {"tokens": np.arange(step)}
        checkpoints.save(step, {"policy": state(step)}, arrays=arrays)
    return path


@pytest.fixture
def pair(saved: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The run and a copy of it."""
    shutil.copytree(saved, tmp_path / "b")
    return saved, tmp_path / "b"


def write_rows(path: Path, rows: list[dict[str, float]]) -> None:
    path.unlink()
    with MetricsLog(path.parent, tensorboard=False) as log:
        for row in rows:
            log.write(int(row.pop("step")), row)


def test_a_copy_is_the_same(pair: tuple[Path, Path]) -> None:
    assert diff_runs(*pair) == []


def test_what_a_clock_says_and_how_far_a_run_went_is_no_difference(
    pair: tuple[Path, Path],
) -> None:
    path = pair[1] / "metrics.jsonl"
    rows = read_metrics(path)[:3]
    write_rows(
        path, [row | {"time/step_s": 7.0, "train/tokens_per_s": 1} for row in rows]
    )
    assert diff_runs(*pair) == []


def test_the_first_row_that_differs_by_one_bit(pair: tuple[Path, Path]) -> None:
    path = pair[1] / "metrics.jsonl"
    rows = read_metrics(path)
    for row in rows[2:]:
        row["loss"] = float(np.nextafter(row["loss"], 1))
    rows[2]["more"] = 1
    write_rows(path, rows)
    (found,) = diff_runs(*pair)
    assert (found.step, found.where) == (3, "metrics.jsonl")
    assert found.lines == [
        f"loss: A {1 / 3!r}, B {rows[2]['loss']!r}",
        "more: A absent, B 1",
    ]


def test_a_sample_and_an_array_that_differ(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_samples(pair[1], 4, [{"prompt": "p", "answer": "else"}], "train")
    checkpoints = CheckpointFolder(pair[1] / "checkpoints" / "rl")
    changed = state(2)
    changed.params["embed"] = changed.params["embed"].at[3, 1].add(0.5)
    checkpoints.save(2, {"policy": changed}, arrays={"tokens": np.arange(2)})
    (pair[1] / "config.json").write_text('{"settings": {"seed": 1, "x": 1}}')
    first, second = diff_runs(*pair)
    assert (first.step, first.where) == (2, "checkpoints/rl/00000002")
    assert first.lines == ["policy/params/embed: 1 of 128 elements, by up to 0.5"]
    assert (second.step, second.where) == (4, "samples/00000004-train.jsonl")
    assert second.lines == ["sample 1, answer: A a4, B else"]
    with pytest.raises(SystemExit) as ended:
        main(["diff", *map(str, pair)])
    assert ended.value.code == 1
    said = capsys.readouterr().out
    assert "setting seed: A 0, B 1" in said
    assert "first different in checkpoints/rl/00000002: step 2" in said


def test_the_arrays_of_a_checkpoint_come_back(saved: Path) -> None:
    found = checkpoint_arrays(CheckpointFolder(saved / "checkpoints" / "rl"), 4)
    wanted = named_arrays({"policy": state(4)}) | {"arrays/tokens": np.arange(4)}
    assert differing_arrays(found, wanted) == []


def test_a_damaged_checkpoint_is_named(pair: tuple[Path, Path]) -> None:
    (pair[1] / "checkpoints" / "rl" / "00000004" / "extra.json").write_text('{"x": 1}')
    with pytest.raises(
        ValueError, match=r"checkpoint 4 in .*b/.* damaged: extra\.json"
    ):
        diff_runs(*pair)


def test_a_folder_without_a_run(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must have a config\.json"):
        diff_runs(saved, tmp_path)


def test_no_negative_number_of_names_is_shown(
    saved: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["diff", str(saved), str(saved), "--shown", "-1"])
    assert "shown must be >= 0, got -1" in capsys.readouterr().err


def test_differences_of_arrays() -> None:
    a = {"x": np.zeros(3), "y": np.zeros(2), "z": np.array([np.nan]), "w": np.zeros(1)}
    b = {"x": np.zeros(2), "y": np.array([0.0, -0.0]), "z": np.array([np.nan])}
    assert differing_arrays(a, b) == [
        "w: only in A",
        "x: A float64[3], B float64[2]",
        "y: 1 of 2 elements, by up to 0",
    ]


def test_nan_is_itself() -> None:
    assert differing_metrics({"a": float("nan")}, {"a": float("nan")}) == []
    assert differing_metrics({"a": float("nan")}, {"a": 1.0}) == ["a: A nan, B 1.0"]
