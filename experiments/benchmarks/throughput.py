"""How fast this machine samples and trains, beside how fast it multiplies matrices.

    python experiments/benchmarks/throughput.py
    python experiments/benchmarks/throughput.py --shapes tiny --dtypes float32
    python experiments/benchmarks/throughput.py --json throughput.json

A rollout is `make_sampler` with no EOS token, so every response has its full length; a
training step is forward, `chunked_logprobs`, backward and AdamW. Tokens per second
count sampled tokens or trained tokens. FLOP per second count the model's own products
once (2 per matrix parameter and token forward, three times that in training, and
attention over the mean context), so what is recomputed lowers the figure. The fraction
is of the best float32 matrix product of this process, measured beside each row, also
for bfloat16.

On a CPU the first touch of memory counts: with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in
the environment large buffers are mapped in large pages.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import tyro
from rich.console import Console
from rich.table import Table

# Run as a script, this file's folder is on the path, not the root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jaxrl_reason.losses import chunked_logprobs
from jaxrl_reason.models import (
    Transformer,
    TransformerConfig,
    abstract_params,
    init_params,
    unembedding,
)
from jaxrl_reason.sampler import SamplingSettings, make_sampler, sampling_keys


@dataclass(frozen=True)
class Shape:
    """One model with its rollout (P prompts, G samples) and training batch."""

    model: TransformerConfig
    prompts: int
    samples: int
    prompt_width: int
    new_tokens: int
    rows: int
    row_width: int


SHAPES = {
    "tiny": Shape(
        TransformerConfig(
            vocab_size=66,
            hidden_size=128,
            num_layers=3,
            num_heads=4,
            num_kv_heads=4,
            head_dim=32,
            mlp_dim=384,
            context_length=128,
        ),
        prompts=32,
        samples=16,
        prompt_width=8,
        new_tokens=90,
        rows=32,
        row_width=96,
    ),
    "135m": Shape(
        TransformerConfig(
            vocab_size=49152,
            hidden_size=576,
            num_layers=30,
            num_heads=9,
            num_kv_heads=3,
            head_dim=64,
            mlp_dim=1536,
            context_length=2048,
        ),
        prompts=8,
        samples=8,
        prompt_width=64,
        new_tokens=64,
        rows=4,
        row_width=256,
    ),
}


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      shapes: of "tiny" and "135m".
      dtypes: compute types, of "float32" and "bfloat16".
      remats: policies of the training step, of "none", "full" and "dots".
      work: of "rollout" and "training".
      repeats: runs of each, of which the best counts.
      json: where to write the rows, if anywhere.
    """

    shapes: tuple[str, ...] = ("tiny", "135m")
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    remats: tuple[str, ...] = ("none", "full")
    work: tuple[str, ...] = ("rollout", "training")
    repeats: int = 5
    json: Path | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.shapes if name not in SHAPES]
        if unknown:
            raise ValueError(f"shapes must be of {list(SHAPES)}, got {unknown}")
        unknown = [name for name in self.work if name not in ("rollout", "training")]
        if unknown:
            raise ValueError(f"work must be of rollout and training, got {unknown}")
        if self.repeats < 1:
            raise ValueError(f"repeats must be >= 1, got {self.repeats}")


@dataclass(frozen=True)
class Row:
    """One measured figure."""

    shape: str
    work: str
    dtype: str
    remat: str
    tokens_per_second: float
    milliseconds: float  # a decode step or a training step
    gflop_per_second: float
    peak_gflop_per_second: float
    of_peak: float


def best_seconds(run: Callable[[], Any], repeats: int) -> float:
    """The fastest of several runs, after one that compiles."""
    jax.block_until_ready(run())
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        found.append(time.perf_counter() - start)
    return min(found)


def matrix_peak(repeats: int, size: int = 2048) -> float:
    """GFLOP per second of the largest float32 product this process manages."""
    x = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(lambda x: x @ x)
    return 2 * size**3 / best_seconds(lambda: multiply(x), repeats) / 1e9


def forward_flops(config: TransformerConfig, context: float) -> float:
    """FLOP of one token's forward pass with a mean context of so many columns."""
    sizes = [x.size for x in jax.tree.leaves(abstract_params(Transformer(config)))]
    matrices = sum(sizes)  # Norms are a thousandth; a tied embedding counts as head.
    if not config.tie_embeddings:
        matrices -= config.vocab_size * config.hidden_size
    attention = 2 * config.num_layers * config.num_heads * config.head_dim * context
    return 2.0 * (matrices + attention)


