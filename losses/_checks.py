"""Checks made while tracing: shapes, types and settings, never the arrays' values.

Every failure is a ValueError that states the rule and then what was given. Settings
that are traced (such as a clip bound under a schedule) have no value yet and pass.
"""

import contextlib
import math
import operator

import chex
import jax
import jax.numpy as jnp
from jax.experimental import checkify
from jax.typing import ArrayLike

_COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def floating(name: str, x: ArrayLike, *, widen: bool = True) -> jax.Array:
    """`x` as float32, or unchanged if float64; raises if it is not a floating array.

    Unchanged too without `widen`: an array that is too large for a copy in float32.
    """
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"{name} must be a floating array, got {x.dtype}")
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if widen else x


def constant(name: str, x: ArrayLike) -> jax.Array:
    """As `floating`, under stop_gradient; integers and booleans are accepted."""
    if isinstance(x, float):
        return jnp.asarray(x)  # takes the type of what it meets
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got {x.dtype}")
    return jax.lax.stop_gradient(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


def integers(name: str, x: ArrayLike) -> jax.Array:
    """`x` as int32; raises if it is not an integer array."""
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.integer):
        raise ValueError(f"{name} must be an integer array, got {x.dtype}")
    return x.astype(jnp.int32)  # int8 could not name the tokens of a vocabulary


def as_bool(x: ArrayLike | None, like: jax.Array | None = None) -> jax.Array:
    """A bool or 0/1 mask as bool; if it is None, True in the shape of `like`.

    Anything else passed in the mask's place, such as weights, is an error.
    """
    if x is None and like is not None:
        return jnp.ones(like.shape, bool)
    x = jnp.asarray(x)
    if x.dtype == jnp.bool_:
        return x
    if isinstance(x, jax.core.Tracer):
        # Active only under `checkify.checkify`; elsewhere it costs nothing.
        flags = (x == 0) | (x == 1)
        checkify.debug_check(jnp.all(flags), "a mask must be bool or 0/1")
    elif x.is_fully_addressable:
        # On the host: inside jit, JAX traces operations on known arrays too.
        values = jax.device_get(x)
        wrong = values[~((values == 0) | (values == 1))]
        if wrong.size:
            raise ValueError(f"a mask must be bool or 0/1, got {wrong[0]}")
    return x != 0


def same_shape(rank: int, **arrays: jax.Array) -> None:
    """Checks that all arrays have `rank` axes and the same shape."""
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


def number(
    name: str,
    value: float | jax.Array,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    finite: bool = True,
    rule: str = "",
) -> None:
    """Checks that a number is between its bounds; a traced one has no value and passes.

    `rule` replaces the default wording of the bounds in the error.
    """
    if isinstance(value, jax.core.Tracer):
        return
    x = math.nan
    if not isinstance(value, str):  # float("0.2") would accept a string
        with contextlib.suppress(TypeError, ValueError):
            x = float(value)
    bounds = {">": above, ">=": at_least, "<": below, "<=": at_most}
    given = {sign: bound for sign, bound in bounds.items() if bound is not None}
    if (math.isfinite(x) or (x == math.inf and not finite)) and all(
        _COMPARE[sign](x, bound) for sign, bound in given.items()
    ):
        return
    if len(given) == 2:
        (left, low), (right, high) = given.items()
        opening, closing = "(" if left == ">" else "[", ")" if right == "<" else "]"
        words = f"in {opening}{low:g}, {high:g}{closing}"
    else:
        ends = [f"{sign} {bound:g}" for sign, bound in given.items()]
        words = " and ".join(["finite"] * finite + ends)
    raise ValueError(f"{name} must be {rule or words}, got {value!r}")


def static_size(name: str, value: int | None) -> int:
    """Checks for a Python integer >= 1, known while tracing."""
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
    """Checks that a string is one of `names`."""
    if value not in names:
        raise ValueError(f"{name} must be one of {', '.join(names)}, got {value!r}")


def static_zero(value: float | jax.Array) -> bool:
    """Whether a coefficient is a plain 0, so that its term need not be computed."""
    return not isinstance(value, jax.core.Tracer) and float(value) == 0.0
