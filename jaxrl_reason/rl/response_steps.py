"""The steps of each response and the states they were taken in, as the task sees them.

For credit by steps instead of tokens or whole responses: which token belongs to which
step, and which steps of a group began in equal states.
"""

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.method import Experience
from jaxrl_reason.rl.minibatches import RolloutBatch
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.tasks.task import Step, SteppedTask, TaskWrapper
from jaxrl_reason.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState


@dataclass(frozen=True)
class ResponseSteps(Component):
    """Cuts responses into the steps of a `SteppedTask`.

    An estimator reads `experience["step_ids"]` [B, T] int, the step of each token,
    `experience["state_ids"]` [B, S] int, equal where steps of one group began in equal
    states and -1 where there is no step, in [0, G S); and `experience["step_rewards"]`
    [B, S], the task's own rewards of steps, the outcome not among them.

    Attributes:
      max_steps: S; what comes after the last of them belongs to it.
    """

    name: ClassVar[str] = "steps"
    max_steps: int = 64

    def __post_init__(self) -> None:
        if self.max_steps < 1:
            raise ValueError(f"max_steps must be >= 1, got {self.max_steps}")

    def build(self, setup: LearnerSetup) -> "StepReader":
        """Nothing is compiled.

        Raises:
          ValueError: the task has no steps.
        """
        task = setup.task
        while isinstance(task, TaskWrapper):  # asked or graded in another way
            task = task.task
        if not isinstance(task, SteppedTask):
            raise ValueError(
                f"a method with steps needs a task with `steps`, got {task.name!r}"
            )
        return StepReader(task.steps, self.max_steps)


@dataclass(frozen=True)
class StepReader(ComponentLearner):
    """Reads the steps off the text of the responses.

    Attributes:
      steps: f(problem, response_text), of the task.
      max_steps: S.
    """

    name: ClassVar[str] = "steps"
    steps: Callable[[Any, str], Sequence[Step]]
    max_steps: int

    def extend_rollouts(
        self,
        learner: "RLLearner",
        sample: Callable[..., Rollouts],
        problems: Sequence[Any],
        rollouts: Rollouts,
    ) -> Rollouts:
        """Adds `step_ends`, `state_ids` and `step_rewards`, [P, G, S] each."""
        shape = (*rollouts.lengths.shape, self.max_steps)
        ends, ids = np.full(shape, -1, np.int32), np.full(shape, -1, np.int32)
        rewards = np.zeros(shape, np.float32)
        for p, problem in enumerate(problems):
            known: dict[Any, int] = {}  # state -> id, in this group
            for g, n in enumerate(rollouts.lengths[p]):
                tokens = rollouts.tokens[p, g, :n].tolist()
                tokenizer = learner.task.tokenizer
                steps = self.steps(problem, tokenizer.decode(tokens))
                steps = steps[: self.max_steps]
                last = last_tokens(steps, tokens, tokenizer)
                for k, (step, end) in enumerate(zip(steps, last, strict=True)):
                    ends[p, g, k], rewards[p, g, k] = end, step.reward
                    ids[p, g, k] = known.setdefault(step.state, len(known))
        found = {"step_ends": ends, "state_ids": ids, "step_rewards": rewards}
        return replace(rollouts, extras={**rollouts.extras, **found})

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """The step of each token, and how many steps have others to compare with."""
        ids = np.asarray(experience["state_ids"])  # [B, S]
        on, width = ids >= 0, experience.mask.shape[1]
        after = np.zeros((len(ids), width + 1), np.int32)  # where the next step begins
        rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
        np.add.at(after, (rows[on], experience["step_ends"][on] + 1), 1)
        step_ids = np.cumsum(after[:, :width], axis=1, dtype=np.int32)
        group = np.broadcast_to(np.asarray(experience.group_ids)[:, None], ids.shape)
        met = np.stack([group[on], ids[on]], axis=1)
        _, times = np.unique(met, axis=0, return_counts=True)  # of each state
        row = {
            "steps/mean": float(on.sum(axis=1).mean()),
            "steps/shared_state_fraction": float(times[times > 1].sum() / times.sum()),
        }
        return state, {"step_ids": step_ids}, row


def last_tokens(
    steps: Sequence[Step], tokens: Sequence[int], tokenizer: Tokenizer
) -> list[int]:
    """The index of each step's last token; the last step has what is left.

    A token belongs to the step in whose text it begins. A step without a token ends
    where the one before it does.

    Args:
      steps: of a response, in their order.
      tokens: of the response.
      tokenizer: whose they are.

    Raises:
      ValueError: there is no step.
    """
    if not steps:
        raise ValueError("a response must have at least one step, got none")
    found, first = [], 0
    for step in steps[:-1]:
        first = bisect.bisect_left(
            range(len(tokens)),
            step.end,
            lo=first,
            key=lambda n: len(tokenizer.decode(tokens[:n])),
        )
        found.append(first - 1)
    return [*found, len(tokens) - 1]
