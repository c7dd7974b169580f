"""`jaxrl-reason compare`: a table, a picture, and folders that are no runs."""

import json
import struct

import pytest

from jaxrl_reason.cli.main import main
from jaxrl_reason.runs import forecast_plot
from tests.runs.curve_helpers import write_run


@pytest.fixture
def runs(tmp_path):
    """Two runs of eight evaluations and one of two, in the current folder."""
    good = write_run(tmp_path / "good", count=8, asymptote=0.8)
    bad = write_run(tmp_path / "bad", count=8, asymptote=0.3)
    return good, bad, write_run(tmp_path / "other" / "good", count=2)


@pytest.fixture
def drawn(monkeypatch):
    """The panels that were drawn, with few pixels."""
    panels = []
    figure = forecast_plot.Figure

    def small(**options):
        made = figure(**{**options, "dpi": 30})
        panels.append(made)
        return made

    monkeypatch.setattr(forecast_plot, "Figure", small)
    return panels


def test_runs_stand_beside_each_other(runs, tmp_path, capsys, drawn):
    out = tmp_path / "new" / "a.png"
    main(["compare", *map(str, runs), "--x", "steps", "--out", str(out)])
    head, first, second, third, _, note, written = capsys.readouterr().out.split("\n")[
        :7
    ]
    assert head.split("  ")[0] == "run"
    assert "forecast at 80 (80% band)" in head
    # Two are called good: these have their folders as names.
    assert first.startswith(str(runs[0]))
    assert second.startswith("bad ")
    assert third.startswith(str(runs[2]))
    assert " 9 " in first
    assert "needs 6 evaluations" in third
    assert note == "steps: RL step"
    assert written == str(out)
    assert out.read_bytes().startswith(b"\x89PNG")

    def end(line):
        return float(line.split("at 40")[1].split("%")[0])

    assert end(first) > 60 > 40 > end(second)
    (panel,) = drawn[0].axes
    assert panel.get_xlabel() == "RL step"
    # Of each fit a line up to the last measurement and one after it.
    dashed = [line for line in panel.lines if line.get_linestyle() == "--"]
    assert [(x.get_xdata()[0], x.get_xdata()[-1]) for x in dashed] == [(40, 80)] * 2


def test_the_picture_is_as_large_as_a_readme_wants(runs, tmp_path):
    out = tmp_path / "a.png"
    main(["compare", str(runs[0]), "--out", str(out)])
    assert struct.unpack(">II", out.read_bytes()[16:24])[0] == 1500


def test_a_forecast_ends_where_bands_were_checked(tmp_path, capsys, drawn):
    short = write_run(tmp_path / "short", count=6)
    long = write_run(tmp_path / "long", count=12)
    arguments = [str(short), str(long), "--x", "steps", "--ahead", "2.5"]
    main(["compare", *arguments, "--out", str(tmp_path / "a.png")])
    _, first, second, *_ = capsys.readouterr().out.split("\n")
    assert "at 30  too far" in first
    assert "too far" not in second
    dashed = [x for x in drawn[0].axes[0].lines if x.get_linestyle() == "--"]
    assert [line.get_xdata()[-1] for line in dashed] == [75, 150]


@pytest.mark.usefixtures("drawn")
def test_compute_is_that_of_all_devices(runs, tmp_path, capsys):
    folder = write_run(tmp_path / "many", count=6, devices=60)
    main(["compare", str(folder), "--ahead", "1", "--out", str(tmp_path / "a.png")])
    # 30 steps of 3 seconds on 60 devices.
    assert "at 1.5 " in capsys.readouterr().out
    main(["compare", str(folder), "--x", "tokens", "--out", str(tmp_path / "a.png")])
    assert "at 6e+04 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "runs must name at least one folder, got none"),
        (["nowhere"], "a run must have a config.json, got none in nowhere"),
        (["empty"], "a run must have evaluations"),
        (["good", "--ahead", "0.5"], "ahead must be from 1 to 2.5, got 0.5"),
    ],
)
@pytest.mark.usefixtures("runs")
def test_an_error_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, said):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"settings": {}}))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["compare", *arguments])
    assert said in f"{ended.value} {capsys.readouterr().err}"
    assert not (tmp_path / "compare.png").exists()
