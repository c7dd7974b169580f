"""A rollout correction: weights for the mismatch between sampler and trainer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import jax
import numpy as np

from jaxrl_reason.losses import importance_weights
from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.method import Experience, Method
from jaxrl_reason.rl.minibatches import RolloutBatch
from jaxrl_reason.runs.metrics_log import Row

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState

Weights = Callable[..., jax.Array]


@dataclass(frozen=True)
class RolloutCorrection(Component):
    """Computes the loss's `weights` [B, T], once per rollout.

    Attributes:
      weights: f(old_logprobs, sampler_logprobs, mask) -> [B, T].
    """

    name: ClassVar[str] = "correction"
    loss_inputs: ClassVar[tuple[str, ...]] = ("weights",)
    weights: Weights

    def build(self, setup: LearnerSetup) -> "CorrectionWeights":
        """Builds the jitted function.

        Raises:
          ValueError: the old log-probs are the sampler's, so that there is no mismatch.
        """
        if setup.settings.old_logprobs == "sampler":
            raise ValueError(
                "old_logprobs must be 'trainer' for a rollout correction, which weighs "
                "the difference of sampler and trainer, got 'sampler'"
            )
        return CorrectionWeights(jax.jit(self.weights))


@dataclass(frozen=True)
class CorrectionWeights(ComponentLearner):
    """The jitted weights.

    Attributes:
      weights: f(old_logprobs, sampler_logprobs, mask) -> [B, T].
    """

    name: ClassVar[str] = "correction"
    weights: Weights

    def before_advantages(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        experience: Experience,
    ) -> "tuple[RLState, dict[str, np.ndarray], Row]":
        """The weights of this rollout."""
        weights = self.weights(
            experience.old_logprobs, experience["sampler_logprobs"], experience.mask
        )
        return state, {"weights": np.asarray(weights)}, {}


def with_importance_weights(
    method: Method, weights: Weights = importance_weights
) -> Method:
    """A method with its objective weighted by a rollout correction.

    `weights` is a function of (old_logprobs, sampler_logprobs, mask), such as
    `importance_weights` (TIS) or `masked_importance_weights` (MIS, IcePop) of
    `jaxrl_reason.losses`, their settings bound with `functools.partial`. It multiplies
    only the objective; denominators do not change.

    Raises:
      ValueError: the method already has weights.

    Example:
      >>> from jaxrl_reason.rl.recipes.grpo import grpo
      >>> from jaxrl_reason.rl.rollout_correction import with_importance_weights
      >>> with_importance_weights(grpo(kl_coef=0)).all_loss_inputs
      ('entropy', 'weights')
    """
    if any(isinstance(c, RolloutCorrection) for c in method.components):
        raise ValueError(f"a method has one kind of weights, got {method.name!r} again")
    correction = RolloutCorrection(weights)
    return replace(method, components=(*method.components, correction))
