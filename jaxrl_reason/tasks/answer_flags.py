"""The switches of `AnswerPolicy` as settings, each of which may be left to the task."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from jaxrl_reason.grading.answer_policy import AnswerPolicy


@dataclass(frozen=True)
class AnswerFlags:
    """How spellings of an answer that mean several things are read.

    Each is the task's own if left out: aime reads leading zeros.

    Attributes:
      percent: 10% is a tenth (fraction) or 10 (number).
      leading_zeros: 025 is 25; otherwise it is not a number.
      mixed_numbers: a whole number before a fraction is their sum; otherwise it is
        refused.
      inequality_as_interval: -2 <= x < 7 is the interval [-2, 7); otherwise it is equal
        to an inequality only.

    Example:
      >>> AnswerFlags(percent="number").policy(AnswerPolicy()).percent
      'number'
    """

    percent: Literal["fraction", "number"] | None = None
    leading_zeros: bool | None = None
    mixed_numbers: bool | None = None
    inequality_as_interval: bool | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The switches that are set, by name."""
        return {name: x for name, x in vars(self).items() if x is not None}

    def policy(self, usual: AnswerPolicy) -> AnswerPolicy:
        """The task's policy with these switches.

        Args:
          usual: of the task.

        Returns:
          The policy.
        """
        return dataclasses.replace(usual, **self.given)
