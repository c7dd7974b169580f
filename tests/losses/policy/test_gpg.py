"""GPG: worked numbers, the paper's alpha and other people's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import pytest

from jaxrl_reason.losses import (
    batch_counts,
    dr_grpo_advantages,
    gpg_advantages,
    policy_gradient,
    signal_fraction,
    token_mean,
)
from tests.losses.worked import ADVANTAGES, EXAMPLES, MASK, NEW, close

REWARDS = np.array([1, 0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1], np.float32)
IDS = np.repeat([0, 1, 2], 4)


compiled = jax.jit(partial(gpg_advantages, num_groups=3))
compiled_mean = jax.jit(partial(dr_grpo_advantages, num_groups=3))
fraction = jax.jit(partial(signal_fraction, num_groups=3))


def gpg(rewards: Any, ids: Any = IDS, **rest: Any) -> np.ndarray:
    return np.asarray(compiled(rewards, ids, **rest))


def centred(rewards: Any, ids: Any = IDS) -> np.ndarray:
    return np.asarray(compiled_mean(rewards, ids))


def breaks(check: Callable[[Any], None], mutant: Any) -> None:
    """The same assertions fail on the faulty form."""
    with pytest.raises(AssertionError):
        check(mutant)


def test_worked_numbers() -> None:
    close(gpg(REWARDS)[:4], EXAMPLES["gpg.adv"])
    assert (gpg(REWARDS)[4:] == 0).all()
    close(1 / fraction(REWARDS, IDS), EXAMPLES["gpg.alpha"])
    tokens = policy_gradient(NEW, ADVANTAGES, MASK)
    close(token_mean(tokens, MASK, batch_counts(MASK)), EXAMPLES["gpg.loss"])


def by_nonzero_rewards(rewards: np.ndarray) -> np.ndarray:
    """Alpha as verl has it."""
    return len(rewards) / np.count_nonzero(rewards) * centred(rewards)


def test_alpha_counts_groups_with_signal_and_not_right_answers() -> None:
    def check(estimate: Callable) -> None:
        for rewards in (REWARDS, 2 * REWARDS - 1, REWARDS + 3):
            # The mean over the batch is the mean over the groups with signal.
            found = np.abs(estimate(rewards)).mean()
            close(found, np.abs(centred(rewards)[:4]).mean())

    check(gpg)
    breaks(check, by_nonzero_rewards)
    breaks(check, centred)
    close(by_nonzero_rewards(REWARDS), EXAMPLES["gpg.alpha_verl"] * centred(REWARDS))
    # With rewards of +1 and -1 it does nothing at all.
    close(by_nonzero_rewards(2 * REWARDS - 1), centred(2 * REWARDS - 1))


def test_the_papers_code_divides_by_the_fraction_and_a_little_more() -> None:
    code = centred(REWARDS) / (1 / EXAMPLES["gpg.alpha"] + 1e-5)
    close(code, gpg(REWARDS), rtol=4e-5)


def test_without_signal_nothing_is_divided_by_zero() -> None:
    silent = REWARDS[IDS == 1].repeat(3) + np.float32(0.1)
    assert (gpg(silent) == 0).all()
    assert fraction(silent, IDS) == 0
    nobody = np.full(12, -1)
    assert (gpg(REWARDS, nobody) == 0).all()
    assert fraction(REWARDS, nobody) == 0


def test_only_sequences_of_the_batch_are_counted() -> None:
    valid = np.array([1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0])
    close(fraction(REWARDS, IDS, valid=valid), 4 / 7)
    close(gpg(REWARDS, valid=valid), 7 / 4 * np.where(IDS == 0, centred(REWARDS), 0))
    # Dummy rows that fill a batch up do not dilute it.
    close(gpg(REWARDS, np.where(IDS == 2, -1, IDS))[:4], [1, -1, -1, 1])


def test_a_group_of_one_is_a_group_without_signal() -> None:
    ids = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 1, 1, 1])
    close(fraction(REWARDS, ids), 11 / 12)


def test_the_fraction_jit_vmap_grad() -> None:
    both = jax.vmap(fraction)(np.stack([REWARDS, 0 * REWARDS]), np.stack([IDS, IDS]))
    close(both, [1 / 3, 0])
    assert (np.asarray(jax.grad(fraction)(REWARDS, IDS)) == 0).all()
