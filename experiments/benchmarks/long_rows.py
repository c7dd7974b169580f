"""Attention in blocks against plain attention: time and memory over a row's length.

    python experiments/benchmarks/long_rows.py
    python experiments/benchmarks/long_rows.py --sizes 256 1024 --json attention.json

A forward and backward pass of one layer's attention, by default with the heads of
SmolLM2-135M, over the same number of tokens at every length: longer rows are fewer.
Rows are one sequence each, then packed with sequences of 300 tokens, whose blocks need
not see each other. Both ways run in one process and take turns; the ratio is the median
over pairs of turns. Memory is what the compiled program allocates besides its arguments
and results.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

# Run as a script, this file's folder is on the path, not the one two above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jaxrl_reason.models.attention import NO_WINDOW, Columns, plain_attention
from jaxrl_reason.models.chunked_attention import chunked_attention

WAYS: dict[str, Callable[..., jax.Array]] = {
    "plain": plain_attention,
    "chunked": chunked_attention,
}


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      sizes: columns S of a row, each a divisor of the tokens.
      plain_up_to: the longest row for which the plain way runs, whose memory grows with
        S; longer ones are measured in blocks only.
      tokens: B * S.
      num_heads: N.
      num_kv_heads: K.
      head_dim: H.
      packed: tokens of a sequence in packed rows.
      repeats: timed turns of each way.
      json: where to write the figures, if anywhere.
    """

    sizes: tuple[int, ...] = (256, 512, 1024, 2048, 4096, 8192, 16384)
    plain_up_to: int = 4096
    tokens: int = 16384
    num_heads: int = 9
    num_kv_heads: int = 3
    head_dim: int = 64
    packed: int = 300
    repeats: int = 3
    json: Path | None = None

    def __post_init__(self) -> None:
        for size in self.sizes:
            if size < 1 or self.tokens % size:
                raise ValueError(f"sizes must divide {self.tokens} tokens, got {size}")
        if self.repeats < 1:
            raise ValueError(f"repeats must be >= 1, got {self.repeats}")


@dataclass(frozen=True)
class Row:
    """Figures of one length and one kind of rows."""

    size: int
    rows: str  # "one sequence" or "packed"
    chunked_s: float  # median
    plain_s: float | None
    ratio: float | None  # plain / chunked, of a pair of turns
    chunked_mb: float
    plain_mb: float | None


def arguments_of(options: Options, size: int, length: int) -> tuple[Any, ...]:
    """q, k, v and the columns of rows that hold sequences of one length."""
    rng, batch = np.random.default_rng(0), options.tokens // size

    def heads(number: int) -> jax.Array:
        x = rng.standard_normal((batch, size, number, options.head_dim))
        return jnp.asarray(x.astype(np.float32))

    places = np.broadcast_to(np.arange(size, dtype=np.int32), (batch, size))
    found = (places, 1 + places // length, places % length, 0 * places)
    columns = Columns(*map(jnp.asarray, found))
    q, k, v = map(heads, (options.num_heads, *[options.num_kv_heads] * 2))
    return q, k, v, columns


def compiled(way: str, given: tuple[Any, ...]) -> Any:
    """The compiled value and gradients of a sum over one way's results."""

    def total(q: jax.Array, k: jax.Array, v: jax.Array, columns: Columns) -> jax.Array:
        x = WAYS[way](q, k, v, columns, columns, jnp.int32(NO_WINDOW))
        return jnp.sum(jnp.sin(x))

    return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2))).lower(*given).compile()


def measure(options: Options, size: int, length: int, rows: str) -> Row:
    """Both ways in turns; the first turn of each warms up."""
    given = arguments_of(options, size, length)
    ways = [way for way in WAYS if way == "chunked" or size <= options.plain_up_to]
    steps = {way: compiled(way, given) for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.repeats + 1):
        for way, step in steps.items():
            start = time.perf_counter()
            jax.block_until_ready(step(*given))
            seconds[way].append(time.perf_counter() - start)
    timed = {way: found[1:] for way, found in seconds.items()}
    held = {
        way: step.memory_analysis().temp_size_in_bytes / 1e6
        for way, step in steps.items()
    }
    plain = timed.get("plain")
    ratios = [p / c for p, c in zip(plain or [], timed["chunked"], strict=False)]
    return Row(
        size=size,
        rows=rows,
        chunked_s=statistics.median(timed["chunked"]),
        plain_s=statistics.median(plain) if plain else None,
        ratio=statistics.median(ratios) if ratios else None,
        chunked_mb=held["chunked"],
        plain_mb=held.get("plain"),
    )


def table(rows: list[Row]) -> Table:
    """The figures as a table."""
    shown = Table("S", "rows", "chunked s", "plain s", "plain / chunked", "MB", "plain")
    for row in rows:
        numbers = (row.chunked_s, row.plain_s, row.ratio, row.chunked_mb, row.plain_mb)
        cells = ["" if x is None else f"{x:.3g}" for x in numbers]
        shown.add_row(str(row.size), row.rows, *cells)
    return shown


def main(options: Options) -> None:
    """Measures, prints and, if asked, writes the figures."""
    cases = [
        (size, length, rows)
        for rows, length in (("one sequence", 0), ("packed", options.packed))
        for size in options.sizes
    ]
    found = [
        measure(options, size, length or size, rows)
        for size, length, rows in track(cases, description="lengths")
    ]
    Console(width=100).print(table(found))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in found], indent=2))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
