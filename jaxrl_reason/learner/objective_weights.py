"""Weights of K gradients of one mini-batch: functions for `multi_objective`.

PCGrad and MGDA result in a weighted sum of the gradients, as fixed, averaged and learnt
weights do; so a method of combining objectives is a function that returns K weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.losses import dwa_weights, mgda_weights, pcgrad_coefficients

Params = Any
# (losses [K], K gradients, update number [], *given) -> weights [K]
Combine = Callable[..., jax.Array]


def fixed_weights(*weights: float) -> Combine:
    """The weighted sum of the objectives: sum_k w_k L_k."""
    if not weights:
        raise ValueError("weights must hold at least one number, got none")

    def combine(losses: jax.Array, gradients: Sequence[Params], step: Any) -> jax.Array:
        return jnp.array(weights, jnp.float32)

    return combine


def pcgrad_weights(*, seed: int = 0) -> Combine:
    """PCGrad (arXiv 2001.06782): gradients without their conflicting components.

    The order of the projections depends on the seed and the update's number, so it is
    the same in a resumed run.
    """

    def combine(
        losses: jax.Array, gradients: Sequence[Params], step: jax.Array
    ) -> jax.Array:
        key = None  # for two gradients the order does not matter
        if len(gradients) > 2:
            key = jax.random.fold_in(jax.random.key(seed), step)
        return jnp.sum(pcgrad_coefficients(gradients, key=key), axis=0)

    return combine


def shortest_weights(*, iterations: int = 250) -> Combine:
    """MGDA (arXiv 1810.04650): the minimum-norm vector in the gradients' convex hull.

    The weights sum to 1; those of a plain sum are 1 each.
    """

    def combine(
        losses: jax.Array, gradients: Sequence[Params], step: jax.Array
    ) -> jax.Array:
        return mgda_weights(gradients, iterations=iterations)

    return combine


def given_weights(
    losses: jax.Array, gradients: Sequence[Params], step: jax.Array, weights: jax.Array
) -> jax.Array:
    """Weights [K] passed to each update as its last argument, as DWA's."""
    return jnp.asarray(weights, jnp.float32)


@dataclass
class DynamicWeightAverage:
    """DWA's weights (arXiv 1803.10704) on the host: call `end_epoch` once per epoch.

    Attributes:
      num_objectives: K.
      temperature: of the softmax.
      history: losses [K] of the last two epochs; save it with a checkpoint.

    Example:
      >>> dwa = DynamicWeightAverage(2)
      >>> dwa.weights().tolist()  # of the first two epochs
      [1.0, 1.0]
      >>> dwa.end_epoch([1.0, 0.8])
      >>> dwa.end_epoch([0.9, 0.4])
      >>> [round(x, 4) for x in dwa.weights().tolist()]
      [1.0997, 0.9003]
    """

    num_objectives: int
    temperature: float = 2.0
    history: list[list[float]] = field(default_factory=list)

    def weights(self) -> np.ndarray:
        """[K] for `given_weights`; they sum to K."""
        if len(self.history) < 2:
            return np.ones(self.num_objectives, np.float32)
        before, last = (jnp.asarray(x, jnp.float32) for x in self.history)
        return np.asarray(dwa_weights(last, before, temperature=self.temperature))

    def end_epoch(self, losses: Sequence[float]) -> None:
        """Records the mean losses of the epoch.

        Raises:
          ValueError: there are not K of them, or one is not > 0: a ratio of policy
          losses has no meaning.
        """
        found = [float(x) for x in losses]
        if len(found) != self.num_objectives or not all(x > 0 for x in found):
            raise ValueError(
                f"losses must be {self.num_objectives} numbers > 0, got {found}"
            )
        self.history = [*self.history, found][-2:]
