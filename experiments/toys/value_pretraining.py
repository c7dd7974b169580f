"""Value pretraining and decoupled GAE against plain PPO on long responses.

    python experiments/toys/value_pretraining.py

The reward comes at the end, some hundred tokens after the one token that decides about
it. With lambda 0.95 nothing of a reward is left after a hundred tokens: only the
critic's values carry it back, and a critic that learns from targets with that lambda
learns of the end first and of the beginning many steps later. Until then the policy is
taught from values that mean nothing.

A response has to begin with the right digit, and then to wait for 64 tokens or more
before it ends. Primed models say the digit in two of five responses and wait for 80 to
160 tokens, mostly 0s.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.toys.bench import BENCH, Bench
from experiments.toys.compare import Arm, Experiment, Panel, over_steps, run_script
from experiments.toys.tasks import END, FIRST_DIGIT, CountDown, Toy
from jaxrl_reason.losses import ppo_loss, value_loss
from jaxrl_reason.tasks.task import Graded
from jaxrl_reason.training.method import Method
from jaxrl_reason.training.methods import signed_accuracy
from jaxrl_reason.training.recipes.estimators import decoupled_gae
from jaxrl_reason.training.state import OptimizerSettings

LIMIT = 208
SHORTEST = 64
PRETRAINING = 10


@dataclass(frozen=True)
class SayAndWait(CountDown):
    """The prompt's digit, then at least `SHORTEST` tokens, then the end.

    Attributes:
      known: probability that a trace begins with the prompt's digit.
    """

    start_digits: tuple[int, ...] = (7,)
    known: float = 0.4
    name: str = "say_and_wait"

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        said, *waited = response_text.removesuffix(" .").split()
        right = said == str(self.start(problem)) and len(waited) >= SHORTEST
        return Graded(right and not truncated, not truncated, said)

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        known = rng.random() < self.known
        said = self.start(problem) if known else int(rng.integers(1, 10))
        waited = int(rng.integers(80, 161))
        return [FIRST_DIGIT + said, *[FIRST_DIGIT] * waited, END]


THIS_BENCH = replace(
    BENCH,
    task=SayAndWait(),
    model=replace(BENCH.model, context_length=LIMIT + 8),
    optimizer=OptimizerSettings(learning_rate=1e-3),
    critic_optimizer=OptimizerSettings(learning_rate=3e-3),
    priming=replace(
        BENCH.priming, updates=200, max_response=LIMIT, row_width=LIMIT + 1
    ),
    settings=replace(
        BENCH.settings,
        prompts_per_step=9,
        group_size=4,
        updates_per_rollout=3,
        critic_updates_per_rollout=9,
        max_new_tokens=LIMIT,
        rows_per_micro_batch=4,
        row_width=LIMIT + 1,
        slots_per_row=1,
    ),
)


def ppo(critic_lambda: float) -> Method:
    """PPO with lambda 0.95 for the policy, and this one for the critic's targets."""
    return Method(
        name="ppo",
        loss=partial(ppo_loss, clip_low=0.2, clip_high=0.2),
        advantages=decoupled_gae(lambda _: 0.95, critic_lambda=critic_lambda),
        rewards=signed_accuracy,
        loss_inputs=("entropy",),
        min_group_size=1,
        value_loss=partial(value_loss, clip=None),
    )


def experiment(bench: Bench) -> Experiment:
    """Plain PPO, its critic decoupled, and that critic taught before the policy."""
    settings = replace(bench.settings, value_pretraining_steps=PRETRAINING)
    taught = replace(bench, settings=settings)
    decoupled = ppo(1.0)
    return Experiment(
        name="value_pretraining",
        title="PPO on long responses, lambda 0.95",
        arms={
            "plain PPO": Arm(ppo(0.95), bench),
            "decoupled GAE": Arm(decoupled, bench),
            "decoupled GAE, value pretraining": Arm(decoupled, taught),
        },
        seeds=(0, 1, 2, 3, 4),
        steps=50,
        panels=(
            Panel("accuracy", "Accuracy of the samples", "share"),
            Panel("length_mean", "Length of responses", "tokens"),
            Panel("explained_variance", "Explained variance of the critic"),
        ),
        summaries={
            "accuracy, steps 41-50": over_steps("accuracy", 41, 50),
            "length, steps 41-50": over_steps("length_mean", 41, 50),
            "truncated, steps 1-50": over_steps("truncated_share", 1, 50),
        },
    )


def main(arguments: Sequence[str] | None = None, bench: Bench = THIS_BENCH) -> None:
    run_script(experiment(bench), arguments)


if __name__ == "__main__":
    main()
