"""The evidence for a loss: gradients, the nearest method, a toy, and the page."""

import functools
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from jaxrl_reason.testing import (
    INPUTS,
    LAWS,
    Law,
    Verdict,
    check_loss,
    random_arrays,
    write_loss_report,
)
from jaxrl_reason.testing.__main__ import load_loss, main
from jaxrl_reason.testing.check import case_of, verdicts
from jaxrl_reason.testing.evidence import gather_evidence
from jaxrl_reason.testing.finite_differences import compare_gradients
from jaxrl_reason.testing.page import summary
from jaxrl_reason.testing.published import nearest, published_losses, weighting
from jaxrl_reason.testing.toy import interval, learn
from tests.testing.faults import flipped_sign, right, sequences_for_tokens

FILE = """
import jax.numpy as jnp
from jaxrl_reason.losses import masked_total, token_mean, clipped_surrogate

def my_loss(logprobs, old_logprobs, advantages, mask, counts, *, clip=0.2):
    tokens = clipped_surrogate(
        logprobs, old_logprobs, advantages, mask, clip_low=clip, clip_high=clip
    )
    return token_mean(tokens, mask, counts), {}

def wrong_loss(logprobs, old_logprobs, advantages, mask, counts):
    value, metrics = my_loss(logprobs, old_logprobs, advantages, mask, counts)
    return -value, metrics
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "my_file.py"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "loss",
    [
        right,
        lib.gspo_loss,
        functools.partial(lib.cispo_loss, ratio_high=5.0),  # constants inside
    ],
    ids=["right", "gspo", "cispo"],
)
def test_gradients_are_those_of_differences_in_float64(loss) -> None:
    for found in compare_gradients(case_of(loss)):
        assert found.error < 1e-6, found


def test_a_gradient_that_is_not_the_values_shows() -> None:
    @jax.custom_vjp
    def twice_as_steep(x):
        return x

    twice_as_steep.defvjp(lambda x: (x, None), lambda _, g: (2.0 * g,))

    def steep(logprobs, *rest):
        return right(twice_as_steep(logprobs), *rest)

    check_loss(steep)  # no law is broken
    assert [x.error for x in compare_gradients(case_of(steep))] == pytest.approx(
        [1.0, 1.0], rel=1e-5
    )


def test_a_program_that_is_not_followed_says_why() -> None:
    def looped(logprobs, old, advantages, mask, counts):
        def add(total, x):
            return total + x, None

        tokens = -jnp.where(mask, logprobs * advantages, 0.0).astype(jnp.float32)
        total, _ = jax.lax.scan(add, jnp.float32(0), tokens.sum(1))
        return total / jnp.maximum(counts.tokens, 1), {}

    for found in compare_gradients(case_of(looped)):
        assert np.isnan(found.error)
        assert found.note


def test_the_nearest_published_loss_is_found() -> None:
    found = nearest(case_of(right))
    assert found[0].name == "dapo_loss"
    assert found[0].distance < 1e-6
    assert found[1].distance > 1e-2  # PPO's, whose clip ends earlier
    scaled = nearest(case_of(sequences_for_tokens))
    assert scaled[0].distance > 0.1
    assert min(scaled, key=lambda x: x.shape).shape > 1e-3


def test_every_policy_loss_can_be_a_neighbour() -> None:
    losses = published_losses()
    assert {"ppo_loss", "grpo_loss", "cispo_loss", "dr_grpo_loss"} <= losses.keys()
    inputs = ("entropy", "ref_logprobs", "sampler_logprobs", "weights", "selected")

    def takes_all(
        logprobs,
        old,
        advantages,
        mask,
        counts,
        *,
        entropy,
        ref_logprobs,
        sampler_logprobs,
        weights,
        selected,
        correct,
        positive_counts,
    ):
        return right(logprobs, old, advantages, mask, counts)

    names = {x.name.partition(",")[0] for x in nearest(case_of(takes_all))}
    assert names == losses.keys(), inputs


def test_the_mean_of_a_loss_is_told() -> None:
    assert weighting(case_of(right)) == ("token_mean", pytest.approx(1, rel=1e-5))
    found = weighting(case_of(lib.grpo_loss, inputs=[]))
    assert found == ("sequence_mean", pytest.approx(1, rel=1e-5))
    found = weighting(case_of(lib.rloo_loss, inputs=[]))
    assert found == ("sequence_sum_mean", pytest.approx(1, rel=1e-5))


def test_the_toy_learns_by_a_right_loss_alone() -> None:
    def last(loss) -> np.ndarray:
        outside = case_of(loss).loss
        return np.array(
            [learn(outside, seed, 40).accuracy[-5:].mean() for seed in (0, 1)]
        )

    assert (last(right) > 0.5).all()
    assert (last(flipped_sign) < 0.1).all()


def test_the_toy_is_the_same_for_a_seed() -> None:
    outside = case_of(right).loss
    first, again = (learn(outside, 3, 5).reward for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_the_interval_holds_the_mean() -> None:
    runs = np.random.default_rng(0).random((6, 10))
    low, high = interval(runs)
    assert (low <= runs.mean(0)).all()
    assert (runs.mean(0) <= high).all()


class Outside(HTMLParser):
    """What a page asks for from outside itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data") and value is not None:
                self.found += [value] if not value.startswith("#") else []


