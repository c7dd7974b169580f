"""DAPO, section 3.3: the sequence mean lets long wrong responses grow."""

from experiments.toys.toy_arms import (
    LOST,
    LOST_LIMIT,
    ToyArm,
    run_toy_arm,
    with_coin_rewards,
)
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, over_steps
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.runs.metrics_log import Row

# DAPO with everything off but the loss mean.
TOKEN = dapo(
    DapoSettings(clip_high=0.2, dynamic_sampling=False, soft_overlong=False),
    max_new_tokens=LOST_LIMIT,
)
SEQUENCE = dapo(
    DapoSettings(
        clip_high=0.2,
        dynamic_sampling=False,
        soft_overlong=False,
        token_level_loss=False,
    ),
    max_new_tokens=LOST_LIMIT,
)
ARMS = {
    "token mean": ToyArm(TOKEN, LOST),
    "sequence mean": ToyArm(SEQUENCE, LOST),
    "token mean, coin": ToyArm(with_coin_rewards(TOKEN), LOST),
    "sequence mean, coin": ToyArm(with_coin_rewards(SEQUENCE), LOST),
}


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)


CLAIM = Claim(
    title="The sequence mean lets wrong responses grow",
    sentence=(
        "In the sequence mean a token of a long response has less weight, so long bad "
        "responses are punished too little and length grows in an unhealthy way; the "
        "token mean prevents it."
    ),
    source="arXiv 2503.14476, section 3.3",
    arms={
        "token mean": "DAPO's loss mean, with its other parts off",
        "sequence mean": "the mean over each response, then over responses",
        "token mean, coin": "token mean, rewards by a coin",
        "sequence mean, coin": "sequence mean, rewards by a coin",
    },
    comparison=Comparison("sequence mean", "token mean"),
    measure=Measure(
        "length of wrong responses, steps 21-40",
        "tokens",
        over_steps("rollout/length_wrong", 21, 40),
        digits=1,
    ),
    direction=1,
    smallest=4.0,
    controls=[Comparison("sequence mean, coin", "token mean, coin")],
    seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    tuned_on=(100, 101, 102, 0, 1, 2, 3, 4),
    steps=40,
    run_arm=run_arm,
    refuted_if="wrong responses under the sequence mean are less than 4 tokens longer",
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
changes the reward. 8 groups of 8, two updates a rollout, learning rate 1e-3, limit 40
tokens. An earlier script ran seeds 0 to 4 with these settings (7.9 against 19.8
tokens, without the coin); they were seen before this claim was written.
""",
)
