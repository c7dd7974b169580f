"""How certain the policy was at each token, for estimators that weigh by it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import jax
import numpy as np

from jaxrl_reason.learner.forward import squared_probs_of
from jaxrl_reason.learner.update import make_scorer
from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.iteration import model_params
from jaxrl_reason.rl.method import Experience
from jaxrl_reason.rl.minibatches import RolloutBatch, score_sequences
from jaxrl_reason.runs.metrics_log import Row

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState


@dataclass(frozen=True)
class SquaredProbs(Component):
    """The sum of the squared probabilities at each token (OTB, arXiv 2602.07078).

    An estimator reads `experience["squared_probs"]` [B, T], of the policy before its
    updates. Costs a forward pass, with twice the products of the output head.
    """

    name: ClassVar[str] = "squared_probs"

    def build(self, setup: LearnerSetup) -> "SquaredProbsScorer":
        """The jitted forward pass."""
        score = squared_probs_of(setup.model, setup.settings.temperature)
        return SquaredProbsScorer(make_scorer(score))


@dataclass(frozen=True)
class SquaredProbsScorer(ComponentLearner):
    """The compiled forward pass.

    Attributes:
      score: params, batch -> [K, Q, T]; jitted.
    """

    name: ClassVar[str] = "squared_probs"
    score: Callable[..., jax.Array]

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """Of the policy before its first update."""
        params = model_params(learner, state)
        squares = score_sequences(
            self.score, params, batch.minibatches, learner.batch_sharding
        )
        return state, {"squared_probs": squares}, {}
