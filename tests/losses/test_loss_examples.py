"""Every public loss has an example, and every example is true."""

import pytest

import jaxrl_reason.losses
from tests.packaging.modules import check_examples, modules_under_test


@pytest.mark.parametrize("name", modules_under_test(losses=True))
def test_examples(name: str) -> None:
    check_examples(name)


def test_every_public_loss_has_an_example() -> None:
    losses = jaxrl_reason.losses
    functions = [getattr(losses, name) for name in losses.__all__ if name[0].islower()]
    assert [f.__name__ for f in functions if ">>>" not in f.__doc__] == []
