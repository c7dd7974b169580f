"""Every public function in float64, and in float32 with 32,768 tokens a row.

Where arrays are float64 nothing is computed in less, which the programs show; where
they are float32 the results are those of float64 to 1e-6, value and gradient, however
many tokens are added up. That float64 itself is right is seen in `test_hard_inputs.py`
and, by the same formulas in NumPy, in the battery.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.losses.jaxprs import equations
from tests.losses.public_calls import Call, every_call

LONG = 32_768
SHORT = every_call()


@pytest.fixture
def double() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def floating(x: Any) -> bool:
    return all(jnp.issubdtype(y.dtype, jnp.floating) for y in jax.tree.leaves(x))


def widened(arrays: dict[str, Any]) -> dict[str, Any]:
    """Numbers of float32 as float64: the same numbers."""

    def wide(x: Any) -> Any:
        return x.astype(np.float64) if x.dtype == np.float32 else x

    return jax.tree.map(wide, arrays)


def value_and_gradients(of: Call, arrays: dict[str, Any]) -> Any:
    """The results, and the gradients of a sum of them that does not cancel."""
    rest = {n: x for n, x in arrays.items() if not floating(x)}

    def pulled(given: dict[str, Any]) -> Any:
        out, total = of.function(**given, **rest, **of.settings), 0.0
        leaves = [x for x in jax.tree.leaves(out) if floating(x)]
        widest = jnp.result_type(*leaves) if leaves else None
        for x in leaves:
            if x.dtype == widest:  # float32 beside float64: a count
                pull = (1 + np.arange(x.size) % 7 / 8).reshape(x.shape).astype(x.dtype)
                total += jnp.sum(pull * jnp.where(jnp.isfinite(x), x, 0.0))
        return total, out

    given = {n: x for n, x in arrays.items() if n not in rest}
    grads, out = jax.grad(pulled, has_aux=True)(given)
    return out, grads


# What rounds: beside float64, float32 is for counts, which these would spoil.
ROUNDS = {"div", "dot_general", "exp", "expm1", "log", "log1p", "pow", "sqrt", "tanh"}


def test_float64_is_never_narrowed(double: None) -> None:
    narrowed: dict[str, set[str]] = {}
    for name, of in SHORT.items():
        if not any(map(floating, of.arrays.values())):
            continue  # of whole numbers alone: float32
        program = jax.make_jaxpr(lambda x, of=of: value_and_gradients(of, x))
        for step in equations(program(widened(of.arrays)).jaxpr):
            before, after = (
                {str(x.aval.dtype) for x in side if not getattr(x.aval, "weak_type", 1)}
                for side in (step.invars, step.outvars)
            )
            primitive = step.primitive.name
            narrows = "float64" in before and primitive == "convert_element_type"
            if "float32" in after and (narrows or primitive in ROUNDS):
                narrowed.setdefault(name, set()).add(primitive)
    assert narrowed == {}


def test_float32_is_never_widened(double: None) -> None:
    wide = {}
    for name, of in SHORT.items():
        found = jax.eval_shape(lambda x, of=of: value_and_gradients(of, x), of.arrays)
        if jnp.dtype("float64") in {x.dtype for x in jax.tree.leaves(found)}:
            wide[name] = [x.dtype for x in jax.tree.leaves(found)]
    assert wide == {}


def long_calls() -> dict[str, Call]:
    """Those with an axis of tokens; a head learns from them in 10,923 blocks."""
    calls = {}
    for name, of in every_call(LONG).items():
        arrays = dict(of.arrays)
        if not any(LONG in np.shape(x) for x in jax.tree.leaves(arrays)):
            continue
        for which in {"unembed", "teacher_unembed", "logits", "teacher_logits"}:
            if which in arrays:
                arrays[which] = arrays[which][..., :4].copy()
        calls[name] = Call(of.function, arrays, of.settings)
    return calls


def apart(x: Any, y: Any) -> float:
    """Their largest difference, over the largest number of the second."""
    if not floating(y):
        return float(np.any(x != y))
    known = np.isfinite(y)
    far = np.max(np.abs(x - y)[known], initial=0.0)
    same = np.array_equal(known, np.isfinite(x))
    return float(far / np.max(np.abs(y[known]), initial=1e-30)) if same else np.inf


def test_32768_tokens_keep_their_digits(double: None) -> None:
    calls, far = long_calls(), {}
    for some in (list(calls)[i : i + 9] for i in range(0, len(calls), 9)):

        @jax.jit
        def run(arrays: dict[str, Any]) -> Any:
            return {n: value_and_gradients(calls[n], x) for n, x in arrays.items()}

        narrow = {n: calls[n].arrays for n in some}
        found = jax.device_get(run(narrow))
        expected = jax.device_get(run({n: widened(x) for n, x in narrow.items()}))
        for name in some:
            leaves = jax.tree.leaves(found[name]), jax.tree.leaves(expected[name])
            worst = max(map(apart, *leaves))
            if worst > 1e-6:
                far[name] = worst
    assert far == {}
