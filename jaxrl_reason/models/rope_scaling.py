"""How published models scale rotary positions beyond their training context."""

import math
from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp


def _check(scaling: object, *names: str) -> None:
    for name in names:
        value = getattr(scaling, name)
        real = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not real or not 0 < value < math.inf:
            raise ValueError(
                f"{name} of {type(scaling).__name__} must be > 0 and finite, "
                f"got {value!r}"
            )


@dataclass(frozen=True)
class LinearScaling:
    """Positions divided by a factor: frequency / factor.

    Source: arXiv 2306.15595, equation 4.

    Attributes:
      factor: how many times longer the context becomes.

    Raises:
      ValueError: factor is not > 0 and finite.

    >>> LinearScaling(4.0).stretch(jnp.array([1.0, 0.5]), base=1e4).tolist()
    [0.25, 0.125]
    """

    factor: float

    def __post_init__(self) -> None:
        _check(self, "factor")

    attention_factor = 1.0

    def stretch(self, frequencies: jax.Array, base: float) -> jax.Array:
        """The frequencies [H/2] that replace the given ones."""
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """Low frequencies divided by a factor, high ones kept, and a blend between.

    wavelength = 2 pi / frequency; turns = original_max_position_embeddings / wavelength
    s = clip((turns - low_freq_factor) / (high_freq_factor - low_freq_factor), 0, 1)
    frequency' = (1 - s) frequency / factor + s frequency

    The scaling of Llama 3.1 and its successors, as their published code has it.

    Attributes:
      factor: divisor of the lowest frequencies.
      low_freq_factor: frequencies with at most this many turns in the original context
        are divided by the full factor.
      high_freq_factor: frequencies with at least this many turns are kept.
      original_max_position_embeddings: tokens of the context before scaling.

    Raises:
      ValueError: a value is not > 0 and finite, or low_freq_factor is not below
        high_freq_factor.
    """

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __post_init__(self) -> None:
        _check(self, *(field.name for field in fields(self)))
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor must be below high_freq_factor "
                f"({self.high_freq_factor}), "
                f"got {self.low_freq_factor}"
            )

    attention_factor = 1.0

    def stretch(self, frequencies: jax.Array, base: float) -> jax.Array:
        """The frequencies [H/2] that replace the given ones."""
        turns = self.original_max_position_embeddings * frequencies / (2 * math.pi)
        keep = (turns - self.low_freq_factor) / (
            self.high_freq_factor - self.low_freq_factor
        )
        keep = jnp.clip(keep, 0.0, 1.0)
        return (1 - keep) * frequencies / self.factor + keep * frequencies


@dataclass(frozen=True)
class YarnScaling:
    """YaRN: a ramp over the dimension pairs, and an attention temperature.

    i(turns) = H ln(original_max_position_embeddings / (2 pi turns)) / (2 ln base)
    r_i = clip((i - i(beta_fast)) / (i(beta_slow) - i(beta_fast)), 0, 1)
    frequency'_i = r_i frequency_i / factor + (1 - r_i) frequency_i

    Cosines and sines are multiplied by `attention_factor`. Source: arXiv 2309.00071,
    section 3.2 and equation 22.

    Attributes:
      factor: how many times longer the context becomes.
      original_max_position_embeddings: tokens of the context before scaling.
      beta_fast: pairs with more turns in that context are kept.
      beta_slow: pairs with fewer turns are divided by the full factor.
      attention_factor: multiplies cosines and sines; None is 0.1 ln(factor) + 1, and
        1 for a factor of at most 1.
      truncate: round the ramp's ends outwards to whole pairs.

    Raises:
      ValueError: a value is not > 0 and finite.

    >>> YarnScaling(4.0, 8192).attention_factor
    1.138629436111989
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None
    truncate: bool = True

    def __post_init__(self) -> None:
        if self.attention_factor is None:
            _check(self, "factor")
            warmer = 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0
            object.__setattr__(self, "attention_factor", warmer)
        names = (field.name for field in fields(self) if field.name != "truncate")
        _check(self, *names)

    def stretch(self, frequencies: jax.Array, base: float) -> jax.Array:
        """The frequencies [H/2] that replace the given ones."""
        head_dim = 2 * frequencies.shape[0]

        def pair_of(turns: float) -> float:
            waves = math.log(
                self.original_max_position_embeddings / (2 * math.pi * turns)
            )
            return head_dim * waves / (2 * math.log(base))

        low, high = pair_of(self.beta_fast), pair_of(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        # The upper bound is that of the public implementations: H - 1, although there
        # are only H/2 pairs.
        low, high = max(low, 0), min(high, head_dim - 1)
        width = high - low or 0.001
        pairs = jnp.arange(head_dim // 2, dtype=jnp.float32)
        slowed = jnp.clip((pairs - low) / width, 0.0, 1.0)
        return slowed * frequencies / self.factor + (1 - slowed) * frequencies


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling
