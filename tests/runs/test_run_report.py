import dataclasses
import json

import numpy as np

from jaxrl_reason.runs.run_curve import RunCurve, forecast_of
from jaxrl_reason.runs.run_report import Report, duration, write_report
from jaxrl_reason.runs.run_warnings import warnings_of_run

REPORT = Report(
    name="first",
    method="dapo",
    seed=1,
    steps=150,
    heldout_problems=512,
    heldout_accuracy_before=0.25,
    heldout_accuracy_rl=np.float32(0.5),
    heldout_samples=8,
    heldout_avg_before=0.2,
    heldout_avg_rl=0.45,
    wall_seconds={"sft": 90.0, "rl": 330.5},
    rollout_tokens_per_second=8123.4,
    train_tokens_per_second=12345.6,
    peak_memory_bytes=700 * 2**20,
    compiles_after_warm_up=0,
    settings={"seed": 1},
    versions={"jax": "0.10.2"},
)


def test_the_keys_are_always_the_same(tmp_path):
    full = json.loads(write_report(tmp_path, REPORT).read_text())
    bare = json.loads(write_report(tmp_path, Report("a", "grpo", 0)).read_text())
    assert list(full) == list(bare)
    assert list(full) == [
        *(f.name for f in dataclasses.fields(Report)),
        "wall_seconds_total",
        "heldout_gain_points",
    ]
    assert full["heldout_gain_points"] == 25.0
    assert full["wall_seconds_total"] == 420.5
    assert full["heldout_accuracy_rl"] == 0.5
    assert bare["heldout_accuracy_rl"] is None
    assert bare["heldout_gain_points"] is None


def test_nan_is_null(tmp_path):
    report = dataclasses.replace(REPORT, heldout_accuracy_rl=float("nan"), name="nan")
    found = json.loads(write_report(tmp_path, report).read_text())
    assert found["heldout_accuracy_rl"] is None
    assert found["heldout_gain_points"] is None
    assert found["name"] == "nan"


def test_the_page_reads(tmp_path):
    write_report(tmp_path, REPORT)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Report of first\n\ndapo, seed 1, 150 steps, finished.\n")
    assert "| held-out accuracy (512 problems) | before RL | after RL | gain |" in text
    assert "| greedy | 25.0% | 50.0% | +25.0 points |" in text
    assert "| mean of 8 samples, temperature 1 | 20.0% | 45.0% | +25.0 points |" in text
    assert "| total | 7 min 00 s |" in text
    assert "- peak memory: 700 MiB" in text


def test_a_forecast_is_in_the_page_and_in_the_keys(tmp_path):
    curve = RunCurve("", np.arange(8.0), np.linspace(0.2, 0.5, 8), None)
    found = forecast_of(curve, curve.fit())
    path = write_report(tmp_path, dataclasses.replace(REPORT, forecast=found))
    assert json.loads(path.read_text())["forecast"] == found
    text = path.with_suffix(".md").read_text()
    assert "\nForecast from 8 evaluations, with bands of 80%: " in text
    shown = f"{found['accuracy']:.1%} ({found['accuracy_low']:.1%} to "
    assert shown in text
    assert " at step 14; asymptote of the fitted sigmoid " in text
    write_report(tmp_path, REPORT)
    assert "Forecast" not in path.with_suffix(".md").read_text()


def test_a_stopped_run_without_evaluation_has_a_page(tmp_path):
    write_report(tmp_path, Report("a", "grpo", 0, finished=False))
    text = (tmp_path / "report.md").read_text()
    assert "grpo, seed 0, stopped before its end." in text
    assert "held-out" not in text


def test_durations_round_over_the_units():
    assert duration(59.94) == "59.9 s"
    assert duration(59.96) == "1 min 00 s"
    assert duration(119.7) == "2 min 00 s"
    assert duration(3599.9) == "1 h 00 min"


def test_warnings_are_in_the_page_and_in_the_keys(tmp_path):
    rows = [{"step": i, "sampler/kl_k3": 0.0} for i in range(1, 4)]
    odd = {"sampler/kl_k3": 0.5, "warning/sampler_drift": 1.0}
    rows += [{"step": i, **odd} for i in (4, 5)]
    report = dataclasses.replace(REPORT, warnings=warnings_of_run(rows))
    path = write_report(tmp_path, report)
    (warning,) = json.loads(path.read_text())["warnings"]
    assert warning["cause"] == "sampler_drift"
    text = path.with_suffix(".md").read_text()
    assert "| sampler_drift | 4 to 5, 2 rows | sampler and trainer differ by" in text
    page = write_report(tmp_path, REPORT).with_suffix(".md")
    assert "| warning |" not in page.read_text()
