"""Figures and their intervals, against direct formulas and simulation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from jaxrl_reason.evaluation import gsm_plus
from jaxrl_reason.evaluation.statistics import (
    bootstrap,
    greedy_figures,
    mean_estimate,
    response_figures,
    sampled_figures,
    wilson,
)
from jaxrl_reason.losses import asp, pdr
from jaxrl_reason.tasks.benchmarks import math_answers
from jaxrl_reason.tasks.question_files import SEED
from jaxrl_reason.tasks.questions import Question


class Characters:
    """A tokenizer of one token a character, without control tokens."""

    vocab_size, pad_token_id, eos_token_id = 130, 128, 129

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(map(chr, ids))


def record(correct: Any, parsed: str | None = "x", **more: Any) -> dict[str, Any]:
    base = {"correct": bool(correct), "parsed": parsed, "failed": False}
    return {**base, "answered": True, "truncated": False, "length": 10, **more}


@pytest.mark.parametrize(("right", "count"), [(0, 30), (3, 30), (30, 30), (660, 1319)])
def test_wilson_solves_its_equation(right: int, count: int) -> None:
    # The ends are the p at which |right/n - p| is 1.96 standard errors of p.
    found = wilson(right, count)
    for p in (found.low, found.high):
        error = math.sqrt(p * (1 - p) / count)
        if error:
            assert abs(right / count - p) / error == pytest.approx(1.959964, rel=1e-6)
    assert found.low <= found.value <= found.high
    assert found.count == count


def test_wilson_of_nothing_and_of_nonsense() -> None:
    assert math.isnan(wilson(0, 0).value)
    with pytest.raises(ValueError, match="right must be from 0 to 3, got 4"):
        wilson(4, 3)


@pytest.mark.parametrize("spread", [0.05, 0.2])
def test_the_interval_of_a_mean_agrees_with_the_normal_one(spread: float) -> None:
    values = np.random.default_rng(0).normal(0.5, spread, size=900).clip(0, 1)
    found = mean_estimate(values.tolist())
    half = 1.96 * values.std() / 30
    assert found.value == pytest.approx(values.mean(), rel=1e-6)
    assert found.low == pytest.approx(values.mean() - half, abs=2e-3)
    assert found.high == pytest.approx(values.mean() + half, abs=2e-3)


@pytest.mark.parametrize("values", [[0.0] * 6, [1.0] * 6, [0.5] * 6, [0.25] * 40])
def test_no_interval_is_without_width(values: list[float]) -> None:
    found = mean_estimate(values)
    assert found.low <= values[0] <= found.high
    assert found.high - found.low > 0.01
    # The faulty form: all resamples of equal values are equal.
    resampled = bootstrap(
        np.divide, np.array(values), np.ones(len(values)), interval="bootstrap"
    )
    assert resampled.low == resampled.high


def test_binary_values_have_the_wilson_interval_and_nan_is_left_out() -> None:
    values = [0.0, 1.0, math.nan, 1.0]
    found, expected = mean_estimate(values), wilson(2, 3)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.count == 3
    assert math.isnan(mean_estimate([]).value)
    assert math.isnan(mean_estimate([math.nan]).low)
    with pytest.raises(ValueError, match=r"from 0 to 1, got 0\.0 to 2\.0"):
        mean_estimate([0.0, 2.0])


def test_the_interval_of_a_mean_covers_it() -> None:
    # Of 19 in 20 draws of 20 questions, whose fractions are of 4 samples each.
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        solved = rng.beta(0.5, 2.0, size=20)
        found = mean_estimate((rng.binomial(4, solved) / 4).tolist())
        covered += found.low <= 0.2 <= found.high
    assert 0.92 <= covered / 400 <= 0.99


def test_resamples_without_a_value_are_left_out() -> None:
    rows = np.array([1.0, 1.0]), np.array([0.0, 1.0])
    found = bootstrap(np.divide, *rows, interval="bootstrap")
    assert found.value == 2.0
    assert np.isfinite([found.low, found.high]).all()


def test_both_figures_where_grades_have_failed() -> None:
    # 5 right and 5 failed are not 100%.
    records = {i: [record(i < 5, failed=i >= 5)] for i in range(10)}
    found = greedy_figures(records)
    assert (found["accuracy"].value, found["accuracy"].count) == (0.5, 10)
    assert (found["accuracy, graded"].value, found["accuracy, graded"].count) == (
        1.0,
        5,
    )
    assert list(greedy_figures({0: [record(1)]})) == ["accuracy"]


def test_votes_are_by_equality() -> None:
    answers = [r"\sqrt{8}", r"2\sqrt{2}", "3", "3", "3.0"]
    right = [1, 1, 0, 0, 0]
    rows = [record(*pair) for pair in zip(right, answers, strict=True)][:4]
    task = math_answers(Characters())
    by_form = sampled_figures({0: rows})["maj@4"]
    assert by_form.value == 1.0  # the right ones are one answer, and come first
    wrong = [record(0, a) for a in (r"\sqrt{2}", r"2^{1/2}", r"\frac{2}{\sqrt{2}}")]
    rows = [record(1, "5"), record(1, "5.0"), *wrong]
    assert sampled_figures({0: rows})["maj@5"].value == 1.0
    assert sampled_figures({0: rows}, task.same_answer)["maj@5"].value == 0.0


def test_samples() -> None:
    answers = {"A": 1, "B": 0, "C": 0}
    drawn = "ABACBA", "BBBBBB", "AAAAAA"
    records = {i: [record(answers[a], a) for a in row] for i, row in enumerate(drawn)}
    found = {name: figure.value for name, figure in sampled_figures(records).items()}
    assert list(found) == ["avg@6", "pass@1", "pass@2", "pass@4", "pass@6", "maj@6"]
    assert found["avg@6"] == pytest.approx((0.5 + 0 + 1) / 3, rel=1e-6)
    assert found["pass@1"] == pytest.approx(found["avg@6"], rel=1e-6)
    assert found["pass@2"] == pytest.approx((0.8 + 0 + 1) / 3, rel=1e-6)
    assert found["pass@6"] == pytest.approx(2 / 3, rel=1e-6)
    assert found["maj@6"] == pytest.approx(2 / 3, rel=1e-6)


def test_failed_and_truncated_samples() -> None:
    rows = [
        record(0, "A", truncated=True),  # never right, so it must not vote
        record(1, "A"),
        record(0, None),
        record(0, "B", failed=True),
    ]
    failed = [record(0, None, failed=True)] * 4
    found = sampled_figures({0: rows, 1: failed})
    assert found["avg@4"].value == pytest.approx(1 / 8, rel=1e-6)
    assert found["avg@4"].count == 2
    assert found["pass@4"].value == 0.5
    assert found["maj@4"].value == 0.5
    assert found["avg@4, graded"].value == pytest.approx(1 / 3, rel=1e-6)
    assert found["avg@4, graded"].count == 1
    assert found["pass@2, graded"].value == pytest.approx(2 / 3, rel=1e-6)
    assert math.isnan(found["pass@4, graded"].value)
    assert found["maj@4, graded"].value == 1.0


def test_responses_are_described() -> None:
    rows = [record(1, length=4), record(0, truncated=True, answered=False, length=8)]
    assert response_figures({0: rows}) == {
        "questions": 1,
        "responses": 2,
        "failed_grades": 0,
        "too_long": 0,
        "unchecked": 0,
        "no_answer": 0.5,
        "truncated": 0.5,
        "mean_length": 6.0,
    }


def families(
    seeds: Sequence[int], variants: Sequence[Sequence[int]]
) -> tuple[list[Question], dict[int, list[dict[str, Any]]]]:
    """Questions and records of seeds [N] and variants [N, D]."""
    questions, records = [], {}
    for seed, row in zip(seeds, variants, strict=True):
        first = len(questions)
        questions.append(Question(first, "?", "4", SEED))
        records[first] = [record(seed)]
        for kind, right in enumerate(row):
            questions.append(Question(len(questions), "?", "4", f"kind {kind}", first))
            records[len(questions) - 1] = [record(right)]
    return questions, records


def test_gsm_plus_worked_example() -> None:
    seeds, variants = [1, 1, 0, 1], [[1, 0], [1, 1], [1, 0], [0, 1]]
    found = gsm_plus.robustness(*families(seeds, variants))
    value = {name: figure.value for name, figure in found.items()}
    assert value["seeds"] == 0.75
    assert value["variants"] == 0.625
    assert value["PDR"] == pytest.approx(1 / 6, rel=1e-6)
    assert value["PDR"] == pytest.approx(float(pdr(0.75, 0.625)), rel=1e-6)
    assert value["ASP"] == 0.5
    assert value["ASP"] == float(asp(np.array(seeds), np.array(variants)))
    assert value["kind 0"] == 0.75
    assert value["kind 0 PDR"] == 0.0
    assert value["kind 1 ASP"] == 0.5
    assert found["kind 1"].interval == "bootstrap over seeds and four more"
    assert found["ASP"].count == 4


def test_gsm_plus_without_a_solved_seed_has_no_pdr() -> None:
    found = gsm_plus.robustness(*families([0, 0], [[1], [0]]))
    assert math.isnan(found["PDR"].value)
    assert found["ASP"].value == 0.0


def test_gsm_plus_shows_failed_grades_both_ways() -> None:
    questions, records = families([1, 1], [[1], [1]])
    records[3] = [record(0, failed=True)]
    found = gsm_plus.robustness(questions, records)
    assert found["variants"].value == 0.5
    assert found["ASP"].value == 0.5
    assert found["variants, graded"].value == 1.0
    assert found["ASP, graded"].value == 1.0


def test_gsm_plus_intervals_have_a_width() -> None:
    for right in (0, 1):
        found = gsm_plus.robustness(*families([right] * 6, [[right]] * 6))
        for name in ("seeds", "variants", "ASP"):
            assert found[name].high - found[name].low > 0.05, name
    assert found["PDR"].low < found["PDR"].value < found["PDR"].high
