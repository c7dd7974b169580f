"""Floating-point operations of a traced function, loops counted by their iterations.

XLA's own count takes a scanned layer once. Matrix products are counted, 2 operations
for each multiplication and addition; the rest of a transformer is small beside them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

# f(number of a loop, its first value) -> iterations of a loop whose end is computed.
Loops = Callable[[int, int], float]


@dataclass(frozen=True)
class Flops:
    """Operations of all devices together.

    Attributes:
      dense: products of activations with parameters.
      pairs: products of activations with each other: attention, over all pairs of
        columns.
    """

    dense: float = 0.0
    pairs: float = 0.0

    def __add__(self, other: "Flops") -> "Flops":
        return Flops(self.dense + other.dense, self.pairs + other.pairs)

    def times(self, count: float) -> "Flops":
        """Those of `count` iterations."""
        return Flops(self.dense * count, self.pairs * count)

    def causal(self, columns: int) -> float:
        """In total, when a column sees only itself and those before it.

        Args:
          columns: of a row that is one sequence.
        """
        return self.dense + self.pairs * (columns + 1) / (2 * columns)


def count_flops(jaxpr: Any, loops: Loops) -> Flops:
    """Counts the matrix products of a jaxpr.

    A product is dense unless it has batch dimensions, as attention's have.

    Args:
      jaxpr: such as ``jax.jit(f).trace(x).jaxpr``.
      loops: iterations of loops whose end is computed, in the order in which they
        stand.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> w = jnp.ones((3, 4, 4))
      >>> f = lambda x: jax.lax.scan(lambda x, w: (x @ w, None), x, w)[0]
      >>> traced = jax.jit(f).trace(jnp.ones((2, 4)))
      >>> count_flops(traced.jaxpr, lambda number, first: 1).dense == 3 * 2 * 2 * 4 * 4
      True
    """
    return _Count(loops).of(jaxpr)


class _Count:
    def __init__(self, loops: Loops) -> None:
        self.loops, self.number = loops, 0

    def of(self, jaxpr: Any) -> Flops:
        inner = getattr(jaxpr, "jaxpr", jaxpr)  # a closed one
        total = Flops()
        for eqn in inner.eqns:
            total += self.of_equation(eqn)
        return total

    def of_equation(self, eqn: Any) -> Flops:
        name, params = eqn.primitive.name, eqn.params
        if name == "dot_general":
            return _product(eqn)
        if name == "scan":
            return self.of(params["jaxpr"]).times(params["length"])
        if name == "while":
            count = self.loops(self.number, _first_value(eqn))
            self.number += 1
            return self.of(params["body_jaxpr"]).times(count)
        if name == "cond":
            found = [self.of(branch) for branch in params["branches"]]
            return max(found, key=lambda x: x.dense + x.pairs)
        inner = [x for value in params.values() for x in _jaxprs(value)]
        if name == "custom_vjp_call":
            inner = inner[:1]
        total = sum(map(self.of, inner), Flops())
        if name == "shard_map":
            mesh, manual = params["mesh"], params["newly_manual_axes"]
            total = total.times(math.prod(mesh.shape[axis] for axis in manual))
        return total


def _product(eqn: Any) -> Flops:
    (contracted, _), (batch, _) = eqn.params["dimension_numbers"]
    left = eqn.invars[0].aval.shape
    terms = math.prod(left[i] for i in contracted)
    count = 2.0 * math.prod(eqn.outvars[0].aval.shape) * terms
    return Flops(pairs=count) if batch else Flops(dense=count)


def _first_value(eqn: Any) -> int:
    """What a loop counts from, where it counts from a number; else 0."""
    params = eqn.params
    carried = eqn.invars[params["cond_nconsts"] + params["body_nconsts"] :]
    condition = params["cond_jaxpr"].jaxpr
    for test in condition.eqns:
        if test.primitive.name != "lt" or test.invars[0] not in condition.invars:
            continue
        at = condition.invars.index(test.invars[0]) - params["cond_nconsts"]
        value = getattr(carried[at], "val", 0) if at >= 0 else 0
        return int(value)
    return 0


def _jaxprs(value: Any) -> list[Any]:
    """The jaxprs among the parameters of an equation."""
    values = value if isinstance(value, (tuple, list)) else (value,)
    return [x for x in values if isinstance(x, (Jaxpr, ClosedJaxpr))]
