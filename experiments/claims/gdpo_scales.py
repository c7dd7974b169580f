"""GDPO: a second reward of a larger scale, normalised by itself or in the sum."""

from functools import partial

from experiments.toys.toy_arms import run_toy_arm
from experiments.toys.toy_two_rewards import (
    SUM,
    right_alone,
    right_and_cheap,
    two_rewards,
)
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.rl.recipes.gdpo import gdpo
from jaxrl_reason.runs.metrics_log import Row

DEAR, CHEAP = partial(right_and_cheap, cost=1.0), partial(right_and_cheap, cost=0.1)
ARMS = {
    "GDPO": two_rewards(gdpo, DEAR),
    "GRPO on the sum": two_rewards(SUM, DEAR),
    "GDPO, 0.1 a token": two_rewards(gdpo, CHEAP),
    "GRPO, 0.1 a token": two_rewards(SUM, CHEAP),
    "GDPO, answers alone": two_rewards(gdpo, right_alone),
    "GRPO, answers alone": two_rewards(SUM, right_alone),
}


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="GDPO keeps a reward that a larger one would drown",
    sentence=(
        "Where several rewards are summed before they are normalised, their "
        "differences collapse and an easy reward takes over; normalised one by one "
        "they all count."
    ),
    source="arXiv 2601.05242, sections 3 and 4",
    arms={
        "GDPO": "1 for a right answer, -1 a token, each normalised by itself",
        "GRPO on the sum": "the same rewards, summed and then normalised",
        "GDPO, 0.1 a token": "GDPO where a token costs a tenth of that",
        "GRPO, 0.1 a token": "GRPO on the sum where a token costs a tenth of that",
        "GDPO, answers alone": "GDPO without the second reward",
        "GRPO, answers alone": "GRPO without the second reward",
    },
    comparison=Comparison("GDPO", "GRPO on the sum"),
    measure=Measure(
        "accuracy, steps 21-40", "fraction", over_steps("reward/accuracy", 21, 40)
    ),
    direction=1,
    smallest=0.2,
    controls=[Comparison("GDPO, answers alone", "GRPO, answers alone")],
    others=[
        Comparison("GDPO, 0.1 a token", "GRPO, 0.1 a token"),
        Comparison("GDPO", "GDPO, 0.1 a token"),
        Comparison("GRPO on the sum", "GRPO, 0.1 a token"),
    ],
    seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    tuned_on=(100, 101),
    steps=40,
    run_arm=run_arm,
    refuted_if="answers are less than 0.2 more often right",
    panels=[
        Panel("reward/accuracy", "Right samples", "fraction"),
        Panel("rollout/length_mean", "Length", "tokens"),
    ],
    more_measures=[
        Measure(
            "length, steps 21-40", "tokens", over_steps("rollout/length_mean", 21, 40)
        ),
    ],
    notes="""
Count down in steps of 1 to 3; every token costs, so that the two rewards conflict. The
reward for tokens is easy, and its scale, in the sum, is a weight that nobody chose.
Clip 0.2, no KL, 9 groups of 8, three updates a rollout, learning rate 3e-3. The paper's
own rewards are all 0 or 1: [that case](gdpo_two_rewards.md) is a claim of its own.

On seeds 100 and 101 the accuracy in steps 31 to 40 of GRPO on the sum was 0.97 and 0.98
at 0.03 a token, 0.97 and 0.97 at 0.1, 0.96 and 0.76 at 0.3, 0.00 and 0.00 at 1; that of
GDPO at 0.3 was 0.62 and 0.68, and it depends on the scale only through an epsilon. So
GDPO is not what keeps the most right answers at every scale: it gives both rewards the
same say.
""",
)
