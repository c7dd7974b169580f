"""Returns and advantages over time: discounted sums and GAE.

Tokens outside the mask (padding, a tool's output) are skipped: their values and rewards
are not used and they are not discounted, so inserting them changes nothing else.
"""

import struct
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxrl_reason.losses import _checks
from jaxrl_reason.losses._math import whole, zero_masked


def rewards_at_end(rewards: ArrayLike, mask: ArrayLike) -> jax.Array:
    """Puts one reward per sequence on its last unmasked token.

    r_it = R_i where t is the last token with m_it = 1, else 0. A fully masked row gets
    nothing.

    Args:
      rewards: [B] outcome rewards.
      mask: [B, T] bool or 0/1.

    Returns:
      [B, T] float32, constants.

    Raises:
      ValueError: shapes differ.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import rewards_at_end
      >>> mask = jnp.array([[1, 1, 0], [1, 0, 1]])
      >>> print(rewards_at_end(jnp.array([2.0, 3.0]), mask))
      [[0. 2. 0.]
       [0. 0. 3.]]
    """
    rewards, mask = _checks.constant("rewards", rewards), _checks.as_bool(mask)
    _checks.same_shape(2, mask=mask)
    rewards = _checks.per_row("rewards", rewards, mask)
    mask = whole(mask, 1)
    seen = jnp.cumsum(mask, axis=1, dtype=jnp.int32)
    last = mask & (seen == seen[:, -1:])
    return jnp.where(last, rewards, 0.0)


def discounted_returns(
    rewards: ArrayLike,
    mask: ArrayLike,
    *,
    gamma: float | jax.Array = 1.0,
    bootstrap: ArrayLike | None = None,
) -> jax.Array:
    """Discounted sum of the rewards from each token on.

    G_t = r_t + gamma G_{t'}, with t' the next token inside the mask, and G = bootstrap
    after the last. REINFORCE's reward-to-go (Williams 1992); masked tokens neither end
    the sum nor discount it.

    Args:
      rewards: [B, T] token rewards; those outside the mask are ignored.
      mask: [B, T] bool or 0/1.
      gamma: discount per unmasked token, in [0, 1].
      bootstrap: [B] the expected return after the last token of a truncated response, 0
        for one that ended; 0 for all if left out.

    Returns:
      [B, T] float32, constants, zero outside the mask.

    Raises:
      ValueError: shapes differ, or `gamma` lies outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import discounted_returns
      >>> rewards = jnp.array([[0.0, 9.0, 0.0, 1.0]])
      >>> mask = jnp.array([[1, 0, 1, 1]])
      >>> print(discounted_returns(rewards, mask, gamma=0.5))
      [[0.25 0.   0.5  1.  ]]
    """
    rewards, mask = _checks.constant("rewards", rewards), _checks.as_bool(mask)
    _checks.same_shape(2, rewards=rewards, mask=mask)
    _checks.number("gamma", gamma, at_least=0, at_most=1)
    rewards, mask = whole(rewards, 1), whole(mask, 1)
    last = value_at_end(bootstrap, rewards)
    return zero_masked(_sum_later(rewards, last, (gamma,), mask), mask)


