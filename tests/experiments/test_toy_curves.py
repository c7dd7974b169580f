"""The script of the methods' curves: one recipe for two steps, and what it draws."""

import numpy as np
import pytest
from PIL import Image

from experiments import toy_curves as script
from experiments.toy_curves import PLAIN_GRPO, Options
from experiments.toys.toy_rounds import ROUNDS, run_rounds
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.recipes import RECIPES


@pytest.fixture
def options(tmp_path):
    return Options(
        only=("r1_zero",),
        steps=2,
        seeds=(0,),
        out=tmp_path / "pictures",
        runs=tmp_path / "runs",
    )


def kept(options):
    return {"out": options.out, "runs": options.runs}


@pytest.fixture
def ran(monkeypatch):
    """Names that were run; each gets two seeds of three steps."""
    names = []

    def accuracies(name, options, setup):
        names.append(name)
        if name == "mimo":
            raise NoSignalError("all right")
        return np.array([[0.1, 0.2, 0.3], [0.2, 0.3, 0.4]])

    monkeypatch.setattr(script, "accuracies", accuracies)
    return names


def test_a_recipe_runs_through_the_real_loop():
    found = script.accuracies(PLAIN_GRPO, Options(steps=2, seeds=(0,)))
    assert found.shape == (1, 2)
    assert ((found > 0) & (found < 1)).all()


def test_a_method_runs_in_rounds():
    found = run_rounds("irpo", seed=0, rounds=2)  # from the same fine-tuned model
    assert len(found) == 2
    assert all(0 < accuracy < 1 for accuracy in found)
    assert found[0] != found[1]


def test_only_what_is_asked_for_is_run_and_plain_grpo_once(options, ran):
    assert script.run_all(options) == []
    assert ran == [PLAIN_GRPO, "r1_zero"]
    assert [path.name for path in options.out.iterdir()] == ["r1_zero.png"]
    assert script.run_all(options) == []
    assert ran == [PLAIN_GRPO, "r1_zero", "r1_zero"]  # the grey line was kept


def test_pictures_are_small_and_drawn_again_without_a_run(options, ran):
    script.run_all(options)
    path = options.out / "r1_zero.png"
    first = path.read_bytes()
    assert len(first) < 25_000
    with Image.open(path) as picture:
        assert picture.size[0] < 500
    ran.clear()
    script.run_all(Options(only=("r1_zero",), **kept(options), draw_only=True))
    assert ran == []
    assert path.read_bytes() == first


def test_a_recipe_without_signal_is_named_and_the_others_go_on(options, ran, capsys):
    both = Options(only=("mimo", "r1_zero"), **kept(options))
    assert script.run_all(both) == ["mimo"]
    assert "mimo: all right" in capsys.readouterr().out
    assert [path.name for path in options.out.iterdir()] == ["r1_zero.png"]


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match=r"only must name recipes .*, got grpoo"):
        Options(only=("grpoo",))
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        Options(steps=0)
    with pytest.raises(ValueError, match="seeds must hold at least one, got none"):
        Options(seeds=())


def test_every_method_has_its_picture_on_a_page(root):
    pages = "".join(
        page.read_text("utf-8")
        for page in (root / "docs" / "losses" / "methods").glob("*.md")
    )
    pictures = root / "docs" / "images" / "methods"
    for name in (*RECIPES, *script.DISTILLED, *ROUNDS):
        assert f"../../images/methods/{name}.png)" in pages
        assert (pictures / f"{name}.png").stat().st_size < 25_000
