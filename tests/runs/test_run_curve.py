"""A run's evaluations over steps, tokens and compute, read from its folder."""

import json

import numpy as np
import pytest

from jaxrl_reason.runs.forecast import ENOUGH, binomial_errors
from jaxrl_reason.runs.metrics_log import MetricsLog
from jaxrl_reason.runs.run_curve import curve_of_rows, forecast_of, read_run_curve
from tests.runs.curve_helpers import write_run

ROWS = [
    {"step": 1, "rollout/tokens": 100.0, "time/step_s": 10.0},
    {
        "step": 2,
        "rollout/tokens": 300.0,
        "time/step_s": 12.0,
        "time/evaluate_s": 4.0,
        "heldout/accuracy": 0.5,
    },
    {"step": 3, "rollout/tokens": 50.0, "time/step_s": 9.0, "heldout/accuracy": 0.6},
]


@pytest.mark.parametrize(
    ("axis", "x"),
    [
        ("steps", [0, 2, 3]),
        ("tokens", [0, 400, 450]),
        ("compute", [0, 2 * 18 / 3600, 2 * 27 / 3600]),  # evaluation does not count
    ],
)
def test_an_axis_adds_up_what_was_done(axis, x):
    curve = curve_of_rows(ROWS, axis=axis, baseline=0.1, devices=2)
    np.testing.assert_allclose(curve.x, x)
    np.testing.assert_array_equal(curve.accuracy, [0.1, 0.5, 0.6])
    assert curve.errors is None
    assert curve.fit() is None


def test_errors_are_those_of_rows_or_of_the_number_of_problems():
    own = [ROWS[0], {**ROWS[1], "heldout/standard_error": 0.01}, ROWS[2]]
    assert curve_of_rows(own).errors is None  # one of two is not known
    errors = curve_of_rows(own, problems=100).errors
    wanted = [0.01, binomial_errors(np.array(0.6), 100)]
    np.testing.assert_allclose(errors, wanted)


def test_an_accuracy_that_is_not_finite_is_left_out():
    rows = [{"step": 1, "heldout/accuracy": float("nan")}, ROWS[1]]
    np.testing.assert_array_equal(curve_of_rows(rows).accuracy, [0.5])


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"of a must have rollout/tokens .* step 7"):
        curve_of_rows([*ROWS, {"step": 7}], axis="tokens", name="a")
    with pytest.raises(ValueError, match="must have time/step_s for the axis compute"):
        curve_of_rows([{"step": 7}], axis="compute")
    with pytest.raises(ValueError, match="one of steps, tokens, compute, got flops"):
        curve_of_rows(ROWS, axis="flops")


def test_a_folder_has_the_start_the_problems_and_the_devices(tmp_path):
    folder = write_run(tmp_path / "a", count=ENOUGH, devices=4)
    curve = read_run_curve(folder, "compute")
    assert curve.name == "a"
    assert curve.accuracy[0] == 0.25
    assert curve.x[:2].tolist() == [0, pytest.approx(4 * 15 / 3600)]
    assert curve.errors.max() < binomial_errors(np.array(0.5), 200)
    by_steps = read_run_curve(folder)
    found = forecast_of(by_steps, by_steps.fit())
    assert found["evaluations"] == ENOUGH + 1
    assert found["step"] == 2 * 5 * ENOUGH
    assert found["accuracy_low"] < found["accuracy"] < found["accuracy_high"]


def test_what_is_no_run_and_what_has_no_evaluation_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must have a config.json, got none in .*no"):
        read_run_curve(tmp_path / "no")
    folder = write_run(tmp_path / "a", count=0)
    with MetricsLog(folder, tensorboard=False) as log:
        log.write(1, {"reward/mean": 0.5})
    with pytest.raises(ValueError, match=r"must have evaluations .*, got none in .*a"):
        read_run_curve(folder)


def test_a_run_without_devices_and_start_is_read_too(tmp_path):
    folder = write_run(tmp_path / "a", count=2)
    (folder / "before.json").unlink()
    (folder / "config.json").write_text(json.dumps({"settings": {}}))
    curve = read_run_curve(folder)
    assert curve.x.tolist() == [5, 10]
    assert curve.errors is None
