"""One loss from several: fixed weights, Tchebycheff, DWA, uncertainty weighting.

Each objective has a loss; these functions turn K such numbers into one number or into
the weights of a sum. They cost one backward pass. Methods that compare gradients need
K: see `jaxrl_reason.losses.multi_objective.gradients`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import LOG_RATIO_BOUND

Losses = ArrayLike | Sequence[ArrayLike]


def weighted_sum(losses: Losses, weights: Losses) -> jax.Array:
    """The linear scalarisation.

    L = sum_k w_k L_k. Reaches only the convex part of the Pareto front.

    Args:
      losses: [K], or a list of K scalars; differentiable.
      weights: [K], or a list of K numbers; constants.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: there are no losses, or shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import weighted_sum
      >>> round(float(weighted_sum(jnp.array([0.9, 0.4]), jnp.array([0.5, 0.5]))), 4)
      0.65
    """
    values, weights = _losses_and_weights(losses, weights)
    return jnp.sum(weights * values)


def tchebycheff(
    losses: Losses, weights: Losses, *, ideal: ArrayLike = 0.0
) -> jax.Array:
    """The largest weighted distance from an ideal point.

    L = max_k w_k (L_k - z_k). Every Pareto optimum is its minimum for some weights, but
    only the worst objective has a gradient at a time.

    Args:
      losses: [K], or a list of K scalars; differentiable.
      weights: [K], > 0; constants.
      ideal: z, [K] or one for all: lower bounds of the losses; constants.

    Returns:
      A float32 scalar. Objectives that tie share the gradient.

    Raises:
      ValueError: there are no losses, or shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import tchebycheff
      >>> losses, weights = jnp.array([0.9, 0.4]), jnp.array([0.5, 0.5])
      >>> round(float(tchebycheff(losses, weights, ideal=0.1)), 4)
      0.4
    """
    return jnp.max(_distances(losses, weights, ideal))


def smooth_tchebycheff(
    losses: Losses,
    weights: Losses,
    *,
    ideal: ArrayLike = 0.0,
    mu: float | jax.Array = 0.1,
) -> jax.Array:
    """A smooth upper bound of `tchebycheff`.

    L = mu log sum_k exp(w_k (L_k - z_k) / mu), at most mu log K above the maximum.
    arXiv 2402.19078. LibMTL's STCH works on log(L / nadir) after a first epoch and
    multiplies by K.

    Args:
      losses: [K], or a list of K scalars; differentiable.
      weights: [K], > 0; constants.
      ideal: z, [K] or one for all; constants.
      mu: smoothing, > 0.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: there are no losses, shapes differ, or `mu` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import smooth_tchebycheff
      >>> losses, weights = jnp.array([0.9, 0.4]), jnp.array([0.5, 0.5])
      >>> round(float(smooth_tchebycheff(losses, weights, ideal=0.1)), 4)
      0.4079
    """
    _checks.number("mu", mu, above=0)
    return mu * jax.nn.logsumexp(_distances(losses, weights, ideal) / mu)


def dwa_weights(
    losses: Losses, previous_losses: Losses, *, temperature: float | jax.Array = 2.0
) -> jax.Array:
    """Dynamic weight average: more weight for losses that decrease more slowly.

    w_k = L_k(t-1) / L_k(t-2), lambda_k = K softmax(w / T)_k. arXiv 1803.10704, equation
    7. Losses are averages over an epoch. In the first two epochs the weights are 1:
    pass the same losses twice.

    Args:
      losses: [K], or a list of K numbers, > 0: of the last epoch, t-1.
      previous_losses: [K], > 0: of the epoch before it, t-2.
      temperature: T > 0; large values make the weights equal.

    Returns:
      [K] float32 constants that sum to K. A loss of 0 / 0 gives nan.

    Raises:
      ValueError: there are no losses, shapes differ, or `temperature` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import dwa_weights
      >>> weights = dwa_weights(jnp.array([0.9, 0.4]), jnp.array([1.0, 0.8]))
      >>> [round(x, 4) for x in weights.tolist()]
      [1.0997, 0.9003]
    """
    _checks.number("temperature", temperature, above=0)
    last, before = (
        _vector("losses", losses),
        _vector("previous_losses", previous_losses),
    )
    _checks.same_shape(1, losses=last, previous_losses=before)
    # A loss that was 0 has an infinite ratio; a softmax of inf would be nan.
    largest = float(jnp.finfo(jnp.float32).max)
    growth = jnp.clip(last / before, -largest, largest) / temperature
    return jax.lax.stop_gradient(last.shape[0] * jax.nn.softmax(growth))


def uncertainty_weighting(losses: Losses, log_variances: Losses) -> jax.Array:
    """Weights from learnt variances: a loss that stays large is treated as noisy.

    L = sum_k (L_k exp(-s_k) + s_k) / 2. arXiv 1705.07115, s the log of a variance;
    LibMTL starts at -0.5. d/ds_k = (1 - L_k exp(-s_k)) / 2, so the optimum is s_k =
    log L_k, which needs L_k > 0: a policy loss, which may be negative, has none. Below
    s = -20 the exponential continues as a straight line, so that s can rise again.

    Args:
      losses: [K], or a list of K scalars, > 0; differentiable.
      log_variances: [K] s, differentiable; trained parameters.

    Returns:
      A float32 scalar.

    Raises:
      ValueError: there are no losses, or shapes differ.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrl_reason.losses import uncertainty_weighting
      >>> losses, s = jnp.array([0.9, 0.4]), jnp.array([-0.5, 0.3])
      >>> round(float(uncertainty_weighting(losses, s)), 4)
      0.7901
      >>> slope = jax.grad(uncertainty_weighting, argnums=1)(losses, s)
      >>> [round(x, 4) for x in slope.tolist()]
      [-0.2419, 0.3518]
    """
    values, s = _vector("losses", losses), _vector("log_variances", log_variances)
    _checks.same_shape(1, losses=values, log_variances=s)
    bound = LOG_RATIO_BOUND
    precision = jnp.exp(jnp.minimum(-s, bound)) * (1.0 + jnp.maximum(-s - bound, 0.0))
    return 0.5 * jnp.sum(values * precision + s)


def _vector(name: str, values: Losses) -> jax.Array:
    """[K] float32 of an array or of a list of scalars."""
    if isinstance(values, (list, tuple)):
        values = jnp.stack([jnp.asarray(v) for v in values]) if values else jnp.zeros(0)
    vector = jnp.asarray(values)
    if jnp.issubdtype(vector.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got {vector.dtype}")
    _checks.same_shape(1, **{name: vector})
    if vector.shape[0] == 0:
        raise ValueError(f"{name} must hold at least one number, got none")
    return vector.astype(jnp.promote_types(vector.dtype, jnp.float32))


def _losses_and_weights(losses: Losses, weights: Losses) -> tuple[jax.Array, jax.Array]:
    values = _vector("losses", losses)
    weights = jax.lax.stop_gradient(_vector("weights", weights))
    _checks.same_shape(1, losses=values, weights=weights)
    return values, weights


def _distances(losses: Losses, weights: Losses, ideal: ArrayLike) -> jax.Array:
    values, weights = _losses_and_weights(losses, weights)
    if isinstance(ideal, int | float | str):
        _checks.number("ideal", ideal)
    point = _checks.constant("ideal", ideal).astype(values.dtype)
    if point.ndim == 0:
        point = jnp.broadcast_to(point, values.shape)
    _checks.same_shape(1, losses=values, ideal=point)
    return weights * (values - point)
