"""The gradient of a loss against finite differences in float64.

Values under stop_gradient are held fixed while the log-probs change, so that a loss
with constants in it, such as CISPO's, is compared with the derivative that it intends.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from jaxrl_reason.testing.arrays import Arrays
from jaxrl_reason.testing.case import Case
from jaxrl_reason.testing.evaluate import JaxLoss, denominators

_STEP = 1e-5
# The parameters of a program that hold another program.
_INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


class Comparison(NamedTuple):
    """A gradient compared with finite differences.

    Attributes:
      place: the arrays.
      error: the largest difference, relative to the largest gradient; nan without
        finite differences.
      note: why there are none, if so.
    """

    place: str
    error: float
    note: str = ""


def compare_gradients(case: Case) -> list[Comparison]:
    """Compares the gradients at random ratios and at ratio 1.

    Args:
      case: a loss under test.

    Returns:
      One comparison for each.
    """
    still = {**case.still, "advantages": case.arrays["advantages"]}
    trials = {"random ratios": case.arrays, "ratio 1": still}
    return [_compare(case, place, arrays) for place, arrays in trials.items()]


def _compare(case: Case, place: str, arrays: Arrays) -> Comparison:
    grad = case.loss.run(arrays).grad
    try:
        slope = central_differences(case.loss, arrays)
    except Exception as error:  # a program with unsupported parts
        text = str(error).strip().partition("\n")[0]
        return Comparison(place, np.nan, f"{type(error).__name__}: {text[:80]}")
    scale = max(float(np.abs(slope).max()), 1e-30)
    return Comparison(place, float(np.abs(grad - slope).max()) / scale)


def central_differences(loss: Any, arrays: Arrays) -> np.ndarray:
    """Central differences of the value in each log-prob inside the mask, in float64.

    Args:
      loss: the wrapped loss.
      arrays: of a mini-batch.

    Returns:
      [B, T], 0 outside the mask.
    """
    places = np.argwhere(arrays["mask"])
    steps = np.zeros((len(places), *arrays["mask"].shape))
    steps[np.arange(len(places)), places[:, 0], places[:, 1]] = _STEP
    exact = arrays["logprobs"].astype(np.float64)
    moved = np.concatenate([exact + steps, exact - steps])
    if isinstance(loss, JaxLoss):
        values = _jax_values(loss, arrays, moved)
    else:
        values = loss.exact_values(arrays, moved)
    up, down = np.split(values, 2)
    slope = np.zeros(arrays["mask"].shape)
    slope[places[:, 0], places[:, 1]] = (up - down) / (2 * _STEP)
    return slope


def _jax_values(loss: JaxLoss, arrays: Arrays, moved: np.ndarray) -> np.ndarray:
    """The values at other log-probs, by interpreting the program step by step."""
    counts = denominators(arrays)

    def value(logprobs: Any) -> Any:
        return loss.scalar(logprobs, arrays, counts)[0]

    program = jax.make_jaxpr(value)(arrays["logprobs"])
    with jax.enable_x64(True):
        consts = [_widened(np.asarray(x)) for x in program.consts]
        held: list[Any] = []
        exact = jnp.asarray(arrays["logprobs"], jnp.float64)
        _follow(program.jaxpr, consts, [exact], held, None)

        def again(logprobs: jax.Array) -> Any:
            return _follow(program.jaxpr, consts, [logprobs], [], iter(held))[0]

        return np.asarray(jax.jit(jax.vmap(again))(jnp.asarray(moved)))


def _widened(x: Any) -> Any:
    """A float32 array as float64; any other unchanged."""
    return x.astype(np.float64) if getattr(x, "dtype", None) == np.float32 else x


def _follow(
    jaxpr: Any,
    consts: list[Any],
    inputs: list[Any],
    held: list[Any],
    fixed: Iterator[Any] | None,
) -> list[Any]:
    """Runs a program in float64; constants are saved to `held` or read from `fixed`."""
    known: dict[Any, Any] = {}

    def read(x: Any) -> Any:
        return _widened(np.asarray(x.val)) if isinstance(x, Literal) else known[x]

    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, inputs, strict=True))
    for line in jaxpr.eqns:
        given = [read(x) for x in line.invars]
        inner = [line.params[name] for name in _INNER if name in line.params]
        if line.primitive.name == "stop_gradient":
            out = [given[0] if fixed is None else next(fixed)]
            held.extend(out)
        elif inner and line.primitive.name not in ("while", "scan", "cond"):
            body = getattr(inner[0], "jaxpr", inner[0])
            inside = [_widened(np.asarray(x)) for x in getattr(inner[0], "consts", [])]
            out = _follow(body, inside, given, held, fixed)
        else:
            params = {
                name: np.dtype(np.float64)
                if isinstance(x, np.dtype) and x == np.float32
                else x
                for name, x in line.params.items()
            }
            out = line.primitive.bind(*given, **params)
            out = out if line.primitive.multiple_results else [out]
        known.update(zip(line.outvars, out, strict=True))
    return [read(x) for x in jaxpr.outvars]
