import math
import struct

import matplotlib
import numpy as np
import pytest

from jaxrl_reason.runs import plots
from jaxrl_reason.runs.forecast import forecast
from jaxrl_reason.runs.plots import plot_comparison, plot_run
from jaxrl_reason.runs.run_curve import curve_of_rows


def make_rows(count, seed=0, every=5):
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, count + 1):
        row = {
            "step": step,
            "reward/mean": 0.3 + 0.002 * step + rng.normal(0, 0.02),
            "policy/entropy": 0.8,
            "rollout/length_mean": 50.0,
            "rollout/length_correct": 40.0,
            "rollout/length_wrong": 60.0,
            "policy/clip_fraction_low": 0.004,
            "policy/clip_fraction_high": 0.01,
            "time/step_s": 3.0,  # one more when it evaluates, see below
        }
        if step % every == 0:
            row["heldout/accuracy"] = 0.25 + 0.01 * step / every
            row["time/step_s"], row["time/evaluate_s"] = 4.0, 1.0
        rows.append(row)
    return rows


def size(path):
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, to look at what is in them."""
    figures = []
    save = plots._save

    def keep(figure, path):
        figures.append(figure)
        figure.set_dpi(30)  # quicker
        return save(figure, path)

    monkeypatch.setattr(plots, "_save", keep)
    return figures


def labels(panel):
    return [text.get_text() for text in panel.get_legend().get_texts()]


def test_a_picture_is_as_large_as_a_readme_wants(tmp_path):
    rows = make_rows(60)
    assert size(plot_run(rows, tmp_path / "curves.png")) == (1500, 1080)
    assert size(plot_comparison({"a": [(0, rows)]}, tmp_path / "b.png"))[0] == 1500


def test_one_run_has_four_panels_that_say_what_they_show(tmp_path, drawn):
    path = plot_run(
        make_rows(60),
        tmp_path / "new" / "curves.png",
        title="a run",
        baseline=0.25,
        length_limit=96,
        clip_range=(0.2, 0.28),
    )
    assert path.is_file()
    (figure,) = drawn
    accuracy, entropy, length, clipped = figure.axes
    assert labels(accuracy) == [
        "reward of the samples",
        "held-out accuracy (last 37.0%)",
        "before RL (25.0%)",
    ]
    assert labels(entropy) == ["entropy of the policy"]
    assert labels(length) == ["wrong answers", "all", "right answers", "limit (96)"]
    assert labels(clipped) == ["ratio above 1 + 0.28", "ratio below 1 − 0.2"]
    for panel in figure.axes:
        assert panel.get_title()
        assert panel.get_xlabel() == "RL step"
        assert panel.get_ylabel()
        assert panel.get_ylim()[0] == 0
    assert length.get_ylim()[1] > 96
    assert "mean over 5 steps" in figure.get_supxlabel()


def test_a_forecast_reaches_to_twice_the_steps(tmp_path, drawn):
    rows = make_rows(60)
    fit = curve_of_rows(rows, baseline=0.25).fit()
    plot_run(rows, tmp_path / "a.png", baseline=0.25, fit=fit)
    panel = drawn[0].axes[0]
    low, _, high = forecast(fit, np.array([120.0]))[:, 0]
    name = f"forecast: {low:.0%} to {high:.0%} at 120 (80% band)"
    assert name in labels(panel)
    (dashed,) = (line for line in panel.lines if line.get_label() == name)
    assert dashed.get_xdata()[[0, -1]].tolist() == [60, 120]
    assert panel.dataLim.intervalx.tolist() == [0, 120]
    assert drawn[0].axes[1].dataLim.intervalx.tolist() == [1, 60]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [{"step": 1}],
        make_rows(1),
        [
            {"step": step, "policy/entropy": math.nan, "reward/mean": None}
            for step in (1, 2)
        ],
        [
            {
                "step": 1,
                "reward/mean": -1.0,
                "rollout/length_mean": math.inf,
                "policy/entropy": 0.0,
            }
        ],
        [{"step": 7, "reward/mean": -0.5, "heldout/accuracy": 0.0}],
    ],
)
def test_thin_runs_have_a_picture_too(tmp_path, rows, drawn):
    baseline = 0.25 if len(rows) == 1 else math.nan
    size(plot_run(rows, tmp_path / "a.png", baseline=baseline, length_limit=64))
    runs = [(0, rows)]
    size(
        plot_comparison(
            {"a": runs}, tmp_path / "b.png", controls={"c": runs}, baseline=0.25
        )
    )


def test_a_panel_without_data_says_so(tmp_path, drawn):
    plot_run([{"step": 1, "policy/entropy": 0.5}], tmp_path / "a.png")
    plot_run([{"step": 1, "policy/entropy": 0.5}], tmp_path / "a.png", length_limit=64)
    for figure in drawn:
        texts = [[text.get_text() for text in panel.texts] for panel in figure.axes]
        assert texts == [["not measured"], [], ["not measured"], ["not measured"]]


def test_a_nan_is_left_out_of_the_line_and_the_smoothing(tmp_path, drawn):
    rows = make_rows(40)
    rows[10]["policy/entropy"] = math.nan
    plot_run(rows, tmp_path / "a.png")
    raw, smooth = drawn[0].axes[1].lines
    assert len(raw.get_xdata()) == 39
    np.testing.assert_allclose(smooth.get_ydata(), 0.8)


def test_negative_rewards_are_inside_the_panel(tmp_path, drawn):
    rows = [{"step": i, "reward/mean": -1.0 + 0.01 * i} for i in range(30)]
    plot_run(rows, tmp_path / "a.png")
    assert drawn[0].axes[0].get_ylim()[0] < -1.0


def test_smoothing_keeps_a_straight_line_inside_and_the_mean_at_the_ends():
    values = np.arange(60.0)
    smooth = plots._smooth(values)
    np.testing.assert_allclose(smooth[2:-2], values[2:-2])
    assert smooth[0] == 1.0  # of 0, 1, 2
    assert smooth[-1] == 58.0
    np.testing.assert_allclose(plots._smooth(np.array([3.0])), [3.0])


def test_a_comparison_draws_every_seed_and_the_mean(tmp_path, drawn):
    dapo = [(seed, make_rows(60, seed)) for seed in range(3)]
    for seed, rows in dapo:
        for row in rows:
            if "heldout/accuracy" in row:
                row["heldout/accuracy"] += 0.1 * seed
    control = [
        (
            seed,
            [{"step": 0, "heldout/accuracy": 0.25, "time/sft_s": 0.0}]
            + [
                {
                    "step": 500,
                    "heldout/accuracy": 0.3 + 0.02 * seed,
                    "time/sft_s": 180.0,
                }
            ],
        )
        for seed in range(2)
    ]
    path = plot_comparison(
        {"DAPO": dapo, "GRPO": [(0, make_rows(60))]},
        tmp_path / "compare.png",
        controls={"supervised": control},
        baseline=0.25,
        title="three seeds",
    )
    assert path.is_file()
    (figure,) = drawn
    by_step, by_time = figure.axes
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == [
        "DAPO: 47.0% at the end (mean of 3 seeds)",
        "GRPO: 37.0% at the end (1 seed)",
        "supervised: 31.0% at the end (mean of 2 seeds)",
        "before RL (25.0%)",
    ]
    mean = by_step.lines[3]
    np.testing.assert_array_equal(mean.get_xdata(), np.arange(5, 61, 5))
    np.testing.assert_allclose(mean.get_ydata()[-1], 0.47)
    np.testing.assert_allclose(by_time.lines[3].get_xdata()[-1], 60 * 3.0 / 60)
    band = by_step.patches[0].get_extents().transformed(by_step.transData.inverted())
    np.testing.assert_allclose([band.y0, band.y1], [0.3, 0.32])
    assert by_time.get_xlabel() == "minutes"


def test_the_mean_is_drawn_only_where_every_seed_was_measured(tmp_path, drawn):
    runs = [(0, make_rows(60)), (1, make_rows(30))]
    plot_comparison({"a": runs}, tmp_path / "a.png")
    assert drawn[0].axes[0].lines[2].get_xdata()[-1] == 30


def test_drawing_leaves_the_programs_backend_alone(tmp_path, drawn):
    before = dict.__getitem__(matplotlib.rcParams, "backend")
    plot_run(make_rows(2), tmp_path / "a.png")
    assert dict.__getitem__(matplotlib.rcParams, "backend") == before
