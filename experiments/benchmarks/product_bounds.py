"""How long a rollout would take if it were nothing but its matrix products."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments.benchmarks.throughput import best_seconds
from jaxrl_reason.models import TransformerConfig
from jaxrl_reason.sampler.prompts import PREFILL_TOKENS

ROWS = (1, 4, 8)  # measured beside the multiples of 16


def products_seconds(
    config: TransformerConfig, rows: int, repeats: int, *, with_head: bool = True
) -> float:
    """Seconds of a step of `rows` tokens that is nothing but its matrix products.

    Every layer has weights of its own, as in a model, so they come from memory. A
    prefill's has no head.
    """
    c, key = config, jax.random.key(0)
    queries, shared = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    shapes = {
        "qkv": (c.hidden_size, queries + 2 * shared),
        "o": (queries, c.hidden_size),
        "gate": (c.hidden_size, c.mlp_dim),
        "up": (c.hidden_size, c.mlp_dim),
        "down": (c.mlp_dim, c.hidden_size),
    }
    layers = [
        {name: jax.random.normal(key, shape) * 0.01 for name, shape in shapes.items()}
        for _ in range(c.num_layers)
    ]
    head = jax.random.normal(key, (c.hidden_size, c.vocab_size)) * 0.01
    x = jax.random.normal(key, (rows, c.hidden_size))

    @jax.jit
    def step(layers: Any, head: jax.Array, x: jax.Array) -> jax.Array:
        for layer in layers:
            x = (x @ layer["qkv"])[:, :queries] @ layer["o"]
            x = (x @ layer["gate"] + x @ layer["up"]) @ layer["down"]
        return x @ head if with_head else x

    return best_seconds(lambda: step(layers, head, x), repeats)


def active_rows(lengths: Sequence[int], slots: int) -> np.ndarray:
    """Sequences that draw at each step, when slots are filled as soon as they end.

    A sequence of n tokens takes n - 1 steps: its first token is drawn from its prompt.

    >>> active_rows([4, 2, 3], slots=2)
    array([2, 2, 2])
    >>> active_rows([4, 2, 3], slots=3)
    array([3, 2, 1])
    """
    free, change = [0] * slots, np.zeros(sum(lengths) + 1, int)
    for length in lengths:
        start = heapq.heappop(free)
        heapq.heappush(free, start + length - 1)
        change[start] += 1
        change[start + length - 1] -= 1
    rows = np.cumsum(change)
    return rows[rows > 0]


@dataclass(frozen=True)
class ProductBounds:
    """Measured seconds of bare products.

    Attributes:
      rows: ascending row counts that were measured.
      seconds: of a decode step of each.
      prompt_seconds: of one prompt token.
      best_flop_per_second: of the best product there is.
    """

    rows: tuple[int, ...]
    seconds: tuple[float, ...]
    prompt_seconds: float
    best_flop_per_second: float

    @classmethod
    def measured(
        cls,
        config: TransformerConfig,
        most: int,
        best_flop_per_second: float,
        say: Callable[[str], None],
    ) -> "ProductBounds":
        """Measure decode steps of up to `most` rows."""
        rows = tuple(sorted({n for n in (*ROWS, *range(16, most, 16), most)}))
        say(f"bare products of {len(rows)} row counts up to {most}")
        seconds = tuple(products_seconds(config, n, 5) for n in rows)
        prefill = products_seconds(config, PREFILL_TOKENS, 5, with_head=False)
        return cls(rows, seconds, prefill / PREFILL_TOKENS, best_flop_per_second)

    def step(self, rows: int | np.ndarray) -> Any:
        """Seconds of a decode step of `rows` rows, interpolated."""
        return np.interp(rows, self.rows, self.seconds)

    def full(self, lengths: np.ndarray, rows: int) -> float:
        """Seconds of all tokens, each as its part of a step of `rows` rows."""
        return float(lengths.sum()) * float(self.step(rows)) / rows

    def active(self, lengths: np.ndarray, slots: int) -> float:
        """Seconds of all steps, each of as many rows as sequences are active in it."""
        rows = active_rows(lengths.reshape(-1).tolist(), slots)
        return float(np.sum(self.step(rows)))

    def attention(
        self, config: TransformerConfig, prompts: np.ndarray, lengths: np.ndarray
    ) -> float:
        """Seconds of attention's products of [P, G] responses, at the best rate.

        Scores and sums of values are 4 FLOP per head, number and column; a token of a
        response sees its prompt [P], itself and what came before. Its first token is
        drawn from the prompt, whose own attention is left out.
        """
        steps = lengths - 1
        columns = steps * prompts[:, None] + steps * (steps + 1) / 2
        each = 4 * config.num_heads * config.head_dim * config.num_layers
        return float(columns.sum()) * each / self.best_flop_per_second

    def prompts(self, tokens: int) -> float:
        """Seconds of reading prompt tokens once."""
        return tokens * self.prompt_seconds
