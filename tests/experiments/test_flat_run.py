"""The script that watches a long run, over a few steps."""

import pytest

from experiments.benchmarks import flat_run


def test_a_short_run_gives_all_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(flat_run, "BLOCK", 2)
    blocks = flat_run.run(6, tmp_path)
    assert [x.last for x in blocks] == [2, 4, 6]
    assert all(x.step_ms > 0 and x.memory_mib > 0 and x.files > 0 for x in blocks)
    assert flat_run.change(blocks, "last") == pytest.approx(0.5)


def test_steps_come_in_hundreds():
    with pytest.raises(ValueError, match="a multiple of 100 and >= 300, got 350"):
        flat_run.Options(steps=350)