def test_the_command_writes_a_page_and_its_figures(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"{file}:my_loss", "--out", str(tmp_path), "--seeds", "3", "--steps", "40"]
    assert main([*words, "--set", "clip=0.3"]) == 0
    shown = capsys.readouterr().out
    assert "hold." in shown
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    parser = Outside()
    parser.feed(text)
    assert parser.found == []
    assert not {"script", "link", "img"} & parser.tags
    assert re.findall(r"url\((?!#|&quot;#)", text) == []
    assert text.count("<svg") == 3
    assert "my_loss(clip=0.3)" in text
    assert "(A &gt; 0: above 1.3; A &lt; 0: below 0.7)" in text

    said = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert said["passes"] is True
    assert {x["name"] for x in said["laws"]} >= {"micro-batches", "clip"}
    assert said["nearest"][0]["distance"] < 0.5
    curve = said["curves"]["my_loss(clip=0.3)"]
    assert len(curve["by_seed"]) == 3
    assert len(curve["mean"]) == len(curve["interval_low"]) == 40
    assert len(said["profiles"]["my_loss(clip=0.3)"]["A > 0"]["slope"]) > 100
    assert {len(x) for x in said["positions"].values()} == {4, 8, 16}


def test_a_loss_that_is_wrong_ends_with_status_1(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = f"{file}:wrong_loss"
    assert main([place, "--out", str(tmp_path), "--seeds", "2", "--steps", "4"]) == 1
    shown = capsys.readouterr().out
    assert "sign: at ratio 1 tokens of A > 0 must be pushed up" in shown
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "Faults found." in text
    assert text.index(">broken<") < text.index(">holds<")


def test_a_loss_that_cannot_be_traced_has_a_page_too(tmp_path: Path) -> None:
    path = tmp_path / "odd.py"
    path.write_text("def odd(*arrays):\n    return 1 / 0\n", encoding="utf-8")
    assert main([f"{path}:odd", "--out", str(tmp_path)]) == 1
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "ZeroDivisionError" in text
    assert "<svg" not in text


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("my_loss", r"must be my_file.py:my_loss, got 'my_loss'"),
        ("gone.py:my_loss", r"in a file that exists, got gone.py"),
        ("no.such.module:loss", r"in a module that exists, got no.such.module"),
        ("jaxrl_reason.losses:gone", r"a function of this name, got 'gone'"),
    ],
)
def test_a_loss_that_is_not_there_is_named(place: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_loss(place)
    assert main([place]) == 2


def test_a_loss_of_a_package_is_found() -> None:
    assert load_loss("jaxrl_reason.losses:ppo_loss") is lib.ppo_loss


PLUGIN = """
from my_file import my_loss, wrong_loss

def test_right(loss_evidence):
    loss_evidence(my_loss)

def test_wrong(loss_evidence):
    loss_evidence(wrong_loss, skip=["sign"])
"""


def test_the_plugin_has_a_fixture_and_writes_pages(
    file: Path, tmp_path: Path, root: Path
) -> None:
    (tmp_path / "my_file.py").write_text(FILE, encoding="utf-8")
    (tmp_path / "test_mine.py").write_text(PLUGIN, encoding="utf-8")
    command = "-m pytest -q -p jaxrl_reason.pytest_plugin -p no:cacheprovider"
    done = subprocess.run(
        [sys.executable, *command.split(), "--loss-report", "pages", "-k", "right"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{root}:{tmp_path}", "JAX_PLATFORMS": "cpu", "HOME": "/"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert (tmp_path / "pages" / "my_loss" / "index.html").exists()


def test_the_plugin_imports_nothing_of_the_library(root: Path) -> None:
    script = (
        "import sys, jaxrl_reason.pytest_plugin; names = 'jax', 'numpy', 'matplotlib';"
        "print([x for x in names if x in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_the_bounds_of_a_clip_are_found() -> None:
    evidence = gather_evidence(case_of(lib.gspo_loss, inputs=[]), seeds=2, steps=30)
    assert evidence.clips["A > 0"] == {"above": pytest.approx(1.0004, abs=1e-4)}
    assert evidence.clips["A < 0"] == {"below": pytest.approx(0.9997, abs=1e-4)}
    assert summary(evidence).startswith("All ")


@pytest.mark.fast
def test_public_names_do_what_they_say(tmp_path: Path) -> None:
    def odd(*arrays):
        return 1 / 0

    page = write_loss_report(odd, tmp_path)
    assert page == tmp_path / "odd" / "index.html"
    first = verdicts(case_of(odd))[0]
    assert isinstance(first, Verdict)
    assert isinstance(first.law, Law)
    assert first.law is LAWS[0]
    assert set(INPUTS) - random_arrays(0, INPUTS).keys() == set()
