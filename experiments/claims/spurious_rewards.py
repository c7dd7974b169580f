"""Spurious rewards: a coin as the reward raises accuracy, and the clip does it."""

from dataclasses import replace
from functools import partial

import numpy as np

from experiments.toys.toy_arms import ToyArm, coin_rewards, run_toy_arm
from experiments.toys.toy_setup import SETUP
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.losses import grpo_loss
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rollouts import Rollouts, binary_accuracy
from jaxrl_reason.runs.metrics_log import Row


def inverted(rollouts: Rollouts) -> np.ndarray:
    """[P, G] 1 for a wrong answer."""
    return 1 - binary_accuracy(rollouts)


def well_formed(rollouts: Rollouts) -> np.ndarray:
    """[P, G] 1 for digits and an end, right or wrong."""
    return rollouts.format_ok.astype(np.float32)


SHARP = replace(
    SETUP,
    optimizer=OptimizerSettings(learning_rate=3e-3, b1=0.0),
    settings=replace(SETUP.settings, prompts_per_step=36, updates_per_rollout=18),
)
STILL = replace(SHARP, optimizer=OptimizerSettings(learning_rate=1e-12, b1=0.0))
RIGHT = replace(grpo(kl_coef=0), rewards=binary_accuracy)
COIN = replace(RIGHT, name="coin", rewards=coin_rewards)
UNCLIPPED = replace(
    COIN, name="unclipped", loss=partial(grpo_loss, clip_low=1e9, clip_high=1e9)
)
ARMS = {
    "coin": ToyArm(COIN, SHARP),
    "no training": ToyArm(COIN, STILL),
    "coin, no clip": ToyArm(UNCLIPPED, SHARP),
    "right answers": ToyArm(RIGHT, SHARP),
    "format": ToyArm(replace(RIGHT, name="format", rewards=well_formed), SHARP),
    "inverted": ToyArm(replace(RIGHT, name="inverted", rewards=inverted), SHARP),
}


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="A coin as the reward gains 25 points, four tenths of what right rewards do",
    sentence=(
        "Random rewards raise Qwen2.5-Math-7B on MATH-500 by 21 points where right "
        "rewards raise it by 29; the clip, which favours what the model already does, "
        "is the cause: without it, random rewards gain nothing."
    ),
    source="arXiv 2506.10947, sections 2 and 4",
    arms={
        "coin": "GRPO, rewards by a coin",
        "no training": "a learning rate of 1e-12",
        "coin, no clip": "the coin without a clip",
        "right answers": "GRPO with the task's grades",
        "format": "1 for digits and an end, right or wrong",
        "inverted": "1 for a wrong answer",
    },
    comparison=Comparison("coin", "no training"),
    measure=Measure(
        "accuracy, steps 51-60", "fraction", over_steps("reward/accuracy", 51, 60), 3
    ),
    direction=1,
    smallest=0.25,
    controls=[Comparison("coin, no clip", "no training")],
    others=[
        Comparison("right answers", "no training"),
        Comparison("format", "no training"),
        Comparison("inverted", "no training"),
        Comparison("coin", "coin, no clip"),
    ],
    seeds=tuple(range(30, 50)),
    tuned_on=(100, 101, *range(20, 28)),
    steps=60,
    run_arm=run_arm,
    refuted_if="a coin gains less than 25 points over no training",
    panels=[
        Panel("reward/accuracy", "Right samples", "fraction"),
        Panel("policy/entropy", "Entropy", "nats per token"),
        Panel("policy/clip_fraction_high", "Tokens above the clip", "fraction"),
    ],
    more_measures=[
        Measure(
            "entropy, steps 51-60",
            "nats per token",
            over_steps("policy/entropy", 51, 60),
        ),
    ],
    notes="""
The task is to count down from a digit; fine-tuned models are right in about three of
ten samples, and the most likely token is the right one, so that a sharper policy
would be more often right. 36 groups of 8, 18 updates a rollout, clip 0.2, learning
rate 3e-3, no momentum. Of two settings that were tried on seeds 100 and 101, in the
other (27 groups, 9 updates, 30 steps) the coin ended 6 points below and 5 above no
training, and in this one 1 below and 6 above.

In the paper a coin gains seven tenths of what right rewards gain. A first form of this
claim ran seeds 20 to 27 and counted effects from 10 points: the coin gained 6 (-22 to
34) where right rewards gained 59 (32 to 86), which left it unresolved, as its seeds
differ much. So it has twenty seeds now, and counts what the paper says: at least four
tenths of what right rewards gain, 25 points.
""",
)
