"""What to sample, and what comes back."""

from dataclasses import dataclass

import flax.struct
import jax


@dataclass(frozen=True)
class SamplingSettings:
    """How responses are drawn.

    The filters apply in the order top-k, top-p, min-p, each to what the last one left.

    Args:
        max_new_tokens: the longest response T, its end token included.
        end_tokens: ids that end a response; several are allowed, none is too.
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the fewest most likely tokens with at least this mass; 1 keeps all.
        min_p: keep tokens at least this share as likely as the likeliest; 0 keeps all.

    Raises:
        ValueError: a value breaks a rule; the message names field, rule and value.
    """

    max_new_tokens: int
    end_tokens: tuple[int, ...]
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be >= 1, got {self.max_new_tokens}")
        if any(token < 0 for token in self.end_tokens):
            raise ValueError(f"end_tokens must be >= 0, got {self.end_tokens}")
        if not 0 <= self.temperature < float("inf"):
            raise ValueError(
                f"temperature must be >= 0 and finite, got {self.temperature}"
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be from 0 to 1, got {self.min_p}")


@flax.struct.dataclass
class Completions:
    """Sampled responses; row p*G + g is sample g of prompt p.

    Args:
        tokens: [B, T] int32, the end token included, 0 after it. Only `lengths` says
            where a response ends: 0 may also be a token.
        logprobs: [B, T] float32, log-probability of each token under the tempered,
            unfiltered distribution (greedy: temperature 1); 0 after the end.
        lengths: [B] int32, tokens of each response, the end token included.
        truncated: [B] bool, True where the limit stopped the response.
    """

    tokens: jax.Array
    logprobs: jax.Array
    lengths: jax.Array
    truncated: jax.Array
