"""Token selection, once per mini-batch with the current policy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import jax
import jax.numpy as jnp

from jaxrl_reason.learner.packing import TrainBatch
from jaxrl_reason.rl.components import Component, ComponentLearner, LearnerSetup
from jaxrl_reason.rl.iteration import model_params
from jaxrl_reason.rl.minibatches import RolloutBatch

if TYPE_CHECKING:
    from jaxrl_reason.rl.rl_learner import RLLearner, RLState


@dataclass(frozen=True)
class TokenSelection(Component):
    """The loss's `selected` tokens: Clip-Cov's and KL-Cov's (arXiv 2505.22617).

    Costs a forward pass of the policy before each update.

    Attributes:
      choose: f(logprobs, old_logprobs, advantages, mask, key) -> [N, T] bool, on the N
        sequences of a whole mini-batch.
    """

    name: ClassVar[str] = "selection"
    loss_inputs: ClassVar[tuple[str, ...]] = ("selected",)
    choose: Callable[..., jax.Array]

    def build(self, setup: LearnerSetup) -> "TokenSelector":
        """Builds the jitted selection."""

        def select(logprobs: jax.Array, batch: TrainBatch, key: jax.Array) -> jax.Array:
            shape = batch.mask.shape  # [K, Q, T]
            fields = (logprobs, batch["old_logprobs"], batch["advantages"], batch.mask)
            flat = [jnp.asarray(x).reshape(-1, shape[-1]) for x in fields]  # [N, T]
            return self.choose(*flat, key).reshape(shape)

        return TokenSelector(jax.jit(select))


@dataclass(frozen=True)
class TokenSelector(ComponentLearner):
    """The jitted selection (logprobs, batch [K, ...], key) -> [K, Q, T].

    Attributes:
      select: f(logprobs, batch, key) -> the chosen tokens.
    """

    name: ClassVar[str] = "selection"
    select: Callable[[jax.Array, TrainBatch, jax.Array], jax.Array]

    def minibatch_inputs(
        self,
        learner: "RLLearner",
        state: "RLState",
        batch: RolloutBatch,
        minibatch: TrainBatch,
        update: int,
    ) -> dict[str, jax.Array]:
        """Selects tokens from the whole mini-batch with the current policy."""
        key = jax.random.key(learner.settings.seed)
        key = jax.random.fold_in(jax.random.fold_in(key, state.step), update)
        num_active = batch.minibatches[update].plan.num_active
        logprobs = learner.score(model_params(learner, state), minibatch, num_active)
        return {"selected": self.select(logprobs, minibatch, key)}
