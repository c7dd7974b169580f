"""A fixed pool of problems: streams that choose from it, and accuracy on others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from experiments.toys import toy_setup
from experiments.toys.toy_setup import ToySetup, method_learner
from experiments.toys.toy_tasks import Toy
from jaxrl_reason.data.adaptive_streams import HistoryResampling
from jaxrl_reason.rl.iteration import model_params, rl_iteration
from jaxrl_reason.rl.method import Method
from jaxrl_reason.rl.pass_rate_filter import measure_pass_rates
from jaxrl_reason.rl.problem_batches import ProblemBatches, tell_source
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row

# stream(problems, batch_size=, seed=)
Stream = Callable[..., ProblemBatches]


class DropsAtRandom(HistoryResampling):
    """Drops as many problems as `HistoryResampling`, but any: outcomes are shuffled."""

    def observe(
        self, problem_ids: ArrayLike, num_correct: ArrayLike, num_samples: ArrayLike
    ) -> dict[str, float]:
        at = self.get_state()
        rng = np.random.default_rng((at["seed"], at["epoch"], at["next_batch"]))
        return super().observe(problem_ids, rng.permutation(num_correct), num_samples)


@dataclass(frozen=True)
class PoolArm:
    """A method on a pool of problems.

    Attributes:
      method: what is tried.
      setup: what it is tried on.
      stream: chooses the problems of a step from the pool.
      pool: number of problems.
      heldout: numbers of the problems that accuracy is measured on after each step.
    """

    method: Method
    setup: ToySetup
    stream: Stream
    pool: int
    heldout: tuple[int, ...]


def run_pool_arm(
    arm: PoolArm,
    seed: int,
    steps: int,
    until: Callable[[Sequence[Row]], bool] | None = None,
) -> list[Row]:
    """The rows of a run, with `heldout/accuracy` and `rollout/samples_so_far`.

    Args:
      arm: what is run.
      seed: of the parameters, the fine-tuning, the problems' order and the samples.
      steps: RL steps.
      until: of the rows so far; stops the run once it is true.
    """
    learner = method_learner(arm.method, arm.setup)
    learner = replace(learner, settings=replace(learner.settings, seed=seed))
    state = init_rl_state(learner, toy_setup.sft_policy(arm.setup, seed))
    size = learner.settings.prompts_per_step
    problems: Any = arm.stream(
        [Toy(n) for n in range(arm.pool)], batch_size=size, seed=seed
    )
    heldout, rows = [Toy(n) for n in arm.heldout], list[Row]()
    for step in range(1, steps + 1):
        state, row, collected = rl_iteration(learner, state, problems, PhaseTimer())
        row |= tell_source(problems, collected.fresh)
        rates = measure_pass_rates(learner, model_params(learner, state), heldout)
        row["heldout/accuracy"] = rates.num_correct.sum() / rates.num_samples.sum()
        row["rollout/samples_so_far"] = step * learner.settings.sequences
        rows.append({"step": step, **row})
        if until is not None and until(rows):
            break
    return rows
