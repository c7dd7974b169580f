"""Losses of torch go through the same laws."""

import importlib

import pytest

from jaxrl_reason.losses import dapo_loss, token_mean
from jaxrl_reason.testing import check_loss
from jaxrl_reason.testing.arrays import random_arrays
from jaxrl_reason.testing.check import case_of, verdicts
from jaxrl_reason.testing.evaluate import as_loss

pytest.importorskip("torch", reason="torch is not installed: the extra is torch")
losses = importlib.import_module("tests.testing.torch_losses")


def test_a_right_loss_passes() -> None:
    check_loss(losses.right, reduction=token_mean)
    left_out = {x.law.name for x in verdicts(case_of(losses.right)) if x.holds is None}
    assert {"jit", "vmap"} <= left_out


@pytest.mark.parametrize("loss", losses.FAULTS, ids=lambda loss: loss.__name__)
def test_a_faulty_loss_hears_which_law_it_breaks(loss) -> None:
    with pytest.raises(AssertionError, match=f"^({losses.FAULTS[loss]}): "):
        check_loss(loss)


def test_torch_and_jax_give_the_same() -> None:
    arrays = random_arrays(3)
    ours, theirs = (as_loss(x, ()).run(arrays) for x in (dapo_loss, losses.right))
    assert theirs.value == pytest.approx(float(ours.value), rel=1e-6)
    assert theirs.grad == pytest.approx(ours.grad, abs=1e-7)
