"""Clip-higher: how fast a rare token that is better can grow, and the entropy.

    python experiments/toys/clip_higher.py

The upper clip bounds by how much a token's probability grows in one rollout. A likely
token has no room for more anyway; it binds for an unlikely one that turns out well.

The task has a habit that pays on every second problem and a rare way that always pays:
to say 9 and stop, or to count down. Three primed responses in a hundred count. While
the policy gathers on the habit its entropy falls. What came of it: next to nothing
between 0.2 and 0.28; see docs/toy_experiments.md. A third arm has a bound far below the
others, to see what the bound does at all. Momentum is off: it would carry ratios past
the clip within so few updates, in all arms.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.toys.bench import BENCH, Bench
from experiments.toys.compare import Arm, Experiment, Panel, over_steps, run_script
from experiments.toys.tasks import END, FIRST_DIGIT, CountDown, Toy
from jaxrl_reason.tasks.task import Graded
from jaxrl_reason.training.methods import DapoSettings, dapo
from jaxrl_reason.training.state import OptimizerSettings

HABIT = 9


@dataclass(frozen=True)
class HabitOrCount(CountDown):
    """Right is the count down always, and the habit on every second problem.

    Attributes:
      counts: share of traces that count.
      habits: share of traces with the habit; the others say one digit that is wrong.
    """

    start_digits: tuple[int, ...] = (4, 5, 6, 7)
    counts: float = 0.03
    habits: float = 0.65
    name: str = "habit_or_count"

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        # Of the problem's number, which the prompt does not say.
        pays = problem.problem_id // len(self.start_digits) % 2 == 0
        if pays and response_text == f"{HABIT} .":
            return Graded(True, True, str(HABIT))
        return super().grade(problem, response_text, truncated)

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        kind = rng.random()
        if kind < self.counts:
            down = reversed(range(self.start(problem)))
            return [*(FIRST_DIGIT + digit for digit in down), END]
        word = HABIT if kind < self.counts + self.habits else int(rng.integers(3))
        return [FIRST_DIGIT + word, END]


THIS_BENCH = replace(
    BENCH,
    task=HabitOrCount(),
    optimizer=OptimizerSettings(learning_rate=1e-3, b1=0.0),
    priming=replace(BENCH.priming, updates=200, examples_per_update=32),
    settings=replace(BENCH.settings, prompts_per_step=32, updates_per_rollout=16),
)
# DAPO with everything off but the upper clip.
HIGHER = DapoSettings(clip_high=0.28, dynamic_sampling=False, soft_overlong=False)


def experiment(bench: Bench) -> Experiment:
    """The upper clip of DAPO, that of PPO, and a tight one."""
    limit = bench.settings.max_new_tokens
    lower, tight = (replace(HIGHER, clip_high=high) for high in (0.2, 0.05))
    return Experiment(
        name="clip_higher",
        title="The upper clip and a rare way that is better",
        arms={
            "clip 0.2 / 0.28": Arm(dapo(HIGHER, max_new_tokens=limit), bench),
            "clip 0.2 / 0.2": Arm(dapo(lower, max_new_tokens=limit), bench),
            "clip 0.2 / 0.05": Arm(dapo(tight, max_new_tokens=limit), bench),
        },
        seeds=(0, 1, 2, 3, 4),
        steps=40,
        panels=(
            Panel("entropy", "Entropy", "nats per token"),
            Panel("accuracy", "Accuracy of the samples", "share"),
            Panel("clip_frac_high", "Tokens above the upper clip", "share"),
        ),
        summaries={
            "entropy, steps 5-15": over_steps("entropy", 5, 15),
            "accuracy, steps 11-30": over_steps("accuracy", 11, 30),
            "accuracy, steps 31-40": over_steps("accuracy", 31, 40),
        },
        digits=3,
    )


def main(arguments: Sequence[str] | None = None, bench: Bench = THIS_BENCH) -> None:
    run_script(experiment(bench), arguments)


if __name__ == "__main__":
    main()
