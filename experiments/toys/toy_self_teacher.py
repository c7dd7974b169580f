"""SDPO on the toy: the policy reads a right response of its group and teaches itself.

A model that has never seen a response in its prompt learns nothing from one. So this
policy is fine-tuned on two kinds of examples: a plain prompt with a careless trace, and
a prompt in which such a trace stands already, with the same trace as the response. It
learns to do again what it is shown, right or wrong; which responses are right only the
task knows, and only SDPO is told.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from experiments.toys.toy_setup import SETUP, ToySetup, one_device
from experiments.toys.toy_tasks import CountDown, Toy
from jaxrl_reason.models import Transformer
from jaxrl_reason.rl.recipes.sdpo import sdpo
from jaxrl_reason.rl.rl_learner import RLLearner, build_rl_learner
from jaxrl_reason.rl.self_teacher import ask_again

SELF_TAUGHT = ("sdpo",)


@dataclass(frozen=True)
class ShownCountDown(CountDown):
    """Count down; problems of even number show a trace in their prompt."""

    name: str = "shown_count_down"

    def shown(self, problem: Toy) -> list[int]:
        """The trace in the prompt of a problem, the same one at any time."""
        return super().trace(problem, np.random.default_rng(problem.problem_id))

    def prompt_tokens(self, problem: Toy) -> list[int]:
        plain = super().prompt_tokens(problem)
        if problem.problem_id % 2:
            return plain
        informed: list[int] = ask_again(plain, self.shown(problem)).tolist()  # type: ignore[arg-type]
        return informed

    def trace(self, problem: Toy, rng: np.random.Generator) -> list[int]:
        if problem.problem_id % 2:
            return super().trace(problem, rng)
        return self.shown(problem)


def copying(setup: ToySetup = SETUP) -> ToySetup:
    """The setup with a policy that does again what it is shown."""
    return replace(
        setup,
        task=ShownCountDown(),
        model=replace(setup.model, context_length=32),
        sft=replace(setup.sft, updates=4 * setup.sft.updates, examples_per_update=32),
    )


@cache
def self_taught_learner(setup: ToySetup = SETUP) -> RLLearner:
    """SDPO on plain prompts, one update per rollout, with a slow teacher.

    On plain prompts alone the policy forgets how to read a response, and a teacher that
    follows it at SDPO's 0.05 forgets it too: accuracy rises to 71% and falls again.
    """
    return build_rl_learner(
        Transformer(copying(setup).model),
        setup.task,
        sdpo(update_rate=0.01),
        replace(setup.settings, updates_per_rollout=1),
        setup.optimizer,
        one_device(),
    )
