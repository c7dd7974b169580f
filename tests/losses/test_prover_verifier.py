"""The prover-verifier game."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl_reason.losses import prover_rewards, verifier_loss
from tests.losses.worked import EXAMPLES, close

SCORES = np.float32([2, 1, 0.5, -0.5])
CORRECT = np.array([1, 0, 1, 0])


def test_worked_numbers() -> None:
    for helpful, src, cgc in (
        (1, "pvg.help", "pvg.cgc_help"),
        (0, "pvg.sneak", "pvg.cgc_sneak"),
    ):
        close(prover_rewards(SCORES, CORRECT, helpful), EXAMPLES[src])
        found = prover_rewards(SCORES, CORRECT, np.full(4, helpful), kind="cgc")
        close(found, EXAMPLES[cgc])
    # All right and helpful, and an offset that makes every centred score positive but
    # the last: the centred scores themselves.
    found = prover_rewards(SCORES, np.ones(4), True)
    close(found[:2], EXAMPLES["pvg.center"][:2])
    pair = np.float32([2]), np.float32([1])
    close(verifier_loss(*pair, lam=0.01)[0], EXAMPLES["pvg.vloss"])


def test_roles_may_be_mixed_in_a_batch() -> None:
    roles = np.array([1, 0, 0, 1], bool)
    found = prover_rewards(SCORES, CORRECT, roles)
    helpful, sneaky = (prover_rewards(SCORES, CORRECT, r) for r in (True, False))
    close(found, np.where(roles, helpful, sneaky))


def test_sequences_that_are_not_valid_are_not_seen() -> None:
    scores, valid = np.append(SCORES, np.nan), np.array([1, 1, 1, 1, 0])
    correct = np.append(CORRECT, 1)
    for kind in ("src", "cgc"):
        found = prover_rewards(scores, correct, True, kind=kind, valid=valid)
        close(found[:4], prover_rewards(SCORES, CORRECT, True, kind=kind))
        assert found[4] == 0


def test_a_nan_is_not_hidden() -> None:
    scores = SCORES.copy()
    scores[1] = np.nan

    def check(rewards: Callable) -> None:
        assert np.isnan(rewards(scores)).any()

    check(lambda v: prover_rewards(v, CORRECT, True))
    check(lambda v: prover_rewards(v, np.ones(4), True, kind="cgc"))
    with pytest.raises(AssertionError):
        check(lambda v: jnp.where(v - v.mean() > 0, v - v.mean(), -1.0))


def test_rewards_are_constants_in_float32() -> None:
    coarse = jnp.asarray(SCORES, jnp.bfloat16)
    for kind in ("src", "cgc"):

        def rewards(v: jax.Array, kind: str = kind) -> jax.Array:
            return prover_rewards(v, CORRECT, True, kind=kind)

        assert (jax.grad(lambda v: rewards(v).sum())(SCORES) == 0).all()
        assert rewards(coarse).dtype == jnp.float32
        both = jax.jit(jax.vmap(rewards))(np.stack([SCORES, -SCORES]))
        close(both[1], rewards(-SCORES))


def test_the_squares_hold_the_scores() -> None:
    """Without them scores of a separable problem grow for ever."""

    def slope(lam: float) -> jax.Array:
        far = np.float32([30.0])
        return jax.grad(lambda x: verifier_loss(x, -far, lam=lam)[0])(far)[0]

    assert slope(0.0) <= 0
    close(slope(0.01), 0.3)
    close(verifier_loss(np.zeros(3), np.zeros(3))[0], np.log(2.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prover_rewards(SCORES, CORRECT, 1, kind="x"), "kind must be one of"),
        (lambda: prover_rewards(SCORES, CORRECT[:2], 1), r"correct \[2\]"),
        (lambda: prover_rewards(SCORES, CORRECT, np.ones(2)), r"helpful \[2\]"),
        (
            lambda: prover_rewards(SCORES, CORRECT, 1, penalty=-np.inf),
            "penalty must be finite",
        ),
        (lambda: verifier_loss(SCORES, SCORES[:2]), r"wrong_scores \[2\]"),
        (lambda: verifier_loss(SCORES, SCORES, lam=-1.0), "lam must be"),
        (
            lambda: verifier_loss(SCORES, SCORES, valid=CORRECT),
            "num_pairs must be given with valid",
        ),
    ],
)
def test_refusals(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
