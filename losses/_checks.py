"""Checks made while tracing: shapes, types and settings, never the arrays' values.

Every failure is a ValueError that states the rule and then what was given. Settings
that are traced (such as a clip bound under a schedule) have no value yet and pass.
"""

import math
import operator
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def floating(name: str, x: ArrayLike) -> jax.Array:
    """`x` as float32; anything but a floating array is refused."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be a floating array, got {x.dtype}")
    return x.astype(jnp.float32)


def constant(name: str, x: ArrayLike) -> jax.Array:
    """`x` as float32 under stop_gradient; integers and booleans are welcome."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got {x.dtype}")
    return jax.lax.stop_gradient(x.astype(jnp.float32))


def integers(name: str, x: ArrayLike) -> jax.Array:
    """`x` as int32; anything but an integer array is refused."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{name} must be an integer array, got {x.dtype}")
    return x.astype(jnp.int32)  # int8 could not name the tokens of a vocabulary


def as_bool(x: ArrayLike) -> jax.Array:
    """A mask of bool or 0/1 as bool."""
    x = jnp.asarray(x)
    return x if x.dtype == jnp.bool_ else x != 0


def as_bool_or_all(x: ArrayLike | None, like: jax.Array) -> jax.Array:
    """A mask as bool; True everywhere, in the shape of `like`, where it is left out."""
    return jnp.ones(like.shape, bool) if x is None else as_bool(x)


def same_shape(rank: int, **arrays: jax.Array) -> None:
    """All arrays have `rank` axes and one shape."""
    try:
        chex.assert_rank(list(arrays.values()), rank)
        chex.assert_equal_shape(list(arrays.values()))
    except AssertionError as error:
        names = " and ".join(arrays)
        shapes = ", ".join(f"{name} {list(x.shape)}" for name, x in arrays.items())
        rule = f"must have {rank} axes" + (" and one shape" if len(arrays) > 1 else "")
        raise ValueError(f"{names} {rule}, got {shapes}") from error


def per_row(name: str, x: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] -> [B, 1], one number for each row of the mask."""
    rows = list(mask.shape[:1])
    if list(x.shape) != rows:
        raise ValueError(
            f"{name} must have shape {rows}, one per row of the mask, "
            f"got {list(x.shape)}"
        )
    return x[:, None]


def broadcast_to_tokens(name: str, x: jax.Array, mask: jax.Array) -> jax.Array:
    """[B] or [B, T] -> [B, T], zero outside the mask.

    The shape decides, never broadcasting: a [B] array stays one number per sequence
    when T happens to equal B.
    """
    if x.ndim == 1 and x.shape[0] == mask.shape[0]:
        x = jnp.broadcast_to(x[:, None], mask.shape)
    elif x.shape != mask.shape:
        raise ValueError(
            f"{name} must have shape {list(mask.shape)} like the mask or "
            f"[{mask.shape[0]}], got {list(x.shape)}"
        )
    return jnp.where(mask, x, 0.0)


def setting(
    name: str, value: float | jax.Array, rule: str, holds: Callable[[float], bool]
) -> None:
    """A number obeys `rule`, unless it is traced."""
    if isinstance(value, jax.core.Tracer):
        return
    try:
        good = holds(float(value))
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name} must be {rule}, got {value!r}")


def not_negative(name: str, value: float | jax.Array) -> None:
    """A finite number >= 0."""
    setting(name, value, "finite and >= 0", lambda x: 0 <= x < math.inf)


def finite(name: str, value: float | jax.Array) -> None:
    """A finite number."""
    setting(name, value, "finite", math.isfinite)


def positive(name: str, value: float | jax.Array) -> None:
    """A finite number > 0."""
    setting(name, value, "finite and > 0", lambda x: 0 < x < math.inf)


def unit_interval(name: str, value: float | jax.Array) -> None:
    """A number in [0, 1]."""
    setting(name, value, "in [0, 1]", lambda x: 0 <= x <= 1)


def fraction(name: str, value: float | jax.Array) -> None:
    """A number in (0, 1]."""
    setting(name, value, "in (0, 1]", lambda x: 0 < x <= 1)


def static_size(name: str, value: int | None) -> int:
    """A Python integer >= 1, known while tracing."""
    if isinstance(value, jax.core.Tracer):
        raise ValueError(f"{name} must be a static integer, got a traced value")
    try:
        size = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        size = 0
    if size < 1:
        raise ValueError(f"{name} must be a static integer >= 1, got {value!r}")
    return size


def one_of(name: str, value: str, names: tuple[str, ...]) -> None:
    """One of a few words."""
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}")


def static_zero(value: float | jax.Array) -> bool:
    """Whether a coefficient is a plain 0, so that its term need not be computed."""
    return not isinstance(value, jax.core.Tracer) and float(value) == 0.0
