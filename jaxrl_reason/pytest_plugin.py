"""A pytest plugin: the fixture `loss_evidence`, and `--loss-report DIR`.

    def test_my_loss(loss_evidence):
        loss_evidence(my_loss)

asserts that every law holds, like `jaxrl_reason.testing.check_loss`, and with
`--loss-report DIR` writes a page about the loss to `DIR/my_loss/`. The library is not
imported before a test uses the fixture.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds `--loss-report`."""
    group = parser.getgroup("jaxrl_reason")
    group.addoption(
        "--loss-report",
        metavar="DIR",
        help="write a page of evidence for every loss that a test checks",
    )


@pytest.fixture
def loss_evidence(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Checks a loss; takes the arguments of `check_loss`."""
    folder = request.config.getoption("--loss-report")

    def check(loss: Callable[..., Any], **options: Any) -> None:
        from jaxrl_reason.testing import check_loss, write_loss_report

        if folder is not None:
            write_loss_report(loss, Path(folder), **options)
        check_loss(loss, **options)

    return check
