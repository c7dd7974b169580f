"""Token mean against sequence mean: how long wrong responses get.

    python experiments/toys/loss_mean_and_length.py

In the sequence mean every response weighs the same, so a token of a long response
weighs less: a wrong response is punished less per token the longer it is, a right one
praised more the shorter it is. The policy gradient of the token mean does not prefer
one length to another among responses with the same reward.

The task lets a model be wrong at length: traces now and then lose the thread and write
9s until they stop, and 9 is no problem's first digit, so the model can tell. Nothing
but the loss mean decides whether it goes on for longer when it is lost.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.toys.compare import Arm, Experiment, Panel, over_steps, run_script
from experiments.toys.toy_setup import SETUP, ToySetup
from experiments.toys.toy_tasks import END, FIRST_DIGIT, CountDown, Toy
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo

LIMIT = 40


@dataclass(frozen=True)
class LosesTheThread(CountDown):
    """Counting down, with traces that get lost, and stay lost, in a row of 9s.

    Attributes:
      go_on: probability of one more 9 once lost.
    """

    start_digits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    sloppiness: float = 0.25
    go_on: float = 0.85
    name: str = "loses_the_thread"

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        out: list[int] = []
        for digit in reversed(range(self.start(problem))):
            if rng.random() < self.sloppiness:
                lost = min(1 + int(rng.geometric(1 - self.go_on)), 30)
                return [*out, *[FIRST_DIGIT + 9] * lost, END]
            out.append(FIRST_DIGIT + digit)
        return [*out, END]


THIS_SETUP = replace(
    SETUP,
    task=LosesTheThread(),
    model=replace(SETUP.model, context_length=LIMIT + 8),
    optimizer=OptimizerSettings(learning_rate=1e-3),
    sft=replace(SETUP.sft, max_response=LIMIT),
    settings=replace(
        SETUP.settings,
        prompts_per_step=8,
        updates_per_rollout=2,
        max_new_tokens=LIMIT,
    ),
)
# DAPO with everything off but the loss mean.
PLAIN = DapoSettings(
    clip_high=0.2, dynamic_sampling=False, soft_overlong=False, token_level_loss=True
)


def experiment(setup: ToySetup) -> Experiment:
    """Two arms: the same method under the two means."""
    sequence = replace(PLAIN, token_level_loss=False)
    return Experiment(
        name="loss_mean_and_length",
        title="Loss mean over tokens or over sequences",
        arms={
            "token mean": Arm(dapo(PLAIN, max_new_tokens=LIMIT), setup),
            "sequence mean": Arm(dapo(sequence, max_new_tokens=LIMIT), setup),
        },
        seeds=(0, 1, 2, 3, 4),
        steps=40,
        panels=(
            Panel("rollout/length_wrong", "Length of wrong responses", "tokens"),
            Panel("rollout/length_correct", "Length of right responses", "tokens"),
            Panel("reward/accuracy", "Accuracy of the samples", "fraction"),
        ),
        summaries={
            "wrong, tokens, steps 21-40": over_steps("rollout/length_wrong", 21, 40),
            "right, tokens, steps 21-40": over_steps("rollout/length_correct", 21, 40),
            "truncated, steps 21-40": over_steps("rollout/truncated_fraction", 21, 40),
            "accuracy, steps 21-40": over_steps("reward/accuracy", 21, 40),
        },
    )


def main(arguments: Sequence[str] | None = None, setup: ToySetup = THIS_SETUP) -> None:
    run_script(experiment(setup), arguments)


if __name__ == "__main__":
    main()