def rollout(shape: Shape, config: TransformerConfig) -> tuple[Callable[[], Any], float]:
    """A rollout to time, and its FLOP per sampled token."""
    model = Transformer(config)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    settings = SamplingSettings(shape.new_tokens, eos_token_ids=())
    sampler = make_sampler(model, settings, shape.samples)
    tokens = jnp.ones((shape.prompts, shape.prompt_width), jnp.int32)
    lengths = jnp.full(shape.prompts, shape.prompt_width)
    keys = sampling_keys(0, 0, jnp.arange(shape.prompts), shape.samples)
    flops = forward_flops(config, shape.prompt_width + shape.new_tokens / 2)
    return lambda: sampler(params, tokens, lengths, keys), flops


def training(
    shape: Shape, config: TransformerConfig
) -> tuple[Callable[[], Any], float]:
    """A training step to time, and its FLOP per trained token."""
    model, optimizer = Transformer(config), optax.adamw(1e-6)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    size = (shape.rows, shape.row_width)
    tokens = jax.random.randint(jax.random.key(1), size, 0, config.vocab_size)
    positions = jnp.broadcast_to(jnp.arange(shape.row_width)[None], size)

    def loss(params: Any) -> jax.Array:
        hidden = model.apply(
            {"params": params}, tokens, positions, jnp.ones_like(tokens)
        )
        targets = jnp.roll(tokens, -1, axis=1)
        logprobs, _ = chunked_logprobs(hidden, unembedding(model, params), targets)
        return -jnp.mean(logprobs)

    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    compiled = jax.jit(step, donate_argnums=(0, 1))
    held = [(params, optimizer.init(params))]

    def run() -> Any:
        held[0] = compiled(*held[0])
        return held[0]

    return run, 3 * forward_flops(config, shape.row_width / 2)


def measure(name: str, work: str, dtype: str, remat: str, repeats: int) -> Row:
    """Time one combination."""
    shape = SHAPES[name]
    config = replace(shape.model, dtype=dtype, remat=remat)
    if work == "rollout":
        run, flops = rollout(shape, config)
        steps = shape.new_tokens
        tokens = shape.prompts * shape.samples * steps
    else:
        run, flops = training(shape, config)
        steps, tokens = 1, shape.rows * shape.row_width
    # The machine may be shared: its peak is taken on both sides of the run.
    peak = matrix_peak(repeats)
    seconds = best_seconds(run, repeats)
    peak = max(peak, matrix_peak(repeats))
    rate = tokens / seconds * flops / 1e9
    return Row(
        shape=name,
        work=work,
        dtype=dtype,
        remat=remat if work == "training" else "",
        tokens_per_second=tokens / seconds,
        milliseconds=seconds / steps * 1e3,
        gflop_per_second=rate,
        peak_gflop_per_second=peak,
        of_peak=rate / peak,
    )


def show(console: Console, rows: list[Row]) -> None:
    """Print the rows as a table."""
    table = Table(box=None)
    for column in ("shape", "work", "dtype", "remat"):
        table.add_column(column, no_wrap=True)
    for column in ("tokens/s", "ms/step", "GFLOP/s", "peak", "of peak"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.shape,
            row.work,
            row.dtype,
            row.remat,
            f"{row.tokens_per_second:,.0f}",
            f"{row.milliseconds:.1f}",
            f"{row.gflop_per_second:.0f}",
            f"{row.peak_gflop_per_second:.0f}",
            f"{row.of_peak:.0%}",
        )
    console.print(table)


def main(options: Options) -> list[Row]:
    """Measure, print, and write what was asked for."""
    console, rows = Console(), []
    for name in options.shapes:
        for dtype in options.dtypes:
            for work in options.work:
                for remat in options.remats if work == "training" else ("none",):
                    console.print(f"{name} {work} {dtype} {remat} ...", style="dim")
                    rows.append(measure(name, work, dtype, remat, options.repeats))
    show(console, rows)
    if options.json is not None:
        text = json.dumps([asdict(row) for row in rows], indent=2)
        options.json.write_text(text + "\n")
    return rows


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
