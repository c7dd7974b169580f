"""What the tests of faults seen in public libraries share."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_reason.losses as lib
from tests.losses.worked import MASK, VALUES

X = np.where(MASK, VALUES, 0).astype(np.float32)


def slope(loss: Callable) -> Callable:
    """Value and gradient in the first argument, compiled as one."""
    return jax.jit(jax.value_and_grad(loss))


def zero(x: Any) -> bool:
    return bool((np.asarray(x) == 0).all())


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


REDUCTIONS = {
    "token_mean": lib.token_mean,
    "sequence_mean": lib.sequence_mean,
    "sequence_sum_mean": lib.sequence_sum_mean,
    "fixed_length_mean": partial(lib.fixed_length_mean, length=8),
}


def plain_grpo(r: Any, ids: Any, *, num_groups: int) -> jax.Array:
    """One group, by the formula alone."""
    r = jnp.asarray(r, jnp.float32)
    return (r - r.mean()) / (r.std(ddof=1) + 1e-6)
