"""What `chunked_logprobs` saves in memory and costs in time, against all the logits.

    python experiments/benchmarks/chunked_logprobs.py
    python experiments/benchmarks/chunked_logprobs.py --length 256 --repeats 5
    python experiments/benchmarks/chunked_logprobs.py --json chunked.json

The plain way is logits = hidden @ unembed, log_softmax, the chosen token's entry and
the entropy, under `jax.grad`. Both ways give log-probs, entropies and the gradients of
a random linear function of them in `hidden` and `unembed`. The default shape is the
head of a 0.5B model with a vocabulary of 151 936 on 4 sequences of 2048 tokens, for
which the plain way takes 21 GB.

Each way runs in a separate process, so that their memory does not mix, and the
processes take turns: plain, chunked, plain, chunked. The first turn of each warms up
and is not timed. Memory is given twice: what the compiled program allocates besides its
arguments, and by how much the process's resident memory really grew at its peak (read
from /proc, so on Linux only). Seconds are medians; the ratio is the median of the ratio
of each pair of turns, which a machine shared with other work disturbs least. Processor
seconds, summed over the threads, say what a busy machine hides.
"""

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console
from rich.table import Table

# Run as a script, this file's folder is on the path, not the root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from jaxrl_reason.losses import chunked_logprobs

WAYS = ("plain", "chunked")
# hidden, unembed, tokens -> log-probs, entropies
Function = Callable[..., tuple[jax.Array, jax.Array]]


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      batch: sequences B.
      length: tokens T of a sequence.
      hidden_size: D.
      vocab: V.
      dtype: of hidden states and unembedding, "float32" or "bfloat16".
      chunk_size: of `chunked_logprobs`.
      repeats: timed turns of each way.
      json: where to write the figures, if anywhere.
    """

    batch: int = 4
    length: int = 2048
    hidden_size: int = 896
    vocab: int = 151_936
    dtype: str = "float32"
    chunk_size: int = 1024
    repeats: int = 3
    json: Path | None = None

    def __post_init__(self) -> None:
        for name in (
            "batch",
            "length",
            "hidden_size",
            "vocab",
            "chunk_size",
            "repeats",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.dtype not in ("float32", "bfloat16"):
            raise ValueError(f"dtype must be float32 or bfloat16, got {self.dtype!r}")


@dataclass(frozen=True)
class Turn:
    """One run of one way."""

    seconds: float
    cpu_seconds: float
    resident_bytes: int | None  # growth of the process at its peak; None off Linux
    checks: tuple[float, ...]  # the same for every way: loss and gradient norms


@dataclass(frozen=True)
class Row:
    """One way's figures."""

    way: str
    seconds: float  # median of the timed turns
    all_seconds: tuple[float, ...]
    cpu_seconds: float  # median, of all threads together
    compiled_gb: float  # temporaries and results of the compiled program
    resident_gb: float | None  # largest growth of any turn


@dataclass(frozen=True)
class Report:
    """Everything that was measured."""

    options: dict[str, Any]
    rows: tuple[Row, ...]
    time_ratio: float  # chunked / plain
    cpu_ratio: float
    time_ratios: tuple[float, ...]  # of each pair of turns
    compiled_memory_ratio: float  # plain / chunked
    resident_memory_ratio: float | None
    largest_difference: float  # relative, of the checks


def plain_logprobs(
    hidden: jax.Array, unembed: jax.Array, tokens: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Log-probs and entropies with all logits at once."""
    logits = jnp.matmul(hidden, unembed, preferred_element_type=jnp.float32)
    log_p = jax.nn.log_softmax(logits)
    logprobs = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
    return logprobs, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def compiled_step(options: Options, way: str) -> tuple[Any, tuple[jax.Array, ...]]:
    """The compiled forward and backward pass of one way, and its arguments."""
    in_chunks = partial(chunked_logprobs, chunk_size=options.chunk_size)
    function: Function = plain_logprobs if way == "plain" else in_chunks

    def loss(
        hidden: jax.Array, unembed: jax.Array, tokens: jax.Array, pulls: jax.Array
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        found = function(hidden, unembed, tokens)
        return jnp.sum(pulls * jnp.stack(found)), found

    @jax.jit
    def arguments() -> tuple[jax.Array, ...]:
        keys = jax.random.split(jax.random.key(0), 4)
        rows = (options.batch, options.length)
        hidden = jax.random.normal(keys[0], (*rows, options.hidden_size), options.dtype)
        shape = (options.hidden_size, options.vocab)
        unembed = jax.random.normal(keys[1], shape, options.dtype)
        unembed *= options.hidden_size**-0.5
        tokens = jax.random.randint(keys[2], rows, 0, options.vocab)
        return hidden, unembed, tokens, jax.random.normal(keys[3], (2, *rows))

    made = jax.block_until_ready(arguments())
    step = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    return step.lower(*made).compile(), made


# What a child process holds between its turns.
_HELD: list[Any] = []


def prepare(options: Options, way: str) -> None:
    """In a child process: compiles its way."""
    _HELD[:] = compiled_step(options, way)


def compiled_bytes() -> int:
    """In a child process: what its program allocates besides the arguments."""
    memory = _HELD[0].memory_analysis()
    return memory.temp_size_in_bytes + memory.output_size_in_bytes


def turn() -> Turn:
    """In a child process: one run."""
    step, arguments = _HELD
    before = reset_peak()
    start, cpu_start = time.perf_counter(), time.process_time()
    (loss, _), grads = jax.block_until_ready(step(*arguments))
    seconds = time.perf_counter() - start
    cpu_seconds = time.process_time() - cpu_start
    grown = None if before is None else status_bytes("VmHWM") - before
    norms = (float(jnp.linalg.norm(x.astype(jnp.float32))) for x in grads)
    return Turn(seconds, cpu_seconds, grown, (float(loss), *norms))


def reset_peak() -> int | None:
    """Forgets the peak of the resident memory; returns the memory held now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return status_bytes("VmRSS")
    except OSError:
        return None


def status_bytes(name: str) -> int:
    """An entry of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def take_turns(
    options: Options, note: Callable[[str], None]
) -> tuple[dict[str, int], dict[str, list[Turn]]]:
    """Runs both ways in turn; bytes of the program and turns, the first to warm up."""
    turns: dict[str, list[Turn]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        pools = {
            way: stack.enter_context(
                ProcessPoolExecutor(
                    1,
                    multiprocessing.get_context("spawn"),
                    initializer=prepare,
                    initargs=(options, way),
                )
            )
            for way in WAYS
        }
        sizes = {way: pools[way].submit(compiled_bytes).result() for way in WAYS}
        for i in range(options.repeats + 1):
            for way in WAYS:
                turns[way].append(pools[way].submit(turn).result())
                last = turns[way][-1]
                note(f"turn {i} {way}: {last.seconds:.2f} s, {last.cpu_seconds:.2f} s")
    return sizes, turns


def measure(options: Options, note: Callable[[str], None]) -> Report:
    """All figures of one shape."""
    sizes, turns = take_turns(options, note)
    rows = {}
    for way in WAYS:
        seconds = tuple(t.seconds for t in turns[way][1:])
        grown = [t.resident_bytes for t in turns[way] if t.resident_bytes is not None]
        rows[way] = Row(
            way=way,
            seconds=statistics.median(seconds),
            all_seconds=seconds,
            cpu_seconds=statistics.median(t.cpu_seconds for t in turns[way][1:]),
            compiled_gb=sizes[way] / 1e9,
            resident_gb=max(grown) / 1e9 if grown else None,
        )
    plain, chunked = rows["plain"], rows["chunked"]
    ratios = tuple(
        b / a for a, b in zip(plain.all_seconds, chunked.all_seconds, strict=True)
    )
    resident = None
    if plain.resident_gb is not None and chunked.resident_gb is not None:
        resident = plain.resident_gb / chunked.resident_gb
    checks = zip(turns["plain"][0].checks, turns["chunked"][0].checks, strict=True)
    return Report(
        options={**asdict(options), "json": None},
        rows=(plain, chunked),
        time_ratio=statistics.median(ratios),
        time_ratios=ratios,
        cpu_ratio=chunked.cpu_seconds / plain.cpu_seconds,
        compiled_memory_ratio=plain.compiled_gb / chunked.compiled_gb,
        resident_memory_ratio=resident,
        largest_difference=max(abs(a - b) / abs(a) for a, b in checks),
    )


def show(console: Console, report: Report) -> None:
    """Print the report as a table."""
    table = Table(box=None)
    table.add_column("way", no_wrap=True)
    for column in ("seconds", "processor s", "compiled GB", "resident GB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in report.rows:
        resident = "" if row.resident_gb is None else f"{row.resident_gb:.2f}"
        table.add_row(row.way, f"{row.seconds:.2f}", f"{row.compiled_gb:.2f}", resident)
    console.print(table)
    low_high = f"{min(report.time_ratios):.2f} to {max(report.time_ratios):.2f}"
    console.print(f"time: {report.time_ratio:.2f} times the plain way ({low_high})")
    console.print(f"processor time: {report.cpu_ratio:.2f} times")
    console.print(f"memory, compiled: 1/{report.compiled_memory_ratio:.1f}")
    if report.resident_memory_ratio is not None:
        console.print(f"memory, resident: 1/{report.resident_memory_ratio:.1f}")
    console.print(f"loss and gradient norms differ by {report.largest_difference:.0e}")


def main(options: Options) -> Report:
    """Measure, print, and write what was asked for."""
    console = Console()
    report = measure(options, lambda text: console.print(text, style="dim"))
    show(console, report)
    if options.json is not None:
        options.json.write_text(json.dumps(asdict(report), indent=2) + "\n")
    return report


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
