"""The prover-verifier game: rewards of the prover's two roles, loss of the verifier.

A prover writes solutions, asked to be helpful (right and convincing) or sneaky (wrong
and convincing); a smaller verifier scores them. Prover and verifier are trained in
turns, until sneaky solutions no longer convince.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import Metrics, zero_masked
from jaxrl_reason.losses.preference import _pairs


def prover_rewards(
    scores: ArrayLike,
    correct: ArrayLike,
    helpful: ArrayLike,
    *,
    kind: str = "src",
    penalty: float | jax.Array = -2.0,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """The prover's reward for a solution, by its role.

    "src": V' = V - mean(V) over the batch; (2c - 1)(2h - 1) V' where V' > 0, else -1.
    "cgc": V where the solution fits the role (c = h), else `penalty`. c says whether
    the solution is correct, h whether the role is the helpful one. Prover-verifier
    games, arXiv 2407.13692. The constant of "cgc" is from a secondary source; the paper
    itself was not read.

    Args:
      scores: [B] the verifier's scores V; constants. The whole batch at once, for its
        mean.
      correct: [B] bool or 0/1.
      helpful: [B] bool or 0/1, or one for all; False is the sneaky role.
      kind: "src" or "cgc".
      penalty: of "cgc", finite; should lie below the scores.
      valid: [B] bool or 0/1; the others are left out of the mean and get 0.

    Returns:
      [B] float32 constants. A nan among the scores is not hidden.

    Raises:
      ValueError: shapes differ, or the kind is unknown.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import prover_rewards
      >>> scores, correct = jnp.array([2.0, 1.0, 0.5, -0.5]), jnp.array([1, 0, 1, 0])
      >>> print(prover_rewards(scores, correct, True))
      [ 1.25 -0.25 -1.   -1.  ]
      >>> print(prover_rewards(scores, correct, False, kind="cgc"))
      [-2.   1.  -2.  -0.5]
    """
    _checks.one_of("kind", kind, ("src", "cgc"))
    _checks.number("penalty", penalty)
    scores, right = _checks.constant("scores", scores), _checks.as_bool(correct)
    role = _checks.as_bool(helpful)
    if role.ndim == 0:
        role = jnp.broadcast_to(role, right.shape)
    valid = _checks.as_bool(valid, right)
    _checks.same_shape(1, scores=scores, correct=right, helpful=role, valid=valid)
    fits, scores = right == role, zero_masked(scores, valid)
    if kind == "cgc":
        return zero_masked(jnp.where(fits, scores, penalty), valid)
    mean = jnp.sum(scores) / jnp.maximum(jnp.sum(valid, dtype=jnp.float32), 1.0)
    centred = scores - mean
    earned = jnp.where(fits, centred, -centred)
    # With this comparison a nan stays a nan; nan > 0 would turn it into -1.
    return zero_masked(jnp.where(centred <= 0, -1.0, earned), valid)


def verifier_loss(
    correct_scores: ArrayLike,
    wrong_scores: ArrayLike,
    *,
    lam: float | jax.Array = 0.01,
    valid: ArrayLike | None = None,
    num_pairs: ArrayLike | None = None,
) -> tuple[jax.Array, Metrics]:
    """Ranks correct solutions above wrong ones and keeps the scores near 0.

    L = mean[-log sigmoid(V_c - V_w) + lam (V_c^2 + V_w^2) / 2] over pairs of a correct
    and a wrong solution to one problem. arXiv 2407.13692; its lam was not found, 0.01
    is our choice. The verifier is trained again from its base each round, on solutions
    of the base prover and of the provers of all earlier rounds, both roles in equal
    numbers.

    Args:
      correct_scores: [B] scores V_c of correct solutions.
      wrong_scores: [B] scores V_w of wrong ones.
      lam: weight of the squares, >= 0.
      valid: [B] bool or 0/1, False on rows that are not pairs; needs `num_pairs`.
      num_pairs: pairs of the whole mini-batch, `count_pairs` of it. Left out, these
        rows are the whole mini-batch.

    Returns:
      The scalar (what this part adds to the mean) and (total, count) pairs over valid
      rows: `chosen_reward` V_c, `rejected_reward` V_w, `margin` and `accuracy`.

    Raises:
      ValueError: shapes differ, `lam` < 0, or `valid` comes without `num_pairs`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import verifier_loss
      >>> loss, _ = verifier_loss(jnp.array([2.0]), jnp.array([1.0]))
      >>> round(float(loss), 4)
      0.3383
    """
    _checks.number("lam", lam, at_least=0)
    pairs = _pairs.read_pairs(
        correct_scores,
        wrong_scores,
        valid,
        num_pairs,
        names=("correct_scores", "wrong_scores"),
    )
    good, bad = pairs.chosen, pairs.rejected
    squares = 0.5 * lam * (jnp.square(good) + jnp.square(bad))
    return _pairs.mean(squares - jax.nn.log_sigmoid(good - bad), pairs, (good, bad))
