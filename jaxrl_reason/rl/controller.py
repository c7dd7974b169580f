"""Coefficients that follow a measurement from step to step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from jaxrl_reason.losses import adaptive_entropy_update, adaptive_kl_update
from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.method import Experience
from jaxrl_reason.rl.minibatches import RolloutBatch
from jaxrl_reason.runs.metrics_log import Row

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState

State = Mapping[str, float]


@dataclass(frozen=True)
class Controller(Component, ComponentLearner):
    """Coefficients that change from step to step, such as that of an entropy bonus.

    Attributes:
      start: its state before the first step, by name; the state is in
        `Experience.inputs` for the advantage estimator, and in the metrics of the step.
      loss_coefficients: state -> scalars that are passed to the loss by keyword; they
        are traced.
      follow: f(state, metrics of the step) -> state of the next step.
    """

    name: ClassVar[str] = "controller"
    start: State = field(hash=False)
    loss_coefficients: Callable[[State], State]
    follow: Callable[[State, State], State]

    def build(self, setup: LearnerSetup) -> "Controller":
        """Returns the controller itself: there is nothing to compile."""
        return self

    def init_controls(self) -> State:
        """The state before the first step."""
        return self.start

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """The state, for an estimator that reads a coefficient."""
        own = self._own(state.controls)
        return state, {name: np.asarray(x, np.float32) for name, x in own.items()}, {}

    def coefficients(self, controls: State) -> State:
        """The loss's coefficients in this step."""
        return self.loss_coefficients(self._own(controls))

    def next_controls(self, controls: State, row: Row) -> Row:
        """The state after a step."""
        return dict(self.follow(self._own(controls), row))

    def _own(self, controls: State) -> State:
        return {name: controls[name] for name in self.start}


def entropy_controller(
    *, target: float = 0.2, step: float = 1e-4, low: float = 0.0, high: float = 0.005
) -> Controller:
    """Skywork-OR1's entropy coefficient (arXiv 2505.22312), which starts at 0.

    The entropy is measured as the released code does, -mean(old log-probs) of the batch
    just trained on, so the coefficient lags by one step. The loss must take
    `entropy_coef` and have `entropy` among its inputs.
    """

    def follow(state: State, row: State) -> State:
        bonus, used = adaptive_entropy_update(
            state["entropy_bonus"],
            row["policy/entropy_sampled"],
            target=target,
            step=step,
            low=low,
            high=high,
        )
        return {"entropy_bonus": float(bonus), "entropy_coef": float(used)}

    return Controller(
        start={"entropy_bonus": 0.0, "entropy_coef": 0.0},
        loss_coefficients=lambda state: {"entropy_coef": state["entropy_coef"]},
        follow=follow,
    )


def kl_controller(
    *, start: float, target: float, horizon: float, num_samples: int
) -> Controller:
    """The adaptive coefficient of a KL in the reward (arXiv 1909.08593).

    It follows `policy/reference_kl_k1`, the mean of old minus reference log-prob over
    the tokens; an advantage estimator reads `Experience.inputs["kl_coef"]`.

    Args:
      start: the first coefficient.
      target: of the KL, in nats per token.
      horizon: samples over which the coefficient may change by a fifth.
      num_samples: responses per step.
    """

    def follow(state: State, row: State) -> State:
        coef = adaptive_kl_update(
            state["kl_coef"],
            row["policy/reference_kl_k1"],
            target=target,
            horizon=horizon,
            num_samples=num_samples,
        )
        return {"kl_coef": float(coef)}

    return Controller(
        start={"kl_coef": start}, loss_coefficients=lambda state: {}, follow=follow
    )
