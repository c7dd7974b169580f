"""Arms of claims on the toys: a method on a setup, and rewards that know nothing.

ARMS = {"token mean": ToyArm(dapo(...), SETUP), ...}

def run_arm(arm: str, seed: int, steps: int) -> list[Row]:
    return run_toy_arm(ARMS[arm], seed, steps)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np

from experiments.toys.toy_setup import SETUP, ToySetup, run_method
from experiments.toys.toy_tasks import LosesTheThread, SayAndWait
from jaxrl_reason.learner.state import OptimizerSettings
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row

# Responses that may be wrong at length, up to 40 tokens; several claims are about it.
LOST_LIMIT = 40
LOST = replace(
    SETUP,
    task=LosesTheThread(),
    model=replace(SETUP.model, context_length=LOST_LIMIT + 8),
    optimizer=OptimizerSettings(learning_rate=1e-3),
    sft=replace(SETUP.sft, max_response=LOST_LIMIT),
    settings=replace(
        SETUP.settings,
        prompts_per_step=8,
        updates_per_rollout=2,
        max_new_tokens=LOST_LIMIT,
    ),
)
# A reward some sixty tokens after the first, which only a critic's values carry back.
WAITING_LIMIT = 104
WAITING = replace(
    SETUP,
    task=SayAndWait(),
    model=replace(SETUP.model, context_length=WAITING_LIMIT + 8),
    optimizer=OptimizerSettings(learning_rate=1e-3),
    sft=replace(
        SETUP.sft, updates=200, max_response=WAITING_LIMIT, row_width=WAITING_LIMIT + 1
    ),
    settings=replace(
        SETUP.settings,
        prompts_per_step=12,
        group_size=4,
        updates_per_rollout=3,
        max_new_tokens=WAITING_LIMIT,
        rows_per_micro_batch=4,
        row_width=WAITING_LIMIT + 1,
        slots_per_row=1,
    ),
)
WAITING_PRETRAINED = replace(
    WAITING, settings=replace(WAITING.settings, value_pretraining_steps=10)
)


@dataclass(frozen=True)
class ToyArm:
    """A method on a setup.

    Attributes:
      method: what is tried.
      setup: what it is tried on.
      idle: steps before the first in which nothing is trained; their rows are those of
        the first.
    """

    method: Method
    setup: ToySetup
    idle: int = 0


def run_toy_arm(
    arm: ToyArm,
    seed: int,
    steps: int,
    until: Callable[[Sequence[Row]], bool] | None = None,
) -> list[Row]:
    """The rows of a run; those before it, where dynamic sampling finds no signal.

    A task that is learned to the end gives no more signal.

    Args:
      arm: what is run.
      seed: of the parameters, the fine-tuning and the samples.
      steps: RL steps.
      until: of the rows so far; stops the run once it is true.

    Raises:
      NoSignalError: there is none in the first step.
    """
    rows: list[Row] = []

    def keep(done: Sequence[Row]) -> bool:
        rows[:] = done
        return until is not None and until(done)

    try:
        trained = max(1, steps - arm.idle)
        run_method(arm.method, seed, steps=trained, setup=arm.setup, until=keep)
    except NoSignalError:
        if not rows:
            raise
    waited = [*([rows[0]] * arm.idle), *rows][:steps]
    return [{**row, "step": step} for step, row in enumerate(waited, 1)]


def coin_rewards(rollouts: Rollouts) -> np.ndarray:
    """[P, G] 1 or 0 by a coin, whatever the answer.

    The same again for the same response to the same problem, and no toy problem comes
    twice. The grades stay those of the task, so that accuracy is still measured.
    """
    p, g, _ = rollouts.tokens.shape
    tokens = np.ascontiguousarray(rollouts.tokens)
    tosses = [
        blake2b(f"{problem} {j}".encode() + responses[j].tobytes(), digest_size=1)
        for problem, responses in zip(rollouts.problem_ids, tokens, strict=True)
        for j in range(g)
    ]
    sides = [toss.digest()[0] % 2 for toss in tosses]
    return np.array(sides, np.float32).reshape(p, g)


def with_coin_rewards(method: Method) -> Method:
    """The same method, which learns from a coin instead of the grades."""
    return replace(method, rewards=coin_rewards, name=f"{method.name}_coin")
