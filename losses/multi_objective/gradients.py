"""One gradient from several: PCGrad and MGDA, for lists of gradient pytrees.

Both need only the inner products of the gradients, a K x K matrix, and return a
weighted sum of them: K backward passes and no copy of a gradient.
"""

from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks

Gradients = Sequence[Any]


def pcgrad(
    gradients: Gradients,
    *,
    key: jax.Array | None = None,
    eps: float | jax.Array = 1e-8,
) -> Any:
    """Gradient surgery: each gradient loses its component against a conflicting one.

    h_i = g_i; for j != i in random order, where h_i . g_j < 0: h_i -= (h_i . g_j) /
    (|g_j|^2 + eps) g_j, with the original g_j; the result is sum_i h_i. PCGrad,
    arXiv 2001.06782, algorithm 1. `eps` is LibMTL's; it is not scaled, so that
    gradients with a norm below 1e-4 are only partly projected.

    Args:
      gradients: K pytrees of one structure, gradients of losses to minimise.
      key: order of the projections; consumed. Needed from three gradients on, where the
        order matters.
      eps: >= 0; with 0, no projection onto a gradient of zeros.

    Returns:
      A pytree like one gradient, of the same types; constants.

    Raises:
      ValueError: the list is empty, structures differ, or three gradients come without
        a key.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import pcgrad
      >>> gradients = [{"w": jnp.array([1.0, 0.0])}, {"w": jnp.array([-1.0, 1.0])}]
      >>> print(pcgrad(gradients)["w"])
      [0.5 1.5]
    """
    coefficients = pcgrad_coefficients(gradients, key=key, eps=eps)
    return combine_gradients(gradients, jnp.sum(coefficients, axis=0))


def pcgrad_coefficients(
    gradients: Gradients,
    *,
    key: jax.Array | None = None,
    eps: float | jax.Array = 1e-8,
) -> jax.Array:
    """Each of `pcgrad`'s projected gradients, as a combination of all gradients.

    h_i = sum_j c_ij g_j, before the sum over i; c is the identity if none conflict.

    Args:
      gradients: K pytrees of one structure.
      key: as `pcgrad`.
      eps: as `pcgrad`.

    Returns:
      c, [K, K] float32 constants. `combine_gradients(gradients, c[i])` is h_i.

    Raises:
      ValueError: as `pcgrad`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import pcgrad_coefficients
      >>> pcgrad_coefficients([jnp.array([1.0, 0.0]), jnp.array([-1.0, 1.0])]).tolist()
      [[1.0, 0.5], [1.0, 1.0]]
    """
    _checks.number("eps", eps, at_least=0)
    products = _products(gradients)
    size = products.shape[0]
    if size > 2 and key is None:
        raise ValueError(
            f"key must be given for three gradients or more, got None for {size}"
        )
    norms = jnp.diagonal(products) + eps

    def project(row: jax.Array, j: jax.Array, i: int) -> jax.Array:
        along = jnp.sum(row * products[j])
        conflict = (j != i) & (along < 0) & (norms[j] > 0)
        step = jnp.where(conflict, along / jnp.where(norms[j] > 0, norms[j], 1.0), 0.0)
        return row.at[j].add(-step)

    rows = []
    for i in range(size):
        order = jnp.arange(size)
        if key is not None:
            order = jax.random.permutation(jax.random.fold_in(key, i), order)
        row = jnp.eye(size, dtype=products.dtype)[i]
        for place in range(size):
            row = project(row, order[place], i)
        rows.append(row)
    return jax.lax.stop_gradient(jnp.stack(rows))


def mgda_weights(gradients: Gradients, *, iterations: int = 250) -> jax.Array:
    """MGDA: the minimum-norm vector in the convex hull of the gradients.

    min_w |sum_k w_k g_k|^2, w_k >= 0, sum_k w_k = 1. Its direction d lowers every loss
    (d . g_k >= |d|^2), and d = 0 at a Pareto-stationary point. arXiv 1810.04650. Two
    gradients: w_1 = clip((g_2 - g_1) . g_2 / |g_1 - g_2|^2, 0, 1). More: each iteration
    moves weight between the pair of gradients that gains most, by an exact line search.
    LibMTL uses 0.999 and 0.001 in place of 1 and 0. With gradients of very different
    norms nearly all weight goes to the shortest; divide them by their norms first to
    avoid that.

    Args:
      gradients: K pytrees of one structure.
      iterations: static, >= 1; used from three gradients on.

    Returns:
      [K] float32 constants on the simplex. Equal gradients get equal weights.

    Raises:
      ValueError: the list is empty, structures differ, or `iterations` < 1.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import mgda_weights
      >>> two = [jnp.array([1.0, 0.0]), jnp.array([-1.0, 1.0])]
      >>> [round(x, 4) for x in mgda_weights(two).tolist()]
      [0.6, 0.4]
      >>> three = list(jnp.diag(jnp.array([1.0, 2.0, 2.0])))
      >>> [round(x, 4) for x in mgda_weights(three).tolist()]
      [0.6667, 0.1667, 0.1667]
    """
    iterations = _checks.static_size("iterations", iterations)
    trees = _checked(gradients)
    if len(trees) == 1:
        return jnp.ones(1)
    if len(trees) == 2:
        first, second = trees
        apart = jax.tree.map(lambda a, b: _wide(b) - _wide(a), first, second)
        square = _dot(apart, apart)
        weight = _dot(apart, second) / jnp.where(square > 0, square, 1.0)
        weight = jnp.where(square == 0, 0.5, jnp.clip(weight, 0.0, 1.0))
        return jax.lax.stop_gradient(jnp.stack([weight, 1.0 - weight]))
    return jax.lax.stop_gradient(_shortest(_products(trees), iterations))


