"""Open-Reasoner-Zero: PPO with GAE's lambda 1 against 0.95."""

from dataclasses import replace

from experiments.toys.toy_arms import ToyArm, run_toy_arm
from experiments.toys.toy_waits import FAR, NEAR
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.rl.recipes.open_reasoner_zero import finished_accuracy
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.runs.metrics_log import Row

LAMBDA_1 = replace(ppo(lam=1.0, value_clip=None), rewards=finished_accuracy)
LAMBDA_095 = replace(LAMBDA_1, advantages=ppo(lam=0.95).advantages)
ARMS = {
    "lambda 1": ToyArm(LAMBDA_1, FAR),
    "lambda 0.95": ToyArm(LAMBDA_095, FAR),
    "lambda 1, short wait": ToyArm(LAMBDA_1, NEAR),
    "lambda 0.95, short wait": ToyArm(LAMBDA_095, NEAR),
}


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="PPO learns more with lambda 1 than with 0.95",
    sentence=(
        "On long responses PPO with GAE's lambda 1 is more stable and ends with higher "
        "rewards than with lambda 0.95, which a reward at the end barely reaches back "
        "through."
    ),
    source="arXiv 2503.24290, the ablation of GAE's lambda",
    arms={
        "lambda 1": "Open-Reasoner-Zero's PPO, policy and critic with lambda 1",
        "lambda 0.95": "policy and critic with lambda 0.95",
        "lambda 1, short wait": "lambda 1, a reward few tokens after its cause",
        "lambda 0.95, short wait": "lambda 0.95, the same short task",
    },
    comparison=Comparison("lambda 1", "lambda 0.95"),
    measure=Measure(
        "accuracy, steps 16-25", "fraction", over_steps("reward/accuracy", 16, 25), 3
    ),
    direction=1,
    smallest=0.2,
    controls=[Comparison("lambda 1, short wait", "lambda 0.95, short wait")],
    seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    tuned_on=(100, 101),
    steps=25,
    run_arm=run_arm,
    refuted_if="lambda 1 is less than 20 points above lambda 0.95",
    panels=[
        Panel("reward/accuracy", "Right samples", "fraction"),
        Panel("rollout/length_mean", "Length", "tokens"),
        Panel("policy/entropy", "Entropy", "nats per token"),
    ],
    more_measures=[
        Measure(
            "length, steps 16-25",
            "tokens",
            over_steps("rollout/length_mean", 16, 25),
            digits=1,
        ),
    ],
    notes="""
A response says one of nine digits, of which one is right, then waits for 32 zeros or
more and ends. Only the reward says which digit is right. Fine-tuned models say each
digit about as often and wait for some 60 zeros; at 0.95 a token, 0.05 of the reward is
left at the digit. In the control the wait is two to four zeros in the traces and one or
more in a right response, where 0.95 leaves most of the reward. Reward 1 for a right
response that ended, else 0; clip 0.2, no clip of values, no KL; policy and critic make
three updates a rollout at learning rate 1e-3 (the paper: one of the policy, twelve of
the critic, at five times the rate); the critic's head starts at 0 in place of random;
12 x 4 responses, limit 104 tokens.

Seeds 100 and 101 gave, in steps 16 to 25, 0.89 and 0.84 with lambda 1, 0.23 and 0.23
with 0.95, and 0.86 and 0.77, 0.86 and 0.76 in the short task. Before, the prompt's own
digit was the right one, which the models repeated over and over: 0.22 against 0.10 in
steps 16 to 40 on seed 100, and no difference in the short task; at a learning rate of
3e-3 that form was unstable in both arms.
""",
)
