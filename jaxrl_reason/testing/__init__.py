"""Laws for a policy loss of your own, and evidence for it on one page.

`check_loss(my_loss)` in a test takes seconds and names the law that is broken. The
command `python -m jaxrl_reason.testing my_file.py:my_loss --out report/` checks the
same laws and writes a page to share.

The loss is written in JAX or torch. The repository's own battery, over all losses and
with references, is larger.
"""

from jaxrl_reason.testing.arrays import INPUTS, random_arrays
from jaxrl_reason.testing.case import Law
from jaxrl_reason.testing.check import LAWS, Verdict, check_loss
from jaxrl_reason.testing.page import write_loss_report

__all__ = [
    "INPUTS",
    "LAWS",
    "Law",
    "Verdict",
    "check_loss",
    "random_arrays",
    "write_loss_report",
]
