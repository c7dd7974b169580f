"""The sigmoid of accuracy over compute: its form, its fit, and what a band holds."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit

from jaxrl_reason.runs.forecast import (
    DRIFT,
    ENOUGH,
    TREND,
    binomial_errors,
    fit_sigmoid,
    forecast,
    sigmoid,
)

STEPS = np.arange(0.0, 62.0, 2.0)
STORED = json.loads(Path(__file__).with_name("stored_curves.json").read_text("utf-8"))
HIDDEN = 0.6


def measured(truth, answers, seed):
    return np.random.default_rng(seed).binomial(answers, truth) / answers


def seen(count):
    """How many of `count` measurements are not hidden."""
    return round((1 - HIDDEN) * count)


def hits(compute, accuracy, errors, shown):
    """[n - shown] whether each hidden measurement is in the band."""
    known = None if errors is None else errors[:shown]
    fit = fit_sigmoid(compute[:shown], accuracy[:shown], known)
    low, _, high = forecast(fit, compute[shown:])
    return (low <= accuracy[shown:]) & (accuracy[shown:] <= high)


def test_the_form_is_that_of_the_paper():
    # R_0 + (A - R_0) / (1 + (C_mid / C)^B), by hand: 0.1 + 0.8 / (1 + (4 / 2)^3).
    assert sigmoid(2.0, 0.1, 0.9, 3.0, 4.0) == pytest.approx(0.1 + 0.8 / 9)
    assert sigmoid(4.0, 0.1, 0.9, 3.0, 4.0) == pytest.approx(0.5)  # half of the gain
    assert sigmoid(np.array([0.0]), 0.1, 0.9, 3.0, 4.0) == [0.1]


def test_a_curve_that_has_levelled_off_is_found_again():
    truth = sigmoid(STEPS, 0.2, 0.7, 2.0, 12.0)
    fit = fit_sigmoid(STEPS, truth, np.full(len(STEPS), 0.01))
    assert np.median(fit.start) == pytest.approx(0.2, abs=0.02)
    assert np.median(fit.asymptote) == pytest.approx(0.7, abs=0.03)
    assert np.median(fit.exponent) == pytest.approx(2.0, rel=0.2)
    assert np.median(fit.midpoint) == pytest.approx(12.0, rel=0.1)


def test_an_asymptote_that_was_not_seen_has_a_wide_interval():
    truth = sigmoid(STEPS, 0.2, 0.7, 2.0, 12.0)
    early, late = (
        fit_sigmoid(STEPS[:n], truth[:n], np.full(n, 0.02)).asymptote_band()
        for n in (6, 31)
    )
    assert early[0] < 0.7 < early[2]
    assert early[2] - early[0] > 0.3
    assert late[2] - late[0] < 0.1


def test_a_run_that_gets_worse_has_a_lower_asymptote():
    truth = sigmoid(STEPS, 0.6, 0.1, 2.0, 20.0)
    low, _, high = fit_sigmoid(STEPS, truth, np.full(31, 0.02)).asymptote_band()
    assert low < 0.1 < high < 0.25


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_an_asymptote_stays_inside_without_piling_up_at_the_end(level):
    fit = fit_sigmoid(STEPS, np.full(31, level), np.full(31, 0.05))
    near = np.abs(fit.asymptote - level)
    assert (near > 0).mean() > 0.99
    assert 0.002 < np.quantile(near, 0.1) < 0.05


@pytest.mark.parametrize("right", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("answers", [16, 512])
def test_a_run_that_stays_where_it_is_is_expected_there(right, answers):
    y = np.full(8, right)
    fit = fit_sigmoid(STEPS[:8], y, binomial_errors(y, answers))
    assert fit.trials == pytest.approx(answers, rel=1e-3)
    low, median, high = forecast(fit, 2 * STEPS[7:8])[:, 0]
    assert median == pytest.approx(right, abs=0.05)
    assert low <= right <= high


def test_another_unit_of_compute_changes_the_midpoint_alone():
    truth = sigmoid(STEPS, 0.2, 0.7, 2.0, 12.0)
    one = fit_sigmoid(STEPS[:12], truth[:12])
    other = fit_sigmoid(1e6 * STEPS[:12], truth[:12])
    np.testing.assert_allclose(other.midpoint, 1e6 * one.midpoint)
    np.testing.assert_allclose(forecast(other, 1e6 * STEPS), forecast(one, STEPS))


def test_the_same_measurements_give_the_same_forecast():
    truth = sigmoid(STEPS, 0.2, 0.7, 2.0, 12.0)
    bands = [forecast(fit_sigmoid(STEPS, truth), STEPS) for _ in range(2)]
    np.testing.assert_array_equal(*bands)


def test_a_measurement_with_a_large_error_counts_little():
    truth = sigmoid(STEPS, 0.2, 0.6, 2.0, 8.0)
    odd, errors = truth.copy(), np.full(31, 0.02)
    odd[-3:] += 0.2
    exact = forecast(fit_sigmoid(STEPS, odd, errors), np.array([120.0]))[1, 0]
    errors[-3:] = 0.5
    vague = forecast(fit_sigmoid(STEPS, odd, errors), np.array([120.0]))[1, 0]
    assert vague == pytest.approx(0.61, abs=0.02)
    assert exact > vague + 0.02


def test_a_band_holds_the_noise_of_a_measurement_and_the_drift_ahead():
    truth = sigmoid(STEPS, 0.2, 0.6, 2.0, 8.0)
    fit = fit_sigmoid(STEPS, measured(truth, 100, 0), binomial_errors(truth, 100))
    widths = np.diff(forecast(fit, np.array([60.0, 66.0, 120.0]))[::2], axis=0)[0]
    # 80% of a binomial of 100 answers at 0.6 is 0.6 +- 1.28 * 0.049.
    assert widths[0] == pytest.approx(2 * 1.28 * 0.049, rel=0.4)
    # Twice as far: DRIFT sqrt(ln 2) logits, each worth 0.24, as it has levelled off.
    wide = 2 * 1.28 * np.hypot(0.049, DRIFT * np.log(2) ** 0.5 * 0.24)
    assert widths[0] < widths[1] < widths[2] == pytest.approx(wide, rel=0.2)
    low, median, high = forecast(fit, np.array([90.0]))[:, 0]
    wider = forecast(fit, np.array([90.0]), level=0.98)[:, 0]
    assert wider[0] < low < median < high < wider[2]


def test_a_run_that_still_rises_has_a_wide_band():
    flat, rising = (sigmoid(STEPS, 0.2, 0.8, 2.0, mid) for mid in (4.0, 40.0))
    fits = [fit_sigmoid(STEPS, y, np.full(31, 0.001)) for y in (flat, rising)]
    found = []
    for y, fit in zip((flat, rising), fits, strict=True):
        low, _, high = logit(forecast(fit, np.array([120.0]))[:, 0])
        rise = logit(y[30]) - logit(y[15])  # from step 30 to 60; ahead is as much again
        wanted = np.hypot(DRIFT * np.log(2) ** 0.5, TREND * rise)
        found.append((high - low) / (2 * 1.2816))  # 80% of a normal
        assert found[-1] == pytest.approx(wanted, rel=0.1)
    assert found[1] > 1.5 * found[0]


def test_the_first_quarter_is_left_out():
    truth = sigmoid(STEPS, 0.2, 0.6, 2.0, 8.0)
    odd = truth.copy()
    odd[:7] = 0.9  # of 31
    fits = [fit_sigmoid(STEPS, y) for y in (truth, odd)]
    assert fits[0].first == 14.0
    assert fits[0].count == 31
    np.testing.assert_array_equal(*(forecast(fit, STEPS) for fit in fits))
    assert fit_sigmoid(STEPS[:7], truth[:7]).first == 2.0  # six are needed


def test_the_asymptote_is_in_its_interval_as_often_as_it_says():
    rng = np.random.default_rng(0)
    found, inside = [], []
    for seed in range(80):
        start, asymptote = rng.uniform(0.05, 0.4), rng.uniform(0.0, 1.0)
        shape = rng.uniform(1.0, 4.0), np.exp(rng.uniform(np.log(3), np.log(60)))
        truth = sigmoid(STEPS, start, asymptote, *shape)
        y, shown = measured(truth, 256, seed), seen(len(STEPS))
        errors = binomial_errors(y, 256)
        low, _, high = fit_sigmoid(
            STEPS[:shown], y[:shown], errors[:shown]
        ).asymptote_band()
        found.append(low <= asymptote <= high)
        inside.append(np.mean(hits(STEPS, y, errors, shown)))
    assert 0.7 <= np.mean(found) <= 0.9
    assert 0.75 <= np.mean(inside) <= 0.95


@pytest.mark.parametrize("axis", ["steps", "tokens"])
@pytest.mark.parametrize("later", [False, True], ids=["chosen on", "later"])
def test_a_band_of_80_percent_holds_what_real_runs_hide(axis, later):
    found = []
    for curve in STORED:
        if curve["later"] is later:
            y = np.array(curve["accuracy"])
            errors = binomial_errors(y, curve["samples"])
            inside = hits(np.array(curve[axis], float), y, errors, seen(len(y)))
            found.append(np.mean(inside))
    assert len(found) >= 16
    assert 0.65 <= np.mean(found) <= 0.95


@pytest.mark.parametrize(
    ("compute", "accuracy", "errors", "said"),
    [
        (STEPS[:5], STEPS[:5] / 9, None, f"must have >= {ENOUGH} measurements, got 5"),
        (STEPS[::-1], 0 * STEPS, None, "compute must be >= 0 and rise, got"),
        (STEPS - 1, 0 * STEPS, None, "compute must be >= 0 and rise, got"),
        (STEPS, STEPS, None, r"accuracy must be in \[0, 1\], got"),
        (STEPS, 0 * STEPS, 0 * STEPS, "errors must be > 0, got"),
        (STEPS, STEPS[:8], None, r"one shape \[n\], got \(31,\), \(8,\)"),
    ],
)
def test_what_cannot_be_fitted_is_refused(compute, accuracy, errors, said):
    with pytest.raises(ValueError, match=said):
        fit_sigmoid(compute, accuracy, errors)
    with pytest.raises(ValueError, match="answers must be > 0, got 0"):
        binomial_errors(np.array([0.5]), 0)


def test_a_level_is_a_probability():
    fit = fit_sigmoid(STEPS, 0 * STEPS + 0.5)
    with pytest.raises(ValueError, match=r"level must be in \(0, 1\), got 80"):
        forecast(fit, STEPS, level=80)
