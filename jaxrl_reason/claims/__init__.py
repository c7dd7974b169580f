"""Claims of papers as tests: pre-registered arms, paired seeds, an interval, a verdict.

A claim is a file that defines `CLAIM`; `jaxrl-reason claim` runs it. This package knows
no algorithm: what an arm does is the file's function.
"""

from jaxrl_reason.claims.claim import Claim, Comparison, Panel, load_claim
from jaxrl_reason.claims.claim_verdict import (
    Effect,
    Verdict,
    excess_effect,
    judge,
    paired_effect,
    seed_noise,
)
from jaxrl_reason.claims.measures import Measure, first_row, over_steps

__all__ = [
    "Claim",
    "Comparison",
    "Effect",
    "Measure",
    "Panel",
    "Verdict",
    "excess_effect",
    "first_row",
    "judge",
    "load_claim",
    "over_steps",
    "paired_effect",
    "seed_noise",
]
