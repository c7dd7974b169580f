"""Logic-RL: REINFORCE++ against GRPO and PPO on Knights and Knaves."""

from dataclasses import replace
from functools import partial

from experiments.toys.toy_arms import ToyArm, run_toy_arm, with_coin_rewards
from experiments.toys.toy_knights import KNIGHTS
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.losses import grpo_advantages, grpo_loss
from jaxrl_reason.rl.method import grouped
from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.ppo import ppo
from jaxrl_reason.runs.metrics_log import Row

REINFORCE_PP = RECIPES["logic_rl"].build(KNIGHTS.settings.max_new_tokens)
GRPO = replace(
    REINFORCE_PP,
    name="grpo",
    advantages=grouped(grpo_advantages),
    loss=partial(grpo_loss, clip_low=0.2, clip_high=0.2, kl_coef=0.001),
)
CRITIC = ppo(value_clip=None)
PPO = replace(
    REINFORCE_PP,
    name="ppo",
    advantages=CRITIC.advantages,
    components=CRITIC.components,
)
ARMS = {
    "REINFORCE++": ToyArm(REINFORCE_PP, KNIGHTS),
    "GRPO": ToyArm(GRPO, KNIGHTS),
    "PPO": ToyArm(PPO, KNIGHTS),
    "REINFORCE++, coin": ToyArm(with_coin_rewards(REINFORCE_PP), KNIGHTS),
    "GRPO, coin": ToyArm(with_coin_rewards(GRPO), KNIGHTS),
}


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="REINFORCE++ learns more than GRPO on Knights and Knaves",
    sentence=(
        "Of three algorithms on Knights and Knaves, GRPO is the weakest; REINFORCE++ "
        "learns more than GRPO, and PPO is more accurate and slower than both."
    ),
    source="arXiv 2502.14768, the comparison of algorithms",
    arms={
        "REINFORCE++": "Logic-RL's: returns whitened over the batch, a token mean",
        "GRPO": "advantages within groups, each response's mean",
        "PPO": "REINFORCE++ with a critic, lambda 1",
        "REINFORCE++, coin": "REINFORCE++, rewards by a coin",
        "GRPO, coin": "GRPO, rewards by a coin",
    },
    comparison=Comparison("REINFORCE++", "GRPO"),
    measure=Measure(
        "accuracy, steps 1-40", "fraction", over_steps("reward/accuracy", 1, 40), 3
    ),
    direction=1,
    smallest=0.05,
    controls=[Comparison("REINFORCE++, coin", "GRPO, coin")],
    others=[Comparison("PPO", "REINFORCE++"), Comparison("PPO", "GRPO")],
    seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    tuned_on=(100, 101),
    steps=40,
    run_arm=run_arm,
    refuted_if="REINFORCE++ is less than 5 points above GRPO over the run",
    panels=[
        Panel("reward/accuracy", "Right samples", "fraction"),
        Panel("policy/entropy", "Entropy", "nats per token"),
    ],
    more_measures=[
        Measure(
            "accuracy, steps 31-40",
            "fraction",
            over_steps("reward/accuracy", 31, 40),
            digits=3,
        ),
    ],
    notes="""
Puzzles of 3 to 7 people in equal parts. The first person is known and each other one
says what the one before is, so that the roles follow one after another; a response is
the roles alone. In traces four in ten roles are by a coin, and fine-tuned models solve
a quarter of the puzzles. Rewards 3, -0.5 and -3 as in the paper, KL loss 0.001 in all
arms, clip 0.2, 10 groups of 8, two updates a rollout, learning rate 3e-3. Most is
learned in the first 20 steps, so the measure is the mean over the run.

Seeds 100 and 101 gave, with REINFORCE++ and with GRPO, 0.82 and 0.83, and 0.82 and
0.82. PPO and the coin were not tried.
""",
)
