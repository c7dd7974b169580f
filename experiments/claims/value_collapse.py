"""VC-PPO: value pretraining and decoupled GAE against a collapse of plain PPO."""

from collections.abc import Sequence
from functools import partial
from statistics import fmean

from experiments.toys.toy_arms import (
    WAITING,
    WAITING_PRETRAINED,
    ToyArm,
    run_toy_arm,
)
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.losses import ppo_loss, value_loss
from jaxrl_reason.rl.critic import Critic
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.vc_ppo import decoupled_gae
from jaxrl_reason.rl.rollouts import signed_accuracy
from jaxrl_reason.runs.metrics_log import Row


def ppo(critic_lambda: float) -> Method:
    """PPO with lambda 0.95 for the policy, and this one for the critic's targets."""
    return Method(
        name="ppo",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=decoupled_gae(lambda _: 0.95, critic_lambda=critic_lambda),
        rewards=signed_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        components=(Critic(partial(value_loss, clip=None)),),
    )


WINDOW = 5
PLAIN, DECOUPLED = ppo(0.95), ppo(1.0)
ARMS = {
    "plain PPO": ToyArm(PLAIN, WAITING),
    "value pretraining": ToyArm(PLAIN, WAITING_PRETRAINED),
    "decoupled GAE": ToyArm(DECOUPLED, WAITING),
    "both": ToyArm(DECOUPLED, WAITING_PRETRAINED),
    "plain PPO, 10 steps later": ToyArm(PLAIN, WAITING, idle=10),
}


def worst_steps(rows: Sequence[Row]) -> float:
    """The largest fraction of truncated responses of any five steps in a row."""
    cut = [row["rollout/truncated_fraction"] for row in rows]
    return max(fmean(cut[i : i + WINDOW]) for i in range(max(1, len(cut) - WINDOW + 1)))


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="Value pretraining keeps PPO from collapsing",
    sentence=(
        "With lambda below 1 and a critic that starts badly, PPO fails on long "
        "responses and their length collapses; training the critic first prevents it."
    ),
    source="arXiv 2503.01491, section 3",
    arms={
        "plain PPO": "lambda 0.95 for policy and critic, a critic that starts at 0",
        "value pretraining": "the first 10 of the 35 steps train the critic alone",
        "decoupled GAE": "plain PPO with lambda 1 for the critic's targets",
        "both": "value pretraining and decoupled GAE",
        "plain PPO, 10 steps later": "10 steps without training, then 25 of plain PPO",
    },
    comparison=Comparison("value pretraining", "plain PPO"),
    measure=Measure("truncated in the worst five steps", "fraction", worst_steps),
    direction=-1,
    smallest=0.25,
    controls=[Comparison("plain PPO, 10 steps later", "plain PPO")],
    others=[
        Comparison("decoupled GAE", "plain PPO"),
        Comparison("both", "value pretraining"),
        Comparison("both", "plain PPO"),
    ],
    seeds=(30, 31, 32, 33, 34, 35, 36, 37),
    tuned_on=(100, 101, 0, 1, 2, 3, 4, 20, 21, 22, 23, 24),
    steps=35,
    run_arm=run_arm,
    refuted_if="it spares less than a quarter of the responses the limit",
    panels=[
        Panel("reward/accuracy", "Right samples", "fraction"),
        Panel("rollout/length_mean", "Length", "tokens"),
        Panel("rollout/truncated_fraction", "Ran into the limit", "fraction"),
    ],
    more_measures=[
        Measure(
            "accuracy, steps 26-35",
            "fraction",
            over_steps("reward/accuracy", 26, 35),
            digits=3,
        ),
        Measure(
            "length, steps 26-35",
            "tokens",
            over_steps("rollout/length_mean", 26, 35),
            digits=1,
        ),
    ],
    notes="""
A response says the right digit, then 0 for 32 tokens or more and nothing else, and
ends. Fine-tuned models are right in about one of eight and wait for some 60 tokens;
at 0.95 a token, 0.05 of a reward at the end is left 60 tokens earlier. Rewards are +1
and -1, policy and critic make three updates a rollout at learning rate 1e-3, 12 x 4
responses, limit 104 tokens. The control trains the policy in as few steps as value
pretraining does. The collapse is towards long responses here and towards short ones
in the paper: with most rewards -1 and a critic that predicts 0, the last token gets
the blame ([earlier attempts](../toy_experiments.md)).

An earlier script ran seeds 0 to 4 for 50 steps, without the control: plain PPO ended
at an accuracy of 0.00 in every seed, value pretraining at 0.17. A first form of this
claim took that accuracy, in steps 41 to 50, and seeds 20 to 24: it was unresolved,
0.087 against 0.146, a difference of 0.059 (-0.174 to 0.291). Plain PPO ran into the
limit in all five, and three came back before step 40. So the measure became the
collapse itself, and the claim has new seeds.
""",
)
