"""Clip-higher: the upper clip and the collapse of entropy.

    python experiments/toys/clip_higher.py

The upper clip bounds by how much a token's probability grows in one rollout. A likely
token has no room for more anyway; it binds for an unlikely one. So it holds back what
would spread the policy, and not what narrows it (arXiv 2503.14476, section 3.1).

To see that alone, the reward is a coin toss: nothing can be learned, and whatever
happens to the entropy is the work of noise and of the clip (as in arXiv 2509.26114).
Where a task is learned its entropy falls for that reason, and the clip was not seen to
matter: docs/toy_experiments.md has those attempts. Momentum is off: it would carry
ratios past the clip within so few updates, in all arms.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments.toys.compare import Arm, Experiment, Panel, over_steps, run_script
from experiments.toys.toy_setup import SETUP, ToySetup
from experiments.toys.toy_tasks import END, FIRST_DIGIT, CountDown, Toy
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.recipes.dapo import DapoSettings, dapo
from jaxrl_reason.tasks.task import Graded

# [10, 10]: how likely a trace goes from one digit to another; some ways are worn.
ODDS = np.exp(1.5 * np.random.default_rng(0).standard_normal((10, 10)))
ODDS /= ODDS.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class CoinToss(CountDown):
    """Any response at all; a coin that nobody can foresee says whether it is right.

    Attributes:
      digits: of a trace.
    """

    start_digits: tuple[int, ...] = tuple(range(10))
    digits: int = 8
    name: str = "coin_toss"

    def grade(self, problem: Toy, response_text: str, truncated: bool) -> Graded:
        # The same again for the same response to the same problem, and no problem
        # comes twice. A checksum would not do: it is linear in the response.
        toss = blake2b(f"{problem.problem_id} {response_text}".encode(), digest_size=1)
        return Graded(bool(toss.digest()[0] % 2), True, response_text)

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        digits = [self.start(problem)]
        for _ in range(self.digits):
            digits.append(int(rng.choice(10, p=ODDS[digits[-1]])))
        return [*(FIRST_DIGIT + digit for digit in digits[1:]), END]


THIS_SETUP = replace(
    SETUP,
    task=CoinToss(),
    optimizer=OptimizerSettings(learning_rate=3e-3, b1=0.0),
    sft=replace(SETUP.sft, updates=200, examples_per_update=32),
    settings=replace(SETUP.settings, prompts_per_step=32, updates_per_rollout=16),
)
# DAPO with everything off but the upper clip.
HIGHER = DapoSettings(clip_high=0.28, dynamic_sampling=False, soft_overlong=False)


def experiment(setup: ToySetup) -> Experiment:
    """Upper clips: a tight one, that of PPO, that of DAPO, and a wide one."""
    limit = setup.settings.max_new_tokens
    return Experiment(
        name="clip_higher",
        title="The upper clip where there is nothing to learn",
        arms={
            f"clip 0.2 / {high}": Arm(
                dapo(replace(HIGHER, clip_high=high), max_new_tokens=limit), setup
            )
            for high in (0.1, 0.2, 0.28, 0.4)
        },
        seeds=(0, 1, 2, 3, 4),
        steps=60,
        panels=(
            Panel("policy/entropy", "Entropy", "nats per token"),
            Panel(
                "policy/clip_fraction_high", "Tokens above the upper clip", "fraction"
            ),
            Panel(
                "policy/clip_fraction_low", "Tokens below the lower clip", "fraction"
            ),
        ),
        summaries={
            "entropy, steps 26-30": over_steps("policy/entropy", 26, 30),
            "entropy, steps 56-60": over_steps("policy/entropy", 56, 60),
            "above the upper clip, steps 1-60": over_steps(
                "policy/clip_fraction_high", 1, 60
            ),
        },
        digits=3,
    )


def main(arguments: Sequence[str] | None = None, setup: ToySetup = THIS_SETUP) -> None:
    run_script(experiment(setup), arguments)


if __name__ == "__main__":
    main()
