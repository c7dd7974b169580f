"""Float32 against bfloat16 matrix products on this CPU, under flags of XLA.

    python experiments/benchmarks/bfloat16_on_cpu.py
    python experiments/benchmarks/bfloat16_on_cpu.py --json bfloat16.json

The shapes are those of SmolLM2-135M: a feed-forward product for 32, 256 and 512 tokens,
the head for 256, and a large square one. Each set of flags needs a process of its own,
so the script starts itself once for each. Figures are GFLOP per second of processor
time, which other work on the machine disturbs less than the clock; the best of several
turns. With PyTorch installed its products are measured too.
"""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

SIZES = (
    (32, 576, 1536),
    (256, 576, 1536),
    (512, 576, 1536),
    (256, 576, 49152),
    (2048, 2048, 2048),
)
TURN = 4e9  # FLOP: small products are repeated, or their time would be noise
FLAGS = {
    "as it is": "",
    "oneDNN": "--xla_cpu_use_onednn=true",
    "XNNPACK": "--xla_cpu_use_xnnpack=true",
    "YNNPACK off": "--xla_cpu_experimental_ynn_fusion_type=",
    "vectors of 512 bits": "--xla_cpu_prefer_vector_width=512",
}


def widened(x: jax.Array, w: jax.Array) -> jax.Array:
    """A product of bfloat16 arrays, multiplied as float32."""
    wide: jax.Array = x.astype(jnp.float32) @ w.astype(jnp.float32)
    return wide.astype(jnp.bfloat16)


# Name -> types of both sides, and the product.
FORMS: dict[str, tuple[str, str, Callable[..., jax.Array]]] = {
    "float32": ("float32", "float32", jnp.matmul),
    "bfloat16": ("bfloat16", "bfloat16", jnp.matmul),
    "bfloat16, float32 out": (
        "bfloat16",
        "bfloat16",
        lambda x, w: jnp.matmul(x, w, preferred_element_type=jnp.float32),
    ),
    "float32 x bfloat16 weights": (
        "float32",
        "bfloat16",
        lambda x, w: x @ w.astype(jnp.float32),
    ),
    "bfloat16 widened": ("bfloat16", "bfloat16", widened),
}


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      repeats: turns, of which the best counts.
      json: where to write the rows, if anywhere.
      one: measure in this process, with the flags it was started with, and print
        JSON; for the script itself.
    """

    repeats: int = 8
    json: Path | None = None
    one: bool = False


def rate(multiply: Callable[[], Any], flop: float, repeats: int) -> float:
    """GFLOP per second of processor time, at best."""
    multiply()
    best, calls = float("inf"), max(1, round(TURN / flop))
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(calls):
            multiply()
        best = min(best, (time.process_time() - start) / calls)
    return flop / best / 1e9


def finished(multiply: Callable[..., jax.Array], x: jax.Array, w: jax.Array) -> None:
    """Multiply and wait for the result."""
    jax.block_until_ready(multiply(x, w))


def jax_rates(repeats: int) -> dict[str, list[float]]:
    """Form -> rates at all sizes."""
    found: dict[str, list[float]] = {}
    for name, (left, right, product) in FORMS.items():
        multiply = jax.jit(product)
        found[name] = []
        for m, k, n in SIZES:
            x, w = jnp.ones((m, k), left), jnp.ones((k, n), right)
            turn = partial(finished, multiply, x, w)
            found[name].append(rate(turn, 2 * m * k * n, repeats))
    return found


def torch_rates(repeats: int) -> dict[str, list[float]]:
    """The same of PyTorch, nothing where it is not installed."""
    if importlib.util.find_spec("torch") is None:
        return {}
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(os.cpu_count() or 1)
    found = {}
    for name in ("float32", "bfloat16"):
        dtype, rates = getattr(torch, name), []
        for m, k, n in SIZES:
            x, w = torch.ones(m, k, dtype=dtype), torch.ones(n, k, dtype=dtype)
            multiply = partial(torch.nn.functional.linear, x, w)
            rates.append(rate(multiply, 2 * m * k * n, repeats))
        found[f"PyTorch {name}"] = rates
    return found


def measure(options: Options) -> list[dict[str, Any]]:
    """One row a set of flags and form."""
    rows: list[dict[str, Any]] = []
    command = [sys.executable, __file__, "--one", "--repeats", str(options.repeats)]
    for flags_name, flags in FLAGS.items():
        given = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
        done = subprocess.run(command, env=given, capture_output=True, text=True)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:]
            raise SystemExit(f"error: flags {flags!r} do not run: {' '.join(said)}")
        found = json.loads(done.stdout.splitlines()[-1])
        rows += [
            {"flags": flags_name, "form": form, "rates": rates}
            for form, rates in found.items()
        ]
    others = torch_rates(options.repeats).items()
    return rows + [
        {"flags": "", "form": form, "rates": rates} for form, rates in others
    ]


def show(console: Console, rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table(box=None, title="GFLOP per second of processor time")
    table.add_column("flags", no_wrap=True)
    table.add_column("product", no_wrap=True)
    for size in SIZES:
        table.add_column("x".join(map(str, size)), justify="right", no_wrap=True)
    for row in rows:
        rates = (f"{rate:.0f}" for rate in row["rates"])
        table.add_row(row["flags"], row["form"], *rates)
    console.print(table)


def main(options: Options) -> None:
    """Measure, print, and write what was asked for."""
    if options.one:
        print(json.dumps(jax_rates(options.repeats)))
        return
    rows = measure(options)
    show(Console(width=110), rows)
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
