"""How spellings that mean several things are read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerPolicy:
    r"""How spellings that mean several things are read.

    Attributes:
      leading_zeros: 025 is 25; otherwise it is not a number.
      percent: "fraction": 10% is a tenth; "number": 10% is 10.
      mixed_numbers: `1\frac{4}{5}` is 9/5; otherwise it is refused.
      inequality_as_interval: `-2 \leq x < 7` is the interval [-2, 7).

    Raises:
      ValueError: percent is something else.
    """

    leading_zeros: bool = False
    percent: str = "fraction"
    mixed_numbers: bool = True
    inequality_as_interval: bool = True

    def __post_init__(self) -> None:
        if self.percent not in ("fraction", "number"):
            raise ValueError(
                f"percent must be 'fraction' or 'number', got {self.percent!r}"
            )


USUAL = AnswerPolicy()
