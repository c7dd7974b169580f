"""What the runs of a claim come to: numbers by arm and seed, effects, the verdict."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from jaxrl_reason.claims.claim import Claim, Comparison, FoundClaim
from jaxrl_reason.claims.claim_runs import Runs
from jaxrl_reason.claims.claim_verdict import (
    Effect,
    Verdict,
    excess_effect,
    judge,
    paired_effect,
    seed_noise,
)


@dataclass(frozen=True)
class Results:
    """The numbers of a claim's runs, kept beside its page.

    Attributes:
      key: of the claim's file when they were run.
      code_key: of the file and what it imports.
      version: of the library.
      steps: of a run.
      seeds: in the order of the values.
      values: measure -> arm -> a number a seed, None where it is not defined.
      cpu_seconds: arm -> mean over seeds.
    """

    key: str
    code_key: str
    version: str
    steps: int
    seeds: Sequence[int]
    values: Mapping[str, Mapping[str, Sequence[float | None]]]
    cpu_seconds: Mapping[str, float]

    def of(self, measure: str, arm: str) -> np.ndarray:
        """[seeds] the numbers of an arm, nan where one is not defined."""
        return np.array(self.values[measure][arm], float)

    def complete(self, claim: Claim) -> bool:
        """Whether every arm has every registered seed, at full length."""
        same = list(self.seeds) == list(claim.seeds) and self.steps == claim.steps
        return same and set(self.cpu_seconds) == set(claim.arms)


def results_of(found: FoundClaim, runs: Runs, steps: int) -> Results:
    """Takes the claim's measures of its runs.

    Args:
      found: the claim.
      runs: all arms with the same seeds.
      steps: that were asked for.

    Returns:
      The Results.
    """
    first = next(iter(runs.values()))
    claim = found.claim
    values = {
        measure.name: {
            arm: [_number(measure.of(run.rows)) for run in seeds.values()]
            for arm, seeds in runs.items()
        }
        for measure in (claim.measure, *claim.more_measures)
    }
    cpu = {
        arm: round(float(np.mean([run.cpu_seconds for run in seeds.values()])), 1)
        for arm, seeds in runs.items()
    }
    versions = sorted(
        {run.version for seeds in runs.values() for run in seeds.values()}
    )
    keys = found.key, found.code_key
    return Results(*keys, ", ".join(versions), steps, list(first), values, cpu)


def _number(x: float) -> float | None:
    return round(x, 6) if math.isfinite(x) else None


def effect_of(claim: Claim, results: Results, comparison: Comparison) -> Effect | None:
    """A comparison's effect; None if an arm was not run, or with fewer than 3 seeds."""
    arms = comparison.treatment, comparison.baseline
    known = results.values[claim.measure.name]
    if len(results.seeds) < 3 or not known.keys() >= set(arms):
        return None
    treatment, baseline = (results.of(claim.measure.name, arm) for arm in arms)
    return paired_effect(treatment, baseline, direction=claim.direction)


def excess_over(claim: Claim, results: Results, control: Comparison) -> Effect | None:
    """By how much the claim's effect exceeds a control's; None as `effect_of`."""
    known = results.values[claim.measure.name]
    two = claim.comparison, control
    if len(results.seeds) < 3 or not all(
        known.keys() >= {c.treatment, c.baseline} for c in two
    ):
        return None
    first, second = (
        (
            results.of(claim.measure.name, c.treatment),
            results.of(claim.measure.name, c.baseline),
        )
        for c in two
    )
    return excess_effect(first, second, direction=claim.direction)


def verdict_of(claim: Claim, results: Results) -> Verdict | None:
    """The verdict; None before every registered run is there."""
    if not results.complete(claim):
        return None
    effect = effect_of(claim, results, claim.comparison)
    controls = [
        (effect_of(claim, results, c), excess_over(claim, results, c))
        for c in claim.controls
    ]
    assert effect is not None  # all are there
    known = [(a, b) for a, b in controls if a is not None and b is not None]
    return judge(effect, claim.smallest, known)


def left_open(claim: Claim, results: Results) -> list[str]:
    """Why a claim is unresolved, in a few words each; empty for other verdicts."""
    if verdict_of(claim, results) is not Verdict.UNRESOLVED:
        return []
    effect = effect_of(claim, results, claim.comparison)
    if effect is None or math.isnan(effect.mean):
        return ["a run has no number"]
    if effect.low <= 0:
        return ["the interval holds 0"]
    found = []
    for control in claim.controls:
        alone = effect_of(claim, results, control)
        excess = excess_over(claim, results, control)
        if alone is not None and judge(alone, claim.smallest) is Verdict.SHOWN:
            found.append(f"{control} shows it too")
        elif excess is None or not excess.low > 0:
            found.append(f"it may be no larger than {control}")
    return found


def noise_of(claim: Claim, results: Results) -> float:
    """`seed_noise` of the claim's two arms, the larger of both; nan for one seed."""
    arms = claim.comparison.treatment, claim.comparison.baseline
    known = [arm for arm in arms if arm in results.values[claim.measure.name]]
    if len(results.seeds) < 2 or not known:
        return math.nan
    return max(seed_noise(results.of(claim.measure.name, arm)) for arm in known)


def write_claim_results(results: Results, path: Path) -> None:
    """Writes them as JSON.

    Args:
      results: the numbers.
      path: of the file.
    """
    text = json.dumps(asdict(results), indent=1, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_claim_results(path: Path) -> Results | None:
    """Reads what `write_claim_results` wrote; None if there is no file."""
    if not path.is_file():
        return None
    return Results(**json.loads(path.read_text(encoding="utf-8")))
