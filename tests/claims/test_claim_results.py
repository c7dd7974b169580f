"""The verdict on a claim's numbers, and what leaves it open."""

import dataclasses

import numpy as np
import pytest

from jaxrl_reason.claims.claim_results import Results, left_open, noise_of, verdict_of
from jaxrl_reason.claims.claim_verdict import Verdict
from tests.claims.planted import claim_of

pytestmark = pytest.mark.fast

CLAIM = claim_of(0.0)  # a - b counts from 1; c - d is its control; five seeds
NOISE = 0.1 * np.array([1.0, -1.0, 0.5, -0.5, 0.0])
ARMS = {"a": 2 + NOISE, "b": -NOISE, "c": NOISE[::-1], "d": 0 * NOISE}


def results(**arms):
    values = {"x": {arm: list(x) for arm, x in (ARMS | arms).items()}}
    cpu = dict.fromkeys(values["x"], 1.0)
    return Results("key", "code", "0", CLAIM.steps, list(CLAIM.seeds), values, cpu)


@pytest.mark.parametrize(
    ("arms", "verdict", "why"),
    [
        ({}, Verdict.SHOWN, []),
        ({"a": 0.5 + NOISE}, Verdict.REFUTED, []),
        ({"a": 1 + 20 * NOISE}, Verdict.UNRESOLVED, ["the interval holds 0"]),
        ({"a": [1, 2, 3, 4, np.nan]}, Verdict.UNRESOLVED, ["a run has no number"]),
        ({"c": 1.5 + NOISE}, Verdict.UNRESOLVED, ["c − d shows it too"]),
        (
            {"c": 1 + 20 * NOISE},
            Verdict.UNRESOLVED,
            ["it may be no larger than c − d"],
        ),
    ],
)
def test_what_leaves_a_claim_open_is_said(arms, verdict, why):
    found = results(**arms)
    assert verdict_of(CLAIM, found) is verdict
    assert left_open(CLAIM, found) == why


def test_there_is_no_verdict_before_all_runs_are_there():
    whole = results()
    assert whole.complete(CLAIM)
    assert verdict_of(CLAIM, dataclasses.replace(whole, steps=1)) is None
    fewer = dataclasses.replace(CLAIM, seeds=(1, 2, 3, 4, 5, 6))
    assert verdict_of(fewer, whole) is None
    without = dataclasses.replace(whole, cpu_seconds={"a": 1.0, "b": 1.0})
    assert verdict_of(CLAIM, without) is None
    assert left_open(CLAIM, without) == []


def test_the_noise_is_the_larger_of_the_two_arms():
    found = results(a=2 + 3 * NOISE)
    scale = np.std(NOISE, ddof=1) * (1 / 2 + 1 / 3) ** 0.5
    assert noise_of(CLAIM, found) == pytest.approx(3 * scale)
