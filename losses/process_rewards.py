"""Rewards of steps and tokens: PRIME's implicit process rewards, rStar-Math's ranking.

A process reward says how good a part of a response is. The implicit one is read off two
language models, of which one is trained on outcomes alone; the ranked one comes from a
model with a scalar head, trained on pairs of steps.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks, _pairs
from jaxrl_reason.losses._groups import Groups, read_groups
from jaxrl_reason.losses._numerics import keep, live_total, spread
from jaxrl_reason.losses.advantages import rloo_advantages
from jaxrl_reason.losses.reductions import Counts, sequence_sum_mean
from jaxrl_reason.losses.returns import discounted_returns
from jaxrl_reason.losses.surrogates import Metrics


def implicit_process_rewards(
    logprobs: ArrayLike,
    ref_logprobs: ArrayLike,
    mask: ArrayLike,
    *,
    beta: float | jax.Array = 0.05,
) -> jax.Array:
    """The reward of each token that a model trained on outcomes implies.

    r_t = beta (log phi(y_t) - log ref(y_t)). Implicit process rewards, arXiv
    2412.01981; PRIME, arXiv 2502.01456, beta 0.05. phi is a language model that begins
    as the policy and is trained by `implicit_prm_loss`.

    Args:
      logprobs: [B, T] of phi; differentiable, for its own loss.
      ref_logprobs: [B, T] of the frozen reference; a constant.
      mask: [B, T] bool or 0/1, True on the response's tokens.
      beta: > 0.

    Returns:
      [B, T] float32, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `beta` <= 0.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.process_rewards import implicit_process_rewards
      >>> phi, ref = jnp.array([[-0.5, -1.0]]), jnp.array([[-0.7, -0.9]])
      >>> print(implicit_process_rewards(phi, ref, jnp.ones((1, 2))).round(4))
      [[ 0.01  -0.005]]
    """
    _checks.positive("beta", beta)
    logprobs = _checks.floating("logprobs", logprobs)
    ref = jax.lax.stop_gradient(_checks.floating("ref_logprobs", ref_logprobs))
    live = _checks.flags(mask)
    _checks.same_shape(2, logprobs=logprobs, ref_logprobs=ref, mask=live)
    return beta * keep(logprobs - ref, live)


def implicit_prm_loss(
    logprobs: ArrayLike,
    ref_logprobs: ArrayLike,
    mask: ArrayLike,
    labels: ArrayLike,
    counts: Counts,
    *,
    beta: float | jax.Array = 0.05,
) -> tuple[jax.Array, Metrics]:
    """What trains the implicit process reward: its sum must predict the outcome.

    L = mean_i[-y_i log sigmoid(s_i) - (1 - y_i) log sigmoid(-s_i)], s_i = sum_t m_it
    r_it. PRIME, arXiv 2502.01456. Rows whose outcome is not known (the
    grader failed, the response was cut) are left out by masking them whole.

    Args:
      logprobs: [B, T] of phi, the model being trained.
      ref_logprobs: [B, T] of the frozen reference; a constant.
      mask: [B, T] bool or 0/1.
      labels: [B] outcomes, 1 right and 0 wrong, or between; constants.
      counts: `batch_counts(mask)` of the whole mini-batch.
      beta: > 0.

    Returns:
      The scalar (this part's share of the mean over live sequences) and (total, count)
      pairs over the live rows: `score` s and `accuracy`, [(s > 0) = (y > 1/2)].

    Raises:
      ValueError: shapes differ, `beta` <= 0, or `counts` is not a Counts.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import batch_counts
      >>> from jaxrl_reason.losses.process_rewards import implicit_prm_loss
      >>> phi, ref = jnp.array([[-0.5, -1.0]]), jnp.array([[-0.7, -0.9]])
      >>> mask, labels = jnp.ones((1, 2)), jnp.array([1])
      >>> loss, _ = implicit_prm_loss(phi, ref, mask, labels, batch_counts(mask))
      >>> round(float(loss), 4)
      0.6907
    """
    live = _checks.flags(mask)
    rewards = implicit_process_rewards(logprobs, ref_logprobs, live, beta=beta)
    labels, rows = _checks.constant("labels", labels), jnp.any(live, axis=1)
    _checks.same_shape(1, labels=labels, mask_rows=rows)
    scores, labels = jnp.sum(rewards, axis=1), keep(labels, rows)
    right = labels * jax.nn.log_sigmoid(scores)
    wrong = (1.0 - labels) * jax.nn.log_sigmoid(-scores)
    loss = sequence_sum_mean((-right - wrong)[:, None], rows[:, None], counts)
    return loss, {
        "score": live_total(scores, rows),
        "accuracy": live_total((scores > 0) == (labels > 0.5), rows),
    }


def prime_advantages(
    process_rewards: ArrayLike,
    outcomes: ArrayLike,
    mask: ArrayLike,
    group_ids: ArrayLike,
    *,
    num_groups: int,
    gamma: float | jax.Array = 1.0,
    process_coef: float | jax.Array = 1.0,
    outcome_coef: float | jax.Array = 1.0,
    valid: ArrayLike | None = None,
) -> jax.Array:
    """PRIME: returns of token rewards and the outcome, both less the others' mean.

    A_t = c_p sum_{s >= t} gamma^(s-t) (r_s - mean_{j != i} rbar_j) + c_o (o_i -
    mean_{j != i} o_j), rbar_j the mean token reward of response j, over the other
    responses to the prompt. PRIME, arXiv 2502.01456. verl's recipe has K / (K - 1)
    (r_s - rbar_g) in the first bracket, rbar_g the mean of the K means: (r_s - rbar_i)
    / (K - 1) more a token. Its coefficients are 5 and 5, and it whitens at the end.

    Args:
      process_rewards: [B, T] token rewards, of `implicit_process_rewards`.
      outcomes: [B] rewards of the whole responses, 0 or 1.
      mask: [B, T] bool or 0/1.
      group_ids: [B] int in [0, num_groups); a row with any other id gets 0.
      num_groups: static.
      gamma: discount from one live token to the next, in [0, 1].
      process_coef: c_p, finite.
      outcome_coef: c_o, finite.
      valid: [B] bool or 0/1; the others are left out of the means and get 0. All rows
        that have tokens are valid if left out.

    Returns:
      [B, T] float32 constants, zero outside the mask and in groups of one, which have
      no baseline.

    Raises:
      ValueError: shapes differ, or a setting is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.process_rewards import prime_advantages
      >>> rewards, ids = jnp.array([[0.5, 0.0], [0.25, 0.25]]), jnp.array([0, 0])
      >>> ones, outcomes = jnp.ones((2, 2)), jnp.array([1, 0])
      >>> print(prime_advantages(rewards, outcomes, ones, ids, num_groups=1))
      [[ 1.    0.75]
       [-1.   -1.  ]]
    """
    _checks.finite("process_coef", process_coef)
    _checks.finite("outcome_coef", outcome_coef)
    rewards = _checks.constant("process_rewards", process_rewards)
    live = _checks.flags(mask)
    _checks.same_shape(2, process_rewards=rewards, mask=live)
    rows = jnp.any(live, axis=1)
    given = _checks.flags_or_all(valid, rows)
    _checks.same_shape(1, valid=given, mask_rows=rows)
    groups = read_groups(group_ids, num_groups, rows & given)
    outcome = rloo_advantages(
        outcomes, group_ids, num_groups=num_groups, valid=groups.member
    )
    rewards = keep(rewards, live)
    lengths = jnp.sum(live, axis=1, dtype=jnp.float32)
    means = jnp.sum(rewards, axis=1) / jnp.maximum(lengths, 1.0)
    baseline, member = _mean_of_others(means, groups)
    inside = live & member[:, None]
    centred = rewards - spread("baseline", baseline, inside)
    process = discounted_returns(centred, inside, gamma=gamma)
    advantages = process_coef * process + spread(
        "outcomes", outcome_coef * outcome, live
    )
    return jax.lax.stop_gradient(keep(advantages, inside))


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
    fewer candidates the factor is that of those which exist; a step that lacks one side
    counts nowhere.

    Args:
      chosen_scores: [S, W] scores of the good candidates of S steps, tanh outputs in
        the paper; or [W] for one step.
      rejected_scores: [S, L] of the bad ones; or [L].
      chosen_mask: [S, W] (or [W]) bool or 0/1, False on empty places; needs
        `num_steps`.
      rejected_mask: [S, L] (or [L]), likewise.
      num_steps: steps with a pair in the whole mini-batch, `count_steps` of it. Left
        out, these steps are the whole mini-batch.

    Returns:
      The scalar (this part's share of the mean over steps) and (total, count) pairs
      over the pairs: `margin` r_w - r_l and `accuracy`, [margin > 0].

    Raises:
      ValueError: shapes differ, or a mask comes without `num_steps`.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.process_rewards import pairwise_ranking_loss
      >>> good, bad = jnp.array([0.6, 0.2]), jnp.array([-0.3, 0.1])
      >>> loss, metrics = pairwise_ranking_loss(good, bad)
      >>> round(float(loss), 4), [float(x) for x in metrics["accuracy"]]
      (0.4834, [4.0, 4.0])
    """
    good = _checks.floating("chosen_scores", chosen_scores)
    bad = _checks.floating("rejected_scores", rejected_scores)
    live = _step_pairs(
        _step_mask("chosen", good, chosen_mask),
        _step_mask("rejected", bad, rejected_mask),
    )
    if good.ndim == 1:
        good, bad = good[None], bad[None]
    masks = chosen_mask if chosen_mask is not None else rejected_mask
    total = _pairs.denominator(
        "num_steps", num_steps, "a mask", masks, live.shape[0] if live.size else 0
    )
    margin = keep(good[:, :, None] - bad[:, None, :], live)
    pairs = jnp.sum(live, axis=(1, 2), dtype=jnp.float32)
    sums = jnp.sum(keep(-jax.nn.log_sigmoid(margin), live), axis=(1, 2))
    return jnp.sum(sums / jnp.maximum(pairs, 1.0)) / total, {
        "margin": live_total(margin, live),
        "accuracy": live_total(margin > 0, live),
    }


def count_steps(chosen_mask: ArrayLike, rejected_mask: ArrayLike) -> jax.Array:
    """The steps of a whole mini-batch that have a pair: `num_steps`.

    #{s : some w and some l are live}. Counted once, before the mini-batch is split.

    Args:
      chosen_mask: [S, W] bool or 0/1, of the whole mini-batch; or [W].
      rejected_mask: [S, L]; or [L].

    Returns:
      An int32 scalar.

    Raises:
      ValueError: the masks do not have one number of steps.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses.process_rewards import count_steps
      >>> int(count_steps(jnp.array([[1, 0], [1, 1]]), jnp.array([[0], [1]])))
      1
    """
    live = _step_pairs(_checks.flags(chosen_mask), _checks.flags(rejected_mask))
    return jnp.sum(jnp.any(live, axis=(1, 2)), dtype=jnp.int32)


def _step_mask(name: str, scores: jax.Array, mask: ArrayLike | None) -> jax.Array:
    live = _checks.flags_or_all(mask, scores)
    _checks.same_shape(scores.ndim, **{f"{name}_scores": scores, f"{name}_mask": live})
    return live


def _step_pairs(good: jax.Array, bad: jax.Array) -> jax.Array:
    """Two masks -> [S, W, L] bool, which pairs there are."""
    if good.ndim not in (1, 2) or good.shape[:-1] != bad.shape[:-1]:
        raise ValueError(
            "chosen and rejected must have shapes [S, W] and [S, L], or [W] and [L], "
            f"got {list(good.shape)} and {list(bad.shape)}"
        )
    if good.ndim == 1:
        good, bad = good[None], bad[None]
    return good[:, :, None] & bad[:, None, :]


def _mean_of_others(x: jax.Array, groups: Groups) -> tuple[jax.Array, jax.Array]:
    """Mean over the other members of one's group, and who has others: [B], [B]."""
    others = groups.sizes()[groups.ids] - 1
    total = groups.total(x)[groups.ids] - x
    return total / jnp.maximum(others, 1.0), groups.member & (others > 0)
