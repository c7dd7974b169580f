"""GDPO: worked numbers, what it can tell apart, settings."""

from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from jaxrl_reason.losses import gdpo_advantages, grpo_advantages
from tests.losses.worked import EXAMPLES, close

PARTS = np.array([[1, 0], [1, 1], [0, 1], [0, 1]], np.float32)
ONE_GROUP = np.zeros(4, int)


compiled = jax.jit(partial(gdpo_advantages, num_groups=3), static_argnames="ddof")
compiled_grpo = jax.jit(partial(grpo_advantages, num_groups=1))


def gdpo(parts: Any, ids: Any = ONE_GROUP, **rest: Any) -> np.ndarray:
    return np.asarray(compiled(parts, ids, **{"eps": 1e-4, **rest}))


def grpo(rewards: Any) -> np.ndarray:
    return np.asarray(compiled_grpo(rewards, ONE_GROUP, eps=1e-4))


def test_the_defaults_are_those_of_the_public_code() -> None:
    close(gdpo_advantages(PARTS, ONE_GROUP, num_groups=1), gdpo(PARTS))


def test_worked_numbers() -> None:
    each = np.stack([grpo(PARTS[:, 0]), grpo(PARTS[:, 1])], axis=1)
    close(each, EXAMPLES["gdpo.z"])
    close(each.sum(1), EXAMPLES["gdpo.sum"])
    close(gdpo(PARTS), EXAMPLES["gdpo.adv"])
    close(grpo(PARTS.sum(1)), EXAMPLES["gdpo.grpo"])


def test_it_tells_apart_what_sums_to_the_same() -> None:
    def check(found: np.ndarray) -> None:
        assert abs(found[0] - found[2]) > 0.1

    check(gdpo(PARTS))
    with pytest.raises(AssertionError):
        check(grpo(PARTS.sum(1)))


def test_weights() -> None:
    close(gdpo(PARTS, weights=np.array([1.0, 0.0])), gdpo(PARTS[:, :1]))
    close(gdpo(PARTS, weights=np.array([3, 3]), eps=0), gdpo(PARTS, eps=0))
    one_side = np.sign(gdpo(PARTS, weights=np.array([0.0, -1.0])))
    assert one_side.tolist() == [1, -1, -1, -1]


def test_the_scale_of_a_component_does_not_matter() -> None:
    stretched = PARTS * np.array([1, 1024], np.float32)
    close(gdpo(stretched, eps=0), gdpo(PARTS, eps=0))
    summed = grpo(stretched.sum(1))
    assert np.abs(summed - grpo(PARTS.sum(1))).max() > 0.1


def test_a_component_without_signal_says_nothing() -> None:
    wide = np.concatenate([PARTS, np.full((4, 1), 0.1, np.float32)], axis=1)
    assert (gdpo(wide) == gdpo(PARTS)).all()


def test_a_group_without_signal_beside_others_keeps_an_exact_zero() -> None:
    rng = np.random.default_rng(0)
    parts = rng.normal(size=(9, 2)).astype(np.float32)
    parts[6:] = 0.1
    ids = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])

    def check(found: np.ndarray) -> None:
        assert (found[6:] == 0).all()
        assert (found[:6] != 0).all()

    found = gdpo(parts, ids)
    check(found)
    # The batch's mean is 0 but for rounding, and rounding is what it would add.
    rounding = np.float32(np.abs(found[:6]).max() * 2.0**-24)
    with pytest.raises(AssertionError):
        check(found - rounding)
    close(np.std(found, ddof=1), 1.0, rtol=1e-3)


@pytest.mark.parametrize("ddof", [0, 1])
def test_settings(ddof: int) -> None:
    each = [(p - p.mean()) / (p.std(ddof=ddof) + 0.5) for p in PARTS.T]
    mixed = np.sum(each, axis=0)
    expected = mixed / (mixed.std(ddof=ddof) + 0.5)
    close(gdpo(PARTS, ddof=ddof, eps=0.5), expected)


@pytest.mark.parametrize(
    ("parts", "change", "message"),
    [
        (PARTS[:, 0], {}, "reward_components must have 2 axes"),
        (PARTS[:, :0], {}, "reward_components must have at least one column, got 0"),
        (PARTS, {"weights": np.ones(3)}, r"weights must have shape \[2\]"),
        (PARTS, {"ddof": 2}, "ddof must be 0 or 1, got 2"),
    ],
)
def test_refusals(parts: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gdpo(parts, **change)


def test_refuses_a_negative_eps() -> None:
    with pytest.raises(ValueError, match=r"eps must be finite and >= 0, got -1\.0"):
        gdpo_advantages(PARTS, ONE_GROUP, num_groups=1, eps=-1.0)
