"""Inputs at the edge, to every public function that has such an input.

`test_hard_inputs.py` says what single functions make of them.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from tests.losses.public_calls import B, Call, T, every_call

CALLS = every_call()
MASKS = ("mask", "valid", "step_mask", "chosen_mask", "rejected_mask")


def call(of: Call, **changed: Any) -> Any:
    return of.function(**{**of.arrays, **of.settings, **changed})


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan])
def test_a_mask_that_is_none_is_refused(value: float) -> None:
    asked = set()
    for of in CALLS.values():
        for which in set(MASKS) & of.arrays.keys():
            mask = np.array(of.arrays[which], np.float32)
            mask.flat[0] = value
            asked.add(which)
            with pytest.raises(ValueError, match=f"be bool or 0/1, got {value}"):
                call(of, **{which: mask})
    assert asked == set(MASKS)


def test_an_impossible_token_makes_no_nan() -> None:
    """An infinite result may be the right one; nan is none, and spreads."""
    bad = {}

    def total(out: Any) -> jax.Array:
        return sum(jnp.sum(x.astype(jnp.float32)) for x in jax.tree.leaves(out))

    def pulled(x: Any, of: Call, which: str) -> Any:
        arrays = {n: np.array(y) for n, y in of.arrays.items()}
        if "mask" in arrays:
            arrays["mask"][0, 0] = True
        out = of.function(**{**arrays, **of.settings, which: x})
        return total(out), out

    slope_of = jax.value_and_grad(pulled, has_aux=True)
    for name, of in CALLS.items():
        for which, x in of.arrays.items():
            if which.endswith("logprobs") and np.ndim(x) == 2:
                impossible = np.array(x)
                impossible[0, 0] = -np.inf
                (_, out), slope = slope_of(impossible, of, which)
                if any(np.isnan(y).any() for y in jax.tree.leaves((out, slope))):
                    bad[name] = which
    assert bad == {}


def test_responses_without_a_place_for_a_token() -> None:
    """No tokens: no error, and nan only where nothing has no mean, as is written."""
    ids = CALLS["batch_counts"].arrays["group_ids"]
    counts = lib.batch_counts(np.zeros((B, 0), bool), ids, num_groups=3)

    def emptied(x: Any) -> Any:
        if np.shape(x)[:2] == (B, T):
            return x[:, :0]
        return x[..., :0] if np.shape(x)[-2:] == (B, T) else x

    wrong = {}
    for name, of in CALLS.items():
        arrays = {n: x for n, x in of.arrays.items() if not isinstance(x, list)}
        arrays = {n: emptied(x) for n, x in arrays.items()}
        if all(np.shape(x) == np.shape(of.arrays[n]) for n, x in arrays.items()):
            continue
        given = {"counts": counts} if "counts" in of.settings else {}
        out = call(of, **arrays, **given)
        if not all(np.isfinite(x).all() for x in jax.tree.leaves(out)):
            wrong[name] = out
    assert wrong.keys() == {"asp", "explained_variance"}


def test_a_number_in_quotes_is_no_number() -> None:
    for of in CALLS.values():
        for p in inspect.signature(of.function).parameters.values():
            number = of.settings.get(p.name, p.default)
            if isinstance(number, int | float) and not isinstance(number, bool):
                with pytest.raises(ValueError, match=r"^\S+ .*must .*, got '"):
                    call(of, **{p.name: str(number)})
