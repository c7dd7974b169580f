"""`check_loss` names what is wrong with each planted fault, and nothing else."""

import pytest

from jaxrl_reason.losses import sequence_mean, token_mean
from jaxrl_reason.testing import check_loss
from jaxrl_reason.testing.check import LAWS, case_of, verdicts
from jaxrl_reason.testing.published import published_losses
from tests.testing.faults import FAULTS, Fault, in_numpy, right, sequences_for_tokens

PUBLISHED = published_losses()


@pytest.mark.parametrize("fault", [x for x in FAULTS if x.law], ids=str)
def test_a_planted_fault_hears_which_law_it_breaks(fault: Fault) -> None:
    with pytest.raises(AssertionError, match=f"^{fault.law}: "):
        check_loss(fault.loss)


@pytest.mark.parametrize("fault", [x for x in FAULTS if not x.law], ids=str)
def test_what_is_some_other_method_needs_a_reference(fault: Fault) -> None:
    check_loss(fault.loss)
    with pytest.raises(AssertionError, match=r"^reference: value and gradient must"):
        check_loss(fault.loss, reference=fault.reference)


def test_the_right_form_passes() -> None:
    check_loss(right, reference=in_numpy, reduction=token_mean)


def test_a_claimed_mean_tells_denominators_apart() -> None:
    with pytest.raises(AssertionError, match=r"^reduction: .* got a gradient of"):
        check_loss(sequences_for_tokens, reduction=token_mean)
    with pytest.raises(AssertionError, match=r"^reduction: .* got a gradient of"):
        check_loss(right, reduction=sequence_mean)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_losses_keep_every_law(name: str) -> None:
    found = verdicts(case_of(PUBLISHED[name]))
    assert [(x.law.name, x.detail) for x in found if x.holds is False] == []


def test_every_law_names_a_fault() -> None:
    named = {fault.law for fault in FAULTS}
    others = {"vmap", "reduction", "reference"}  # of other tests
    assert {law.name for law in LAWS} - named == others
    # Of 40 kinds all but two, which are other methods, need no reference.
    assert len(FAULTS) == 40
    assert sum(fault.law is None for fault in FAULTS) == 2
