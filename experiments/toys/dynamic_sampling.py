"""Dynamic sampling: optimiser steps, and sampled tokens, to the same accuracy.

    python experiments/toys/dynamic_sampling.py

A group whose answers are all right or all wrong has no advantage: it takes part in a
step and teaches nothing. Dynamic sampling leaves such groups out and samples on until
the batch is full of the others, so a step teaches more, and costs more tokens.

In the task nine problems of twelve are one step, soon right in every sample; the other
three are six to eight steps that must all be right.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.toys.compare import (
    Arm,
    Experiment,
    Panel,
    first_row,
    run_script,
)
from experiments.toys.toy_setup import SETUP, ToySetup
from experiments.toys.toy_tasks import CountDown
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.runs.metrics_log import Row

GOAL = 0.95
WINDOW = 3  # steps that the accuracy is averaged over

THIS_SETUP = replace(
    SETUP,
    task=CountDown(start_digits=(1, 1, 1, 1, 1, 1, 1, 1, 1, 6, 7, 8)),
    optimizer=OptimizerSettings(learning_rate=2e-3),
    settings=replace(SETUP.settings, prompts_per_step=12, max_rounds=40),
)
# DAPO with everything off but dynamic sampling.
SAMPLING = DapoSettings(
    clip_high=0.2, dynamic_sampling=True, soft_overlong=False, token_level_loss=True
)


def reached(rows: Sequence[Row]) -> bool:
    """Whether the samples of the last steps, before the filter, are right enough."""
    last = [row["reward/accuracy"] for row in rows[-WINDOW:]]
    return len(last) == WINDOW and sum(last) / WINDOW >= GOAL


def experiment(setup: ToySetup) -> Experiment:
    """Two arms: every group, or groups with signal."""
    limit = setup.settings.max_new_tokens
    without = replace(SAMPLING, dynamic_sampling=False)
    return Experiment(
        name="dynamic_sampling",
        title=f"Dynamic sampling, until {GOAL:.0%} of the samples are right",
        arms={
            "dynamic sampling": Arm(dapo(SAMPLING, max_new_tokens=limit), setup),
            "every group": Arm(dapo(without, max_new_tokens=limit), setup),
        },
        seeds=(10, 11, 12, 13, 14),
        steps=120,
        panels=(
            Panel("reward/accuracy", "Accuracy by step", "fraction"),
            Panel(
                "reward/accuracy",
                "Accuracy by tokens sampled",
                "fraction",
                "rollout/tokens_so_far",
            ),
            Panel(
                "groups/accepted_fraction", "Groups taken into the batch", "fraction"
            ),
        ),
        summaries={
            f"steps to {GOAL:.0%}": first_row("step", reached),
            f"thousand tokens sampled to {GOAL:.0%}": first_row(
                "rollout/tokens_so_far", reached, 1e-3
            ),
            "groups without signal, %": groups_without_signal,
        },
        until=reached,
        digits=1,
    )


def groups_without_signal(rows: Sequence[Row]) -> float:
    """Mean fraction of the sampled groups, in percent."""
    fractions = [
        row["groups/all_correct_fraction"] + row["groups/all_wrong_fraction"]
        for row in rows
    ]
    return 100 * sum(fractions) / len(fractions)


def main(arguments: Sequence[str] | None = None, setup: ToySetup = THIS_SETUP) -> None:
    run_script(experiment(setup), arguments)


if __name__ == "__main__":
    main()
