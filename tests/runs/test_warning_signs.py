"""Rows in, warnings out."""

import math

import pytest

from jaxrl_reason.runs.run_warnings import (
    RunWarnings,
    StoppedByWarning,
    warnings_of_run,
)
from jaxrl_reason.runs.warning_signs import CAUSES, WarningSettings, warning_signs

GOOD = {
    "policy/loss": 0.01,
    "policy/grad_norm": 0.3,
    "policy/entropy": 0.8,
    "policy/skipped_update_fraction": 0.0,
    "reward/accuracy": 0.5,
    "reward/grader_failed_fraction": 0.0,
    "groups/equal_rewards_fraction": 0.3,
    "rollout/truncated_fraction": 0.1,
    "sampler/kl_k3": 1e-6,
}


def rows(*changes, good=20):
    """A run that goes well, then rows with changes."""
    usual = [
        {**GOOD, "policy/loss": 0.01 * math.sin(i), "step": i} for i in range(1, good)
    ]
    return usual + [
        {**GOOD, **change, "step": good + i} for i, change in enumerate(changes)
    ]


def causes(*changes, **settings):
    return [x.cause for x in warning_signs(rows(*changes), WarningSettings(**settings))]


def test_a_run_that_goes_well_has_no_warnings():
    history = rows({}, {})
    assert all(
        not warning_signs(history[:n], WarningSettings()) for n in range(len(history))
    )
    assert warning_signs([]) == []


@pytest.mark.parametrize(
    ("cause", "change", "count"),
    [
        ("loss_spike", {"policy/loss": 1.0}, 1),
        ("loss_spike", {"policy/loss": -1.0}, 1),
        ("entropy_at_0", {"policy/entropy": 0.001}, 5),
        (
            "reward_at_0",
            {"reward/accuracy": 0.0, "groups/equal_rewards_fraction": 1.0},
            5,
        ),
        (
            "reward_at_1",
            {"reward/accuracy": 1.0, "groups/equal_rewards_fraction": 1.0},
            5,
        ),
        ("sampler_drift", {"sampler/kl_k3": 0.2}, 1),
        ("truncated", {"rollout/truncated_fraction": 0.95}, 5),
        ("zero_gradient", {"policy/grad_norm": 0.0}, 5),
        ("zero_gradient", {"critic/grad_norm": 0.0}, 5),
        ("skipped_update", {"policy/skipped_update_fraction": 0.5}, 1),
        ("failed_grades", {"reward/grader_failed_fraction": 0.5}, 1),
    ],
)
def test_every_cause_is_seen_as_soon_as_it_lasts(cause, change, count):
    assert causes(*[change] * (count - 1)) == []
    assert causes(*[change] * count) == [cause]
    assert causes(*[change] * count, {}) == []
    assert causes(*[change] * count, off=(cause,)) == []
    (sign,) = warning_signs(rows(*[change] * count))
    assert str(sign).startswith(f"warning: step {20 + count - 1}: ")
    assert str(sign).endswith(f"[{cause}]")
    assert sign.look_at


def test_every_cause_has_a_case_above():
    seen = {
        mark.args[1][i][0]
        for mark in test_every_cause_is_seen_as_soon_as_it_lasts.pytestmark
        for i in range(len(mark.args[1]))
    }
    assert seen == set(CAUSES)


def test_rewards_that_differ_are_no_dead_end_though_nothing_is_right():
    assert causes(*[{"reward/accuracy": 0.0}] * 9) == []


def test_rows_of_any_loop_will_do():
    assert warning_signs([{"step": 1, "mine": 3.0}]) == []
    losses = [{"my/loss": 1.0 + 0.01 * (i % 3)} for i in range(12)]
    (sign,) = warning_signs([*losses, {"my/loss": 9.0}])
    assert (sign.cause, sign.step) == ("loss_spike", 13)
    assert warning_signs([*losses[:9], {"my/loss": 9.0}]) == []  # what is usual?
    assert warning_signs([*losses, {"my/loss": math.nan}]) == []


@pytest.mark.parametrize(
    ("before", "now", "spike"),
    [
        ([1.0] * 12, 1.5, True),
        ([1.0] * 12, 1.1, False),  # of a loss that stood still, 1% counts as usual
        ([0.0] * 12, 1e-3, False),  # and near 0 so much
        ([1.0] * 12 + [9.0], 9.0, False),  # as far off as it was before
        ([1.0] * 12 + [9.0], 9.1, True),
    ],
)
def test_a_spike_is_farther_off_than_ever_and_than_usual(before, now, spike):
    found = warning_signs([{"my/loss": loss} for loss in (*before, now)])
    assert [x.cause for x in found] == ["loss_spike"] * spike


def test_the_first_rows_of_a_run_are_too_few_for_a_sign_that_must_last():
    flat = {**GOOD, "policy/entropy": 0.0, "policy/grad_norm": 0.0}
    assert warning_signs([flat] * 4) == []
    assert len(warning_signs([flat] * 5)) == 2


def test_the_entropy_of_the_samples_will_do():
    flat = {"policy/entropy_sampled": 0.0}
    assert [x.cause for x in warning_signs([flat] * 5)] == ["entropy_at_0"]


def test_thresholds_are_checked():
    for name in ("loss_spike", "sampler_drift", "truncated", "failed_grades"):
        with pytest.raises(ValueError, match=f"{name} must be > 0, got 0"):
            WarningSettings(**{name: 0})
    with pytest.raises(ValueError, match="entropy must be >= 0, got -1"):
        WarningSettings(entropy=-1)
    with pytest.raises(ValueError, match="rows must be >= 1, got 0"):
        WarningSettings(rows=0)
    with pytest.raises(ValueError, match=r"off must be of loss_spike, .*, got 'spike'"):
        WarningSettings(off=("spike",))


def look_at(history, **options):
    told = []
    watch = RunWarnings(tell=told.append, **options)
    found = []
    for row in history:
        numbers = {name: x for name, x in row.items() if name != "step"}
        found.append({**row, **watch.look(row["step"], numbers)})
    return watch, told, found


def test_a_cause_is_said_once_and_is_in_every_row_where_it_holds():
    spike = {"policy/loss": 1.0}
    _, told, found = look_at(rows(spike, {}, {"policy/loss": 2.0}))
    assert len(told) == 1
    assert "policy/loss is 1, usually" in told[0]
    where = [row["step"] for row in found if "warning/loss_spike" in row]
    assert where == [20, 22]
    (warning,) = warnings_of_run(found)
    assert warning["cause"] == "loss_spike"
    assert (warning["first_step"], warning["last_step"]) == (20, 22)
    assert warning["rows"] == 2
    assert "policy/loss is 1, usually" in warning["what"]


def test_a_resumed_run_knows_what_is_usual():
    history = rows({"policy/loss": 1.0})
    _, told, _ = look_at(history[-1:])
    assert told == []
    _, told, _ = look_at(history[-1:], rows=history[:-1])
    assert len(told) == 1


def test_a_run_ends_on_the_causes_that_it_was_given():
    history = rows({"policy/loss": 1.0})
    watch, *_ = look_at(history)
    watch.stop_if_asked()
    watch, *_ = look_at(history, stop_on=("loss_spike",))
    assert watch.stopping
    with pytest.raises(StoppedByWarning, match="--stop-on loss_spike asks: warning: s"):
        watch.stop_if_asked()
    with pytest.raises(ValueError, match="stop_on must be of loss_spike"):
        RunWarnings(stop_on=("spike",))
