"""rStar-Math's process preference model: a scalar head trained on pairs of steps."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics, metric_total, zero_masked
from jaxrl_reason.losses.preference._pairs import denominator


def pairwise_ranking_loss(
    chosen_scores: ArrayLike,
    rejected_scores: ArrayLike,
    *,
    chosen_mask: ArrayLike | None = None,
    rejected_mask: ArrayLike | None = None,
    num_steps: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """The process preference model: every good step above every bad one.

    L = mean over steps of -(1 / (|W| |L|)) sum_{w, l} log sigmoid(r_w - r_l).
    rStar-Math, arXiv 2501.04519, equation 4: per step the two candidates of highest Q
    that lead to a right answer, and the two of lowest Q that lead to a wrong one. With
    fewer candidates the factor counts those that exist; a step without candidates on
    one side is not counted.

    Args:
      chosen_scores: [S, W] scores of the good candidates of S steps, tanh outputs in
        the paper; or [W] for one step.
      rejected_scores: [S, L] of the bad ones; or [L].
      chosen_mask: [S, W] (or [W]) bool or 0/1, False on padding; needs
        `num_steps`.
      rejected_mask: [S, L] (or [L]), likewise.
      num_steps: steps with a pair in the whole mini-batch, `count_steps` of it. If left
        out, these steps are the whole mini-batch.

    Returns:
      The scalar (what this part adds to the mean over steps) and (total, count) pairs
      over the pairs: `margin` r_w - r_l and `accuracy`, [margin > 0].

    Raises:
      ValueError: shapes differ, or a mask comes without `num_steps`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import pairwise_ranking_loss
      >>> good, bad = jnp.array([0.6, 0.2]), jnp.array([-0.3, 0.1])
      >>> loss, metrics = pairwise_ranking_loss(good, bad)
      >>> round(float(loss), 4), [float(x) for x in metrics["accuracy"]]
      (0.4834, [4.0, 4.0])
    """
    good = _checks.floating("chosen_scores", chosen_scores)
    bad = _checks.floating("rejected_scores", rejected_scores)
    mask = _step_pairs(
        _step_mask("chosen", good, chosen_mask),
        _step_mask("rejected", bad, rejected_mask),
    )
    if good.ndim == 1:
        good, bad = good[None], bad[None]
    masks = chosen_mask if chosen_mask is not None else rejected_mask
    total = denominator(
        "num_steps", num_steps, "a mask", masks, mask.shape[0] if mask.size else 0
    )
    margin = zero_masked(good[:, :, None] - bad[:, None, :], mask)
    pairs = jnp.sum(mask, axis=(1, 2), dtype=jnp.float32)
    sums = jnp.sum(zero_masked(-jax.nn.log_sigmoid(margin), mask), axis=(1, 2))
    return jnp.sum(sums / jnp.maximum(pairs, 1.0)) / total, {
        "margin": metric_total(margin, mask),
        "accuracy": metric_total(margin > 0, mask),
    }


def count_steps(chosen_mask: ArrayLike, rejected_mask: ArrayLike) -> jax.Array:
    """The steps of a whole mini-batch that have a pair: `num_steps`.

    #{s : some w and some l are in the masks}. Counted once, before the mini-batch is
    # split.

    Args:
      chosen_mask: [S, W] bool or 0/1, of the whole mini-batch; or [W].
      rejected_mask: [S, L]; or [L].

    Returns:
      An int32 scalar.

    Raises:
      ValueError: the masks differ in their number of steps.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import count_steps
      >>> int(count_steps(jnp.array([[1, 0], [1, 1]]), jnp.array([[0], [1]])))
      1
    """
    mask = _step_pairs(_checks.as_bool(chosen_mask), _checks.as_bool(rejected_mask))
    return jnp.sum(jnp.any(mask, axis=(1, 2)), dtype=jnp.int32)


def _step_mask(name: str, scores: jax.Array, mask: ArrayLike | None) -> jax.Array:
    mask = _checks.as_bool(mask, scores)
    _checks.same_shape(scores.ndim, **{f"{name}_scores": scores, f"{name}_mask": mask})
    return mask


def _step_pairs(good: jax.Array, bad: jax.Array) -> jax.Array:
    """Two masks -> [S, W, L] bool, True on pairs that exist."""
    if good.ndim not in (1, 2) or good.shape[:-1] != bad.shape[:-1]:
        raise ValueError(
            "chosen and rejected must have shapes [S, W] and [S, L], or [W] and [L], "
            f"got {list(good.shape)} and {list(bad.shape)}"
        )
    if good.ndim == 1:
        good, bad = good[None], bad[None]
    return good[:, :, None] & bad[:, None, :]
