"""Advantages for the turns of a conversation: a whole turn is one action.

Turns are runs of the policy's own tokens, separated by those of a tool or a user, which
are masked; or they are given by ids.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import whole, zero_masked
from jaxrl_reason.losses.returns import value_at_end


def turn_starts(mask: ArrayLike, turn_ids: ArrayLike | None = None) -> jax.Array:
    """The first token of each turn.

    Without ids a turn is a run of unmasked tokens. With ids it ends where the id of the
    next unmasked token differs, so that turns may be adjacent and may contain masked
    tokens.

    Args:
      mask: [B, T] bool or 0/1, True on tokens that the policy produced.
      turn_ids: [B, T] int; what they hold where the mask is 0 does not matter.

    Returns:
      [B, T] bool, False outside the mask.

    Raises:
      ValueError: shapes differ, or `turn_ids` are not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import turn_starts
      >>> print(turn_starts(jnp.array([[1, 1, 0, 1, 1]])))
      [[ True False False  True False]]
      >>> print(turn_starts(jnp.array([[1, 1, 0, 1, 1]]), jnp.array([[0, 0, 9, 0, 1]])))
      [[ True False False False  True]]
    """
    mask = _checks.as_bool(mask)
    _checks.same_shape(2, mask=mask)
    mask = whole(mask, 1)
    if turn_ids is None:
        return mask & ~jnp.pad(mask, ((0, 0), (1, 0)))[:, :-1]
    ids = _checks.integers("turn_ids", turn_ids)
    _checks.same_shape(2, turn_ids=ids, mask=mask)
    ids = whole(ids, 1)

    def step(
        before: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        seen, last = before
        on, turn = now
        starts = on & (~seen | (turn != last))
        return (seen | on, jnp.where(on, turn, last)), starts

    begin = (jnp.any(mask[:, :0], axis=1), jnp.sum(ids[:, :0], axis=1))
    return jax.lax.scan(step, begin, (mask.T, ids.T))[1].T


def turn_gae(
    rewards: ArrayLike,
    values: ArrayLike,
    mask: ArrayLike,
    *,
    turn_ids: ArrayLike | None = None,
    gamma: float | jax.Array = 1.0,
    lam: float | jax.Array = 1.0,
    bootstrap: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Generalised advantage estimates over turns instead of tokens.

    delta_k = r_k + gamma v_{k+1} - v_k, A_k = delta_k + gamma lam A_{k+1}, target_k =
    A_k + v_k: r_k is the sum of the token rewards of turn k, v_k the value before its
    first token, v = bootstrap and A = 0 after the last turn. Every token of a turn gets
    A_k. arXiv 1506.02438, equations 11 to 16, for the process whose actions are whole
    turns (Turn-PPO, arXiv 2512.17008, read in a summary): gamma and lam count turns, so
    that they may be below 1. With turns of one token it is `gae`.

    Args:
      rewards: [B, T] token rewards; those outside the mask are ignored.
      values: [B, T]; v_t is the value of the state before token t.
      mask: [B, T] bool or 0/1; tokens outside it are skipped.
      turn_ids: [B, T] int; left out, a turn is a run of unmasked tokens. See
        `turn_starts`.
      gamma: discount per turn, in [0, 1].
      lam: in [0, 1].
      bootstrap: [B] the critic's value of the state after the last turn of a
        truncated conversation, 0 for one that ended; 0 for all if left out.

    Returns:
      Advantages [B, T], zero outside the mask; value targets [B, T], zero but on the
      first token of each turn; and these tokens, [B, T] bool: the mask of the critic's
      loss. Constants; advantages are not whitened.

    Raises:
      ValueError: shapes differ, or `gamma` or `lam` lies outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import turn_gae
      >>> mask = jnp.array([[1, 1, 0, 1, 1]])  # two turns, a tool's answer between them
      >>> rewards = jnp.array([[0.0, 0.5, 0.0, 0.0, 1.0]])
      >>> values = jnp.array([[0.5, 9.0, 9.0, 0.75, 9.0]])
      >>> advantages, targets, first = turn_gae(rewards, values, mask, lam=0.5)
      >>> print(advantages)
      [[0.875 0.875 0.    0.25  0.25 ]]
      >>> print(targets)
      [[1.375 0.    0.    1.    0.   ]]
    """
    rewards = _checks.constant("rewards", rewards)
    values, mask = _checks.constant("values", values), _checks.as_bool(mask)
    _checks.same_shape(2, rewards=rewards, values=values, mask=mask)
    _checks.number("gamma", gamma, at_least=0, at_most=1)
    _checks.number("lam", lam, at_least=0, at_most=1)
    starts = turn_starts(mask, turn_ids)
    rewards, values, mask = whole(rewards, 1), whole(values, 1), whole(mask, 1)
    rewards, values = zero_masked(rewards, mask), zero_masked(values, mask)
    after, none = value_at_end(bootstrap, rewards), value_at_end(None, rewards)

    def back(
        later: tuple[jax.Array, jax.Array, jax.Array],
        now: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[tuple[jax.Array, jax.Array, jax.Array], jax.Array]:
        next_value, next_advantage, earned = later
        reward, value, first = now
        earned = earned + reward
        delta = earned + gamma * next_value - value
        advantage = jnp.where(
            first, delta + gamma * lam * next_advantage, next_advantage
        )
        later = (
            jnp.where(first, value, next_value),
            advantage,
            jnp.where(first, 0.0, earned),
        )
        return later, advantage

    _, at_first = jax.lax.scan(
        back, (after, none, none), (rewards.T, values.T, starts.T), reverse=True
    )

    def forward(
        before: jax.Array, now: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        advantage, first = now
        advantage = jnp.where(first, advantage, before)
        return advantage, advantage

    _, per_token = jax.lax.scan(forward, none, (at_first, starts.T))
    advantages = jax.lax.stop_gradient(zero_masked(per_token.T, mask))
    targets = zero_masked(advantages + values, starts)
    return advantages, targets, starts
