"""Value pretraining and decoupled GAE against plain PPO on long responses.

    python experiments/toys/value_pretraining.py

The reward comes at the end, some sixty tokens after the first token, and every token of
a response has a part in it. With lambda 0.95 little of a reward is left after sixty
tokens: only the critic's values carry it back, and a critic that learns from targets
with that lambda learns of the end first and of the beginning many steps later. Until it
knows what to expect, the EOS token takes the blame for what went wrong before it.

A response has to begin with the right digit, to wait by saying 0 for 32 tokens or more,
and to end. Fine-tuned models are right in about one of ten.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.toys.compare import Arm, Experiment, Panel, over_steps, run_script
from experiments.toys.toy_setup import SETUP, ToySetup
from experiments.toys.toy_tasks import END, FIRST_DIGIT, CountDown, Toy
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.losses import ppo_loss, value_loss
from jaxrl_reason.rl.critic import Critic
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.recipes.vc_ppo import decoupled_gae
from jaxrl_reason.rl.rollouts import signed_accuracy
from jaxrl_reason.tasks.task import Graded

LIMIT = 104
SHORTEST = 32
PRETRAINING = 10


@dataclass(frozen=True)
class SayAndWait(CountDown):
    """The prompt's digit, then `SHORTEST` zeros or more and no other digit, the end.

    Attributes:
      known: probability that a trace begins with the prompt's digit.
      slip: probability that a token of a trace's wait is any digit at all.
    """

    start_digits: tuple[int, ...] = (7,)
    known: float = 0.6
    slip: float = 0.003
    name: str = "say_and_wait"

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        said, *waited = response_text.removesuffix(" .").split()
        patient = len(waited) >= SHORTEST and set(waited) == {"0"}
        right = said == str(self.start(problem)) and patient
        return Graded(right and not truncated, not truncated, said)

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        known = rng.random() < self.known
        digits = [self.start(problem) if known else int(rng.integers(1, 10))]
        for _ in range(int(rng.integers(40, 81))):
            slips = rng.random() < self.slip
            digits.append(int(rng.integers(10)) if slips else 0)
        return [*(FIRST_DIGIT + digit for digit in digits), END]


THIS_SETUP = replace(
    SETUP,
    task=SayAndWait(),
    model=replace(SETUP.model, context_length=LIMIT + 8),
    optimizer=OptimizerSettings(learning_rate=1e-3),
    sft=replace(SETUP.sft, updates=200, max_response=LIMIT, row_width=LIMIT + 1),
    settings=replace(
        SETUP.settings,
        prompts_per_step=12,
        group_size=4,
        updates_per_rollout=3,
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
        components=(Critic(partial(value_loss, clip=None)),),
    )


def experiment(setup: ToySetup) -> Experiment:
    """Plain PPO, each of the two cures alone, and both."""
    settings = replace(setup.settings, value_pretraining_steps=PRETRAINING)
    taught = replace(setup, settings=settings)
    plain, decoupled = ppo(0.95), ppo(1.0)
    return Experiment(
        name="value_pretraining",
        title="PPO on long responses, lambda 0.95",
        arms={
            "plain PPO": Arm(plain, setup),
            "decoupled GAE": Arm(decoupled, setup),
            "value pretraining": Arm(plain, taught),
            "both": Arm(decoupled, taught),
        },
        seeds=(0, 1, 2, 3, 4),
        steps=50,
        panels=(
            Panel("reward/accuracy", "Accuracy of the samples", "fraction"),
            Panel("rollout/length_mean", "Length of responses", "tokens"),
            Panel(
                "rollout/truncated_fraction",
                "Responses that ran into the limit",
                "fraction",
            ),
        ),
        summaries={
            "accuracy, steps 41-50": over_steps("reward/accuracy", 41, 50),
            "length, steps 41-50": over_steps("rollout/length_mean", 41, 50),
            "truncated, steps 41-50": over_steps("rollout/truncated_fraction", 41, 50),
        },
    )


def main(arguments: Sequence[str] | None = None, setup: ToySetup = THIS_SETUP) -> None:
    run_script(experiment(setup), arguments)


if __name__ == "__main__":
    main()