def combine_gradients(gradients: Gradients, weights: ArrayLike) -> Any:
    """The weighted sum of K gradients.

    d = sum_k w_k g_k, computed in float32. With `mgda_weights` it is MGDA's direction.

    Args:
      gradients: K pytrees of one structure.
      weights: [K].

    Returns:
      A pytree like one gradient, of the same types; constants.

    Raises:
      ValueError: the list is empty, structures differ, or there are not K weights.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import combine_gradients
      >>> gradients = [jnp.array([1.0, 0.0]), jnp.array([-1.0, 2.0])]
      >>> print(combine_gradients(gradients, jnp.array([0.75, 0.25])))
      [0.5 0.5]
    """
    trees, weights = _checked(gradients), _checks.constant("weights", weights)
    if weights.shape != (len(trees),):
        raise ValueError(
            f"weights must have shape [{len(trees)}], one per gradient, "
            f"got {list(weights.shape)}"
        )

    def leaf(*leaves: jax.Array) -> jax.Array:
        total = sum(w * _wide(x) for w, x in zip(weights, leaves, strict=True))
        return jax.lax.stop_gradient(
            jnp.asarray(total).astype(jnp.asarray(leaves[0]).dtype)
        )

    return jax.tree.map(leaf, *trees)


def _checked(gradients: Gradients) -> list[Any]:
    if not isinstance(gradients, (list, tuple)):
        raise ValueError(
            f"gradients must be a list of pytrees, got {type(gradients).__name__}"
        )
    if len(gradients) == 0:
        raise ValueError("gradients must hold at least one gradient, got an empty list")
    if not jax.tree.leaves(gradients[0]):
        raise ValueError("gradients must hold arrays, got a pytree without any")
    for leaf in jax.tree.leaves(list(gradients)):
        _checks.floating("gradients", leaf)
    try:
        for other in gradients[1:]:
            chex.assert_trees_all_equal_structs(gradients[0], other)
            chex.assert_trees_all_equal_shapes(gradients[0], other)
    except AssertionError as error:
        structures = ", ".join(str(jax.tree.map(jnp.shape, g)) for g in gradients)
        raise ValueError(
            f"gradients must have the same structure and shapes, got {structures}"
        ) from error
    return list(gradients)


def _wide(x: ArrayLike) -> jax.Array:
    x = jnp.asarray(x)
    return jax.lax.stop_gradient(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


def _dot(one: Any, other: Any) -> jax.Array:
    terms = jax.tree.map(lambda a, b: jnp.sum(_wide(a) * _wide(b)), one, other)
    return jnp.sum(jnp.stack(jax.tree.leaves(terms)))


def _products(gradients: Gradients) -> jax.Array:
    """[K, K] inner products."""
    trees = _checked(gradients)
    size = len(trees)
    upper = {
        (i, j): _dot(trees[i], trees[j]) for i in range(size) for j in range(i, size)
    }
    rows = [[upper[min(i, j), max(i, j)] for j in range(size)] for i in range(size)]
    return jnp.stack([jnp.stack(row) for row in rows])


def _shortest(products: jax.Array, iterations: int) -> jax.Array:
    """argmin of w' G w on the simplex, by the best transfer between two weights."""
    size = products.shape[0]
    largest = jnp.max(jnp.diagonal(products))
    scaled = products / jnp.where(largest == 0, 1.0, largest)
    norms = jnp.diagonal(scaled)
    # Curvature along "from i to j", the squared distance of the two gradients.
    curve = jnp.maximum(norms[:, None] + norms[None, :] - 2.0 * scaled, 0.0)

    def exchange(_: int, weights: jax.Array) -> jax.Array:
        slope = jnp.sum(scaled * weights[None, :], axis=1)
        fall = slope[:, None] - slope[None, :]  # the decrease by a move from i to j
        best = jnp.where(curve > 0, fall / jnp.where(curve > 0, curve, 1.0), 0.0)
        step = jnp.clip(best, 0.0, weights[:, None])
        gain = step * fall - 0.5 * step**2 * curve
        i, j = jnp.unravel_index(jnp.argmax(gain), gain.shape)
        move = jnp.where(gain[i, j] > 0, step[i, j], 0.0)
        moved = weights.at[i].add(-move).at[j].add(move)
        return jnp.where(jnp.isnan(slope).any(), slope, moved)  # not hidden

    return jax.lax.fori_loop(0, iterations, exchange, jnp.full(size, 1.0 / size))
