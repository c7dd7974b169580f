"""Open-Reasoner-Zero and DAPO: without a KL penalty accuracy and length grow."""

from dataclasses import replace

from experiments.toys.toy_arms import ToyArm, run_toy_arm, with_coin_rewards
from experiments.toys.toy_patience import PATIENT
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.rl.recipes.open_reasoner_zero import finished_accuracy
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.runs.metrics_log import Row

COEF = 0.04
NO_KL = replace(ppo(value_clip=None), rewards=finished_accuracy)
# Two switches that are one: the estimator that subtracts KL needs the reference.
KL = replace(
    NO_KL, advantages=ppo(kl_coef=COEF).advantages, needs_reference=True, name="kl"
)
ARMS = {
    "no KL": ToyArm(NO_KL, PATIENT),
    "KL": ToyArm(KL, PATIENT),
    "no KL, coin": ToyArm(with_coin_rewards(NO_KL), PATIENT),
    "KL, coin": ToyArm(with_coin_rewards(KL), PATIENT),
}


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="Without a KL penalty accuracy and length grow further",
    sentence=(
        "A KL penalty to the model that training starts from holds accuracy and the "
        "length of responses back; without it both grow."
    ),
    source="arXiv 2503.24290, the ablation of KL; 2503.14476, section 2.3",
    arms={
        "no KL": "PPO with lambda 1",
        "KL": f"{COEF} of each token's KL to the fine-tuned model off its reward",
        "no KL, coin": "no KL, rewards by a coin",
        "KL, coin": "KL, rewards by a coin",
    },
    comparison=Comparison("no KL", "KL"),
    measure=Measure(
        "accuracy, steps 21-30",
        "fraction",
        over_steps("reward/accuracy", 21, 30),
        3,
    ),
    direction=1,
    smallest=0.1,
    controls=[Comparison("no KL, coin", "KL, coin")],
    seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    tuned_on=(100, 101),
    steps=30,
    run_arm=run_arm,
    refuted_if="accuracy without KL is less than 10 points above",
    panels=[
        Panel("reward/accuracy", "Right samples", "fraction"),
        Panel("rollout/length_mean", "Length", "tokens"),
        Panel("policy/entropy", "Entropy", "nats per token"),
    ],
    more_measures=[
        Measure(
            "length, steps 21-30",
            "tokens",
            over_steps("rollout/length_mean", 21, 30),
            digits=1,
        ),
    ],
    notes="""
A longer response is more often right: a problem wants 1 to 48 zeros, each number as
likely, and the prompt does not say how many. Fine-tuned models end with probability 0.4
after each zero, 2.5 on average, so that a response of three zeros is right in one of
sixteen problems. Each further zero is worth 1/48 of a reward and costs, by the
coefficient 0.04 and a KL of up to 0.51 nats, as much. The penalty is k1 in the token
rewards; the coefficient is DeepSeekMath's, who have it in the loss. Lambda 1, clip 0.2,
reward 1 for a right response that ended, policy and critic with three updates a rollout
at learning rate 2e-3, 12 x 4 responses, limit 64 tokens. The papers do not say what
makes length worth while; here it is the task.

All seeds have the same problems in a step, and so go up and down together.

Seeds 100 and 101 gave, in steps 21 to 30, 0.47 and 0.63 without KL and 0.25 and 0.23
with it, 34 and 42 tokens and 14 and 11. In a first form, 1 to 80 zeros, an end with
probability 0.25, learning rate 1e-3, seed 100 gave, in steps 36 to 40, 0.33 without KL,
0.00 with it, and 0.23 with 0.04 of k3 in the loss. The coin was not tried.
""",
)
