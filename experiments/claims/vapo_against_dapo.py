"""VAPO against DAPO and GRPO at equal steps, and its parts one by one."""

from dataclasses import replace
from functools import partial

from experiments.toys.toy_arms import (
    WAITING,
    WAITING_LIMIT,
    WAITING_PRETRAINED,
    ToyArm,
    run_toy_arm,
    with_coin_rewards,
)
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.losses import vapo_loss
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.vc_ppo import decoupled_gae
from jaxrl_reason.runs.metrics_log import Row

VAPO, DAPO, GRPO = (
    RECIPES[name].build(WAITING_LIMIT) for name in ("vapo", "dapo", "dapo_0_naive_grpo")
)
FIXED_LAMBDA = replace(
    VAPO,
    name="vapo_lambda_0.95",
    advantages=decoupled_gae(lambda _: 0.95, critic_lambda=1.0),
)
NO_POSITIVE = replace(
    VAPO,
    name="vapo_no_positive",
    loss=partial(vapo_loss, clip_low=0.2, clip_high=0.28, positive_coef=0.0),
)
LONGER_SEARCH = replace(WAITING.settings, max_rounds=50)
ARMS = {
    "VAPO": ToyArm(VAPO, WAITING_PRETRAINED),
    "DAPO": ToyArm(DAPO, replace(WAITING, settings=LONGER_SEARCH)),
    "GRPO": ToyArm(GRPO, WAITING),
    "VAPO, no pretraining": ToyArm(VAPO, WAITING),
    "VAPO, lambda 0.95": ToyArm(FIXED_LAMBDA, WAITING_PRETRAINED),
    "VAPO, no positive loss": ToyArm(NO_POSITIVE, WAITING_PRETRAINED),
    "VAPO, coin": ToyArm(with_coin_rewards(VAPO), WAITING_PRETRAINED),
    "GRPO, coin": ToyArm(with_coin_rewards(GRPO), WAITING),
}


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="VAPO ends above DAPO at equal steps",
    sentence=(
        "On long chains of thought VAPO, with a critic, reaches 60.4 on AIME 2024 "
        "where DAPO has 50 at as many steps and plain PPO 5."
    ),
    source="arXiv 2504.05118, table 1 and figure 1",
    arms={
        "VAPO": "the recipe, 10 of 50 steps for the critic alone",
        "DAPO": "the recipe",
        "GRPO": "clip 0.2, mean over responses, no filter",
        "VAPO, no pretraining": "VAPO without those 10 steps",
        "VAPO, lambda 0.95": "VAPO without the lambda that adapts to the length",
        "VAPO, no positive loss": "VAPO without the likelihood of right responses",
        "VAPO, coin": "VAPO, rewards by a coin",
        "GRPO, coin": "GRPO, rewards by a coin",
    },
    comparison=Comparison("VAPO", "DAPO"),
    measure=Measure(
        "accuracy, steps 41-50", "fraction", over_steps("reward/accuracy", 41, 50), 3
    ),
    direction=1,
    smallest=0.05,
    controls=[Comparison("VAPO, coin", "GRPO, coin")],
    others=[
        Comparison("VAPO", "GRPO"),
        Comparison("DAPO", "GRPO"),
        Comparison("VAPO", "VAPO, no pretraining"),
        Comparison("VAPO", "VAPO, lambda 0.95"),
        Comparison("VAPO", "VAPO, no positive loss"),
    ],
    seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    tuned_on=(100, 101, 102),
    steps=50,
    run_arm=run_arm,
    refuted_if="VAPO ends less than 5 points above DAPO",
    panels=[
        Panel("reward/accuracy", "Right samples", "fraction"),
        Panel("rollout/length_mean", "Length", "tokens"),
        Panel("rollout/truncated_fraction", "Ran into the limit", "fraction"),
    ],
    more_measures=[
        Measure(
            "length, steps 41-50",
            "tokens",
            over_steps("rollout/length_mean", 41, 50),
            1,
        ),
    ],
    notes="""
The task and the sizes are those of [value pretraining](value_collapse.md). Steps are
equal, samples are not: DAPO samples until its batch is full of groups with signal.
""",
)
