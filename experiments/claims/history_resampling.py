"""SRPO: problems that are always solved are left out of the next epoch."""

from collections.abc import Sequence
from dataclasses import replace

from experiments.toys.toy_pool import DropsAtRandom, PoolArm, run_pool_arm
from experiments.toys.toy_setup import SETUP
from experiments.toys.toy_tasks import CountDown
from jaxrl_reason.claims import Claim, Comparison, Measure, Panel, first_row
from jaxrl_reason.data.adaptive_streams import HistoryResampling
from jaxrl_reason.data.pipeline import ProblemStream
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.runs.metrics_log import Row

GOAL = 0.75
WINDOW = 3  # steps that the accuracy is averaged over
STEPS = 130
EASY, HARD = (1,) * 18, (5, 6)  # first digits: one step, or five and six
KINDS = EASY + HARD
POOL = 160
# Hard problems behind the pool.
HELDOUT = tuple(
    n for n in range(POOL, POOL + 8 * len(KINDS)) if n % len(KINDS) >= len(EASY)
)
LEARN = replace(
    SETUP,
    task=CountDown(start_digits=KINDS),
    optimizer=OptimizerSettings(learning_rate=2e-3),
    settings=replace(SETUP.settings, prompts_per_step=8, updates_per_rollout=2),
)
METHOD = dapo(
    DapoSettings(clip_high=0.2, dynamic_sampling=False, soft_overlong=False),
    max_new_tokens=SETUP.settings.max_new_tokens,
)
ARMS = {
    "history resampling": PoolArm(METHOD, LEARN, HistoryResampling, POOL, HELDOUT),
    "every problem": PoolArm(METHOD, LEARN, ProblemStream, POOL, HELDOUT),
    "as many dropped, at random": PoolArm(METHOD, LEARN, DropsAtRandom, POOL, HELDOUT),
}


def reached(rows: Sequence[Row]) -> bool:
    """Whether enough of the last steps' held-out samples are right."""
    last = [row["heldout/accuracy"] for row in rows[-WINDOW:]]
    return len(last) == WINDOW and sum(last) / WINDOW >= GOAL


def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_pool_arm(ARMS[arm], seed, steps, until=reached)


CLAIM = Claim(
    title="History resampling takes fewer steps",
    sentence=(
        "Problems whose answers were all right in an epoch have no gradient; leaving "
        "them out of the next makes training more efficient, and costs no samples."
    ),
    source="arXiv 2504.14286, history resampling",
    arms={
        "history resampling": "problems whose answers were all right are dropped",
        "every problem": "epochs over all problems",
        "as many dropped, at random": "the outcomes of a step are shuffled first",
    },
    comparison=Comparison("history resampling", "every problem"),
    measure=Measure(
        f"steps to {GOAL:.0%} of hard problems",
        "steps",
        first_row("step", reached, never=float(STEPS)),
        digits=1,
    ),
    direction=-1,
    smallest=10.0,
    controls=[Comparison("as many dropped, at random", "every problem")],
    seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    tuned_on=(100, 101),
    steps=STEPS,
    run_arm=run_arm,
    refuted_if="it takes less than 10 steps fewer",
    panels=[
        Panel("heldout/accuracy", "Hard problems, right samples", "fraction"),
        Panel("groups/equal_rewards_fraction", "Groups without signal", "fraction"),
    ],
    notes="""
A pool of 160 problems: nine of ten are one step, soon right in every sample, and the
others five or six steps that must all be right. 8 groups of 8 a step in all arms, two
updates a rollout, learning rate 2e-3, the loss of DAPO without its other parts.
Accuracy is that of 16 hard problems that are not in the pool (there are few different
prompts, though), 8 samples each, after every step, until the mean of three steps is
75%. When fewer problems are left than a step needs, all come back. In the control the
outcomes of a step are given to its problems in another order, so that as many are
dropped, easy or hard.

Seeds 100 and 101, run to 90% or for 100 steps, passed 75% after about 42 and 49 steps
with history resampling, 86 and more than 100 with every problem, and 62 and 86 of the
control. With hard problems of seven and eight steps, and outcomes that did not reach
the stream by mistake, so that nothing was dropped, one of the two orders of the
problems ended at 0 of the hard problems on seed 101 and the other at 70%.
""",
)
