"""The input of every law: a loss, its arrays, and how results are compared."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from jaxrl_reason.losses import Counts
from jaxrl_reason.testing.arrays import Arrays, at_ratio_one, random_arrays
from jaxrl_reason.testing.evaluate import Loss, Result

Reduction = Callable[[Any, Any, Counts], Any]


class Broken(Exception):
    """A law does not hold; the text says what was found."""


@dataclass(frozen=True)
class Case:
    """A loss under test.

    Attributes:
      loss: the wrapped loss.
      seed: of the arrays.
      rtol: relative tolerance of values and gradients.
      reference: the same loss in NumPy, if there is one.
      reduction: the mean that the loss is said to take, if given.
    """

    loss: Loss
    seed: int = 0
    rtol: float = 1e-5
    reference: Callable[..., Any] | None = None
    reduction: Reduction | None = None

    @cached_property
    def arrays(self) -> Arrays:
        """A random mini-batch, with prefixes as masks."""
        return random_arrays(self.seed, self.loss.inputs)

    @cached_property
    def base(self) -> Result:
        """The loss's result for it."""
        return self.loss.run(self.arrays)

    @cached_property
    def still(self) -> Arrays:
        """The mini-batch at ratio 1, A = 1 and -1 by row, with holes in the mask."""
        return at_ratio_one(self.arrays)

    def same(self, found: Any, wanted: Any, what: str = "") -> None:
        """Compares arrays, relative to the largest number."""
        found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
        scale = max(float(np.abs(wanted).max(initial=0.0)), 1e-30)
        if not (np.abs(found - wanted).max(initial=0.0) <= self.rtol * scale):
            gap = np.nan_to_num(np.abs(found - wanted), nan=np.inf)
            far = np.unravel_index(np.argmax(gap), found.shape)
            raise Broken(f"got {what}{found[far]:.6g} for {wanted[far]:.6g}")

    def both(self, found: Sequence[Any], wanted: Sequence[Any]) -> None:
        """Compares value and gradient."""
        self.same(found[0], wanted[0])
        self.same(found[1], wanted[1], "a gradient of ")


@dataclass(frozen=True)
class Law:
    """A rule that every loss must obey.

    Attributes:
      name: for `skip`.
      rule: the sentence that starts the error.
      check: raises `Broken` if the law does not hold.
      applies: whether it applies to a case.
    """

    name: str
    rule: str
    check: Callable[[Case], None]
    applies: Callable[[Case], bool] = lambda case: True
