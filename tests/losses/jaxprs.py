"""Looks into traced programs: which primitives, and how large an array."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core


def equations(jaxpr: core.Jaxpr) -> Iterator[Any]:
    """Every equation of a jaxpr and of those inside it, loop bodies once."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(
            list(equation.params.values()),
            is_leaf=lambda x: isinstance(x, core.Jaxpr | core.ClosedJaxpr),
        ):
            if isinstance(value, core.ClosedJaxpr):
                yield from equations(value.jaxpr)
            elif isinstance(value, core.Jaxpr):
                yield from equations(value)


def primitives(function: Callable, *args: Any) -> list[str]:
    """Names of the primitives of a traced function."""
    traced = jax.make_jaxpr(function)(*args)
    return [equation.primitive.name for equation in equations(traced.jaxpr)]


def largest_array(function: Callable, *args: Any) -> int:
    """Elements of the largest array that a traced function makes."""
    traced = jax.make_jaxpr(function)(*args)
    return max(
        out.aval.size
        for equation in equations(traced.jaxpr)
        for out in equation.outvars
    )