def gae(
    rewards: ArrayLike,
    values: ArrayLike,
    mask: ArrayLike,
    *,
    gamma: float | jax.Array = 1.0,
    lam: float | jax.Array = 1.0,
    bootstrap: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Generalised advantage estimates and their value targets.

    delta_t = r_t + gamma v_{t'} - v_t, A_t = delta_t + gamma lam A_{t'}, target_t =
    A_t + v_t, with t' the next token inside the mask; after the last v = bootstrap and
    A = 0. arXiv 1506.02438, equations 11 to 16. Without a `bootstrap` a truncated
    response ends like any other.

    Args:
      rewards: [B, T] token rewards.
      values: [B, T]; v_t is the value of the state before token t.
      mask: [B, T] bool or 0/1; tokens outside it are skipped.
      gamma: discount per unmasked token, in [0, 1].
      lam: in [0, 1], a scalar or [B], one per sequence.
      bootstrap: [B] the critic's value of the state after the last token of a truncated
        response, 0 for one that ended; 0 for all if left out.

    Returns:
      Advantages [B, T] and value targets [B, T], float32 constants, zero outside the
      mask. They are not whitened.

    Raises:
      ValueError: shapes differ, or `gamma` or a scalar `lam` lies outside [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrl_reason.losses import gae
      >>> rewards = jnp.array([[0.0, 0.0, 1.0, 0.0]])
      >>> values = jnp.array([[0.5, 0.5, 0.75, 9.0]])
      >>> mask = jnp.array([[1, 1, 1, 0]])
      >>> advantages, targets = gae(rewards, values, mask, lam=0.5)
      >>> print(advantages)
      [[0.1875 0.375  0.25   0.    ]]
      >>> print(targets)
      [[0.6875 0.875  1.     0.    ]]
    """
    rewards = _checks.constant("rewards", rewards)
    values, mask = _checks.constant("values", values), _checks.as_bool(mask)
    _checks.same_shape(2, rewards=rewards, values=values, mask=mask)
    _checks.number("gamma", gamma, at_least=0, at_most=1)
    _check_lambda(lam, mask.shape[0])
    rewards, values, mask = whole(rewards, 1), whole(values, 1), whole(mask, 1)
    rewards, values = zero_masked(rewards, mask), zero_masked(values, mask)
    wide = jnp.promote_types(rewards.dtype, values.dtype)
    kept = 1.0 - _checks.constant("lam", lam).astype(wide)  # [] or [B]
    kept = _checks.constant("gamma", gamma).astype(wide) * kept
    kept = jnp.broadcast_to(kept, mask.shape[:1])
    # The targets and not the advantages are summed: the latter's terms are differences
    # of values whose roundings add up, where lambda is 1 over the whole response.
    last = value_at_end(bootstrap, rewards)
    terms = rewards + kept[:, None] * _next_values(values, last, mask)
    targets = zero_masked(_sum_later(terms, last, (gamma, lam), mask), mask)
    return targets - values, targets


def value_at_end(bootstrap: ArrayLike | None, rewards: jax.Array) -> jax.Array:
    """[B]: the value after each row's last token, 0 if left out.

    Made of the rewards, so that it lies where they lie; a sum over no tokens is 0.
    """
    zeros = jnp.sum(rewards[:, :0], axis=1)
    if bootstrap is None:
        return zeros
    value = _checks.constant("bootstrap", bootstrap)
    return zeros + _checks.per_row("bootstrap", value, rewards)[:, 0]


def _sum_later(
    x: jax.Array,
    last: jax.Array,
    decays: tuple[float | jax.Array, ...],
    mask: jax.Array,
) -> jax.Array:
    """S_t = x_t + d S_{t'}, t' the next token inside the mask: [B, T] -> [B, T].

    After the last one S is `last`, [B]. d is the product of `decays`, each a scalar or
    [B]. Neighbours are added first, then pairs of them: over 32,768 tokens a sum is 15
    additions deep, and the powers of d are not products of many factors, so that
    float32 keeps its digits.
    """
    powers = [_power_of(d, x) for d in decays]

    def join(
        later: tuple[jax.Array, jax.Array], now: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        (_, after), (steps, sums) = later, now
        for power in powers:
            after = power(steps) * after
        return later[0] + steps, sums + after

    terms = jnp.concatenate([zero_masked(x, mask), last[:, None]], axis=1)
    # [B, T + 1] how far a token is from the next one
    steps = jnp.concatenate(
        [mask.astype(x.dtype), jnp.ones_like(last)[:, None]], axis=1
    )
    _, sums = jax.lax.associative_scan(join, (steps, terms), reverse=True, axis=1)
    return jax.lax.stop_gradient(sums[:, :-1])


def _power_of(
    decay: float | jax.Array, like: jax.Array
) -> Callable[[jax.Array], jax.Array]:
    """n -> decay^n, with the digits that a Python number has beyond float32."""
    base, lost = jnp.asarray(decay, like.dtype), 0.0
    if isinstance(decay, float) and decay > 0 and like.dtype == jnp.float32:
        (rounded,) = struct.unpack("f", struct.pack("f", decay))
        lost = decay / rounded - 1.0
    if base.ndim == 1:
        base = base[:, None]
    return lambda n: jnp.power(base, n) * (1.0 + lost * n)


def _next_values(values: jax.Array, last: jax.Array, mask: jax.Array) -> jax.Array:
    """[B, T] -> [B, T] value at the next token inside the mask, `last` after them."""
    length = mask.shape[1]
    places = jnp.where(mask, jnp.arange(length)[None, :], length)
    nearest = jax.lax.cummin(places, axis=1, reverse=True)  # at or after t
    after = jnp.pad(nearest[:, 1:], [(0, 0), (0, 1)], constant_values=length)
    known = jnp.concatenate([values, last[:, None]], axis=1)  # [B, T + 1]
    return jnp.take_along_axis(known, after[:, :length], axis=1)


def _check_lambda(lam: float | jax.Array, batch: int) -> None:
    if jnp.ndim(lam) == 0:
        _checks.number("lam", lam, at_least=0, at_most=1)
    elif jnp.shape(lam) != (batch,):
        raise ValueError(
            f"lam must be a scalar or have shape [{batch}], got {list(jnp.shape(lam))}"
        )
