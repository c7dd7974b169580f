"""The plain sampler against slots that refill, in tokens per second.

    python experiments/benchmarks/rollout.py
    python experiments/benchmarks/rollout.py --prompts 4 --max-new-tokens 32
    python experiments/benchmarks/rollout.py --slots 32 64 128 --cache-dtypes int8

A random model of SmolLM2's 135M shape answers P prompts of mixed lengths with G samples
each. Its EOS token gets a bias with which a response ends at each token with chance
1/`mean_length`, so lengths are spread as natural ones are. All samplers draw the same
tokens (a narrow cache may draw others), take turns, and the best run of each counts.

"Of peak" is tokens per second times 2 FLOP per parameter, over the best float32
matrix product of this process; the ratio is to the plain sampler. On a machine that
other work shares, wall time says little: the last column is the ratio in CPU seconds.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

# Run as a script, this file's folder is on the path, not the root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from experiments.benchmarks.throughput import SHAPES, matrix_peak
from jaxrl_reason.models import Transformer, TransformerConfig, init_params
from jaxrl_reason.sampler import (
    BatchSettings,
    SamplingSettings,
    make_batch_sampler,
    make_sampler,
    sampling_keys,
)

END = 2


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      shape: model, "135m" or "tiny".
      prompts: P.
      samples: G.
      max_new_tokens: the limit of a response.
      mean_length: what responses would average without the limit.
      prompt_widths: buckets; prompts have every length up to the last.
      slots: slot counts to try.
      slots_per_group: slots that share a prompt's cache, to try.
      shrink: fractions of the slots that a run shrinks to at its end.
      cache_lengths: response columns of the cache while all responses are short.
      cache_dtypes: cache types to try.
      repeats: turns, of which the best counts.
      json: where to write the rows, if anywhere.
    """

    shape: str = "135m"
    prompts: int = 32
    samples: int = 8
    max_new_tokens: int = 128
    mean_length: float = 36.0
    prompt_widths: tuple[int, ...] = (32, 64)
    slots: tuple[int, ...] = (64,)
    slots_per_group: tuple[int, ...] = (1,)
    shrink: tuple[float, ...] = (0.75, 0.5, 0.375, 0.25, 0.125)
    cache_lengths: tuple[int, ...] = (32, 64)
    cache_dtypes: tuple[str, ...] = ("float32", "int8")
    repeats: int = 2
    json: Path | None = None


@dataclass
class Row:
    """One sampler's figures."""

    name: str
    seconds: float
    cpu_seconds: float
    tokens: int
    of_peak: float = 0.0
    ratio: float = 1.0
    cpu_ratio: float = 1.0

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def samplers(
    options: Options, config: TransformerConfig
) -> dict[str, Callable[[], Any]]:
    """What to time, by name; the plain sampler first."""
    model = Transformer(config)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    # The random model's chances are near equal, so this is the wanted fraction's logit.
    bias = float(np.log(config.vocab_size / (options.mean_length - 1)))
    settings = SamplingSettings(
        options.max_new_tokens, (END,), logit_bias=((END, bias),)
    )
    width = options.prompt_widths[-1]
    lengths = 1 + np.arange(options.prompts) * (width - 1) // max(1, options.prompts)
    tokens = np.asarray(
        jax.random.randint(
            jax.random.key(1), (options.prompts, width), 0, config.vocab_size
        )
    )
    keys = sampling_keys(0, 0, jnp.arange(options.prompts), options.samples)
    made: dict[str, Any] = {"plain": make_sampler(model, settings, options.samples)}
    for slots in options.slots:
        for group in options.slots_per_group:
            for dtype in options.cache_dtypes:
                fewer = {int(part * slots) // group * group for part in options.shrink}
                batch = BatchSettings(
                    slots,
                    options.prompt_widths,
                    slots_per_group=group,
                    shrink_to=tuple(sorted(fewer - {0, slots}, reverse=True)),
                    cache_lengths=options.cache_lengths,
                    cache_dtype=dtype,
                )
                name = f"{slots} slots, groups of {group}, {dtype}"
                made[name] = make_batch_sampler(model, settings, options.samples, batch)
                made[name].warm_up(params, keys)
    return {
        name: partial(sampler, params, tokens, lengths, keys)
        for name, sampler in made.items()
    }


def timed(name: str, run: Callable[[], Any]) -> Row:
    """One turn."""
    start, cpu = time.perf_counter(), time.process_time()
    got = jax.block_until_ready(run())
    return Row(
        name,
        time.perf_counter() - start,
        time.process_time() - cpu,
        int(np.sum(got.lengths)),
    )


def measure(options: Options) -> list[Row]:
    """Let all samplers take turns; keep each one's best."""
    config = SHAPES[options.shape].model
    runs = samplers(options, config)
    jax.block_until_ready(runs["plain"]())
    best: dict[str, Row] = {}
    peak = matrix_peak(3)
    for _ in range(options.repeats):
        for name, run in runs.items():
            row = timed(name, run)
            held = best.setdefault(name, row)
            held.seconds = min(held.seconds, row.seconds)
            held.cpu_seconds = min(held.cpu_seconds, row.cpu_seconds)
        peak = max(peak, matrix_peak(3))
    model = Transformer(config)
    abstract = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    size = sum(x.size for x in jax.tree.leaves(abstract))
    plain = best["plain"]
    for row in best.values():
        row.of_peak = row.rate * 2 * size / 1e9 / peak
        row.ratio = row.rate / plain.rate
        spent = row.cpu_seconds / row.tokens
        row.cpu_ratio = plain.cpu_seconds / plain.tokens / spent
    return list(best.values())


def show(console: Console, rows: list[Row]) -> None:
    """Print the rows as a table."""
    table = Table(box=None)
    table.add_column("sampler", no_wrap=True)
    for column in ("tokens", "tokens/s", "of peak", "ratio", "ratio, CPU"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.name,
            f"{row.tokens:,}",
            f"{row.rate:,.0f}",
            f"{row.of_peak:.0%}",
            f"{row.ratio:.2f}",
            f"{row.cpu_ratio:.2f}",
        )
    console.print(table)


def main(options: Options) -> list[Row]:
    """Measure, print, and write what was asked for."""
    rows = measure(options)
    show(Console(), rows)
    if options.json is not None:
        text = json.dumps([asdict(row) for row in rows], indent=2)
        options.json.write_text(text + "\n")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
