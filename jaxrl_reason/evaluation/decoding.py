"""The interface of a model for evaluations: prompts in, rows of tokens out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from jaxrl_reason.sampler.settings import check_temperature


@dataclass(frozen=True)
class Decoding:
    """One way of sampling responses.

    Attributes:
      num_samples: responses per question.
      temperature: 0 takes the most likely token.
      top_k: keep the k most likely tokens; 0 keeps all.
      top_p: keep the fewest most likely tokens with at least this mass.

    Raises:
      ValueError: a value breaks a rule; the message names it.

    Example:
      >>> Decoding(8, 0.6, top_p=0.95).name
      '8 samples at temperature 0.6, top_p 0.95'
      >>> Decoding().name
      'greedy'
    """

    num_samples: int = 1
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise ValueError(f"num_samples must be >= 1, got {self.num_samples}")
        if not self.greedy:
            check_temperature("temperature", self.temperature)
        if self.greedy and self.num_samples > 1:
            raise ValueError(
                "temperature must be above 0 where samples are to differ, got 0 with "
                f"num_samples {self.num_samples}"
            )
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise ValueError(
                "top_k must be >= 0 and top_p above 0 and at most 1, got "
                f"{self.top_k} and {self.top_p}"
            )

    @property
    def greedy(self) -> bool:
        """Whether it is greedy, with one response of the most likely tokens."""
        return self.temperature == 0

    @property
    def name(self) -> str:
        """Its name in the records, unique for the settings."""
        if self.greedy:
            return "greedy"
        samples = "sample" if self.num_samples == 1 else "samples"
        name = f"{self.num_samples} {samples} at temperature {self.temperature!r}"
        name += f", top_k {self.top_k}" if self.top_k else ""
        return name + (f", top_p {self.top_p!r}" if self.top_p < 1 else "")


@dataclass(frozen=True)
class Response:
    """One response.

    Attributes:
      tokens: its ids, the EOS token included if there is one.
      truncated: whether the length limit stopped it.
    """

    tokens: Sequence[int]
    truncated: bool


class Generate(Protocol):
    """Samples responses; a question gets the same ones in any batch."""

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        problem_ids: Sequence[int],
        decoding: Decoding,
    ) -> list[list[Response]]:
        """`decoding.num_samples` responses to each prompt (token ids)."""
