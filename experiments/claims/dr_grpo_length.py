"""Dr. GRPO: the two normalisations of GRPO and the length of wrong responses."""

from dataclasses import replace
from functools import partial

from experiments.toys.toy_arms import (
    LOST,
    LOST_LIMIT,
    ToyArm,
    run_toy_arm,
    with_coin_rewards,
)
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.losses import grpo_advantages, grpo_loss
from jaxrl_reason.rl.method import grouped
from jaxrl_reason.rl.recipes.dr_grpo import dr_grpo
from jaxrl_reason.runs.metrics_log import Row

DR_GRPO = dr_grpo(length=LOST_LIMIT)
LENGTH_ALONE = replace(  # the mean over each response comes back
    DR_GRPO, name="length_alone", loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2)
)
STD_ALONE = replace(  # the division by the group's standard deviation comes back
    DR_GRPO, name="std_alone", advantages=grouped(grpo_advantages)
)
GRPO = replace(LENGTH_ALONE, name="grpo", advantages=grouped(grpo_advantages))
ARMS = {
    "GRPO": ToyArm(GRPO, LOST),
    "Dr. GRPO": ToyArm(DR_GRPO, LOST),
    "length alone": ToyArm(LENGTH_ALONE, LOST),
    "std alone": ToyArm(STD_ALONE, LOST),
    "GRPO, coin": ToyArm(with_coin_rewards(GRPO), LOST),
    "Dr. GRPO, coin": ToyArm(with_coin_rewards(DR_GRPO), LOST),
}


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="GRPO's normalisations let wrong responses grow",
    sentence=(
        "GRPO's division by the response's length and by the group's standard "
        "deviation biases it towards longer wrong responses; without both, in Dr. "
        "GRPO, the length of wrong responses does not grow."
    ),
    source="arXiv 2503.20783, section 3",
    arms={
        "GRPO": "each response's mean, advantages divided by the group's std",
        "Dr. GRPO": "neither: a constant in place of the length, no std",
        "length alone": "Dr. GRPO with each response's mean",
        "std alone": "Dr. GRPO with the std",
        "GRPO, coin": "GRPO, rewards by a coin",
        "Dr. GRPO, coin": "Dr. GRPO, rewards by a coin",
    },
    comparison=Comparison("GRPO", "Dr. GRPO"),
    measure=Measure(
        "length of wrong responses, steps 21-40",
        "tokens",
        over_steps("rollout/length_wrong", 21, 40),
        digits=1,
    ),
    direction=1,
    smallest=4.0,
    controls=[Comparison("GRPO, coin", "Dr. GRPO, coin")],
    others=[
        Comparison("length alone", "Dr. GRPO"),
        Comparison("std alone", "Dr. GRPO"),
        Comparison("GRPO", "length alone"),
    ],
    seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    tuned_on=(100, 101, 102),
    steps=40,
    run_arm=run_arm,
    refuted_if="wrong responses under GRPO are less than 4 tokens longer",
    panels=[
        Panel("rollout/length_wrong", "Wrong responses", "tokens"),
        Panel("rollout/length_correct", "Right responses", "tokens"),
        Panel("reward/accuracy", "Right samples", "fraction"),
    ],
    more_measures=[
        Measure(
            "length of right responses, steps 21-40",
            "tokens",
            over_steps("rollout/length_correct", 21, 40),
        ),
        Measure(
            "accuracy, steps 21-40", "fraction", over_steps("reward/accuracy", 21, 40)
        ),
    ],
    notes="""
Traces count down, and one in four digits loses the thread: 9s follow until the
response ends. The model can tell that it is lost, and nothing it writes after that
changes the reward. Rewards 1 and 0, 8 groups of 8, two updates a rollout, clip 0.2,
learning rate 1e-3, limit 40 tokens, no KL.
""",
)
