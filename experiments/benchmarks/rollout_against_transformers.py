"""Our samplers against transformers' generate, in real tokens a second.

    pip install 'jaxrl-reason[benchmarks]'
    python experiments/benchmarks/rollout_against_transformers.py --model MODEL.gguf
    python experiments/benchmarks/rollout_against_transformers.py --model MODEL.gguf \
        --prompts 4 --max-new-tokens 16 --repeats 1

P questions of two-number arithmetic in the model's chat template get G samples each, at
temperature 1, unfiltered, until an end token or the limit. One process holds both
libraries, with the same weights, prompts and end tokens; all take turns after a run
that is not counted, and each one's best run counts. transformers runs `generate` with
its default (dynamic) cache on left-padded prompts, in every type and batch size asked
for, and its continuous batching (`generate_batch`).

Tokens are real ones, up to and with the end token. Shares of the matrix-product peak:
- "of peak": 2 FLOP a parameter and token, over the best float32 matrix product.
- "of products": tokens a second over those which the bare products of one decode step
  (all layers and the head) would give at as many rows as the sampler has slots.

The ratio is to the fastest row of transformers. Where other work shares the machine,
compare "CPU s": the process's seconds on all cores.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
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

from experiments.benchmarks import peers
from experiments.benchmarks.throughput import best_seconds, matrix_peak
from jaxrl_reason.models import Transformer, TransformerConfig, abstract_params
from jaxrl_reason.sampler import (
    BatchSettings,
    SamplingSettings,
    make_batch_sampler,
    make_sampler,
    sampling_keys,
)
from jaxrl_reason.tasks.arithmetic import INSTRUCTION
from jaxrl_reason.training.collect import prompt_batch


@dataclass(frozen=True)
class Options:
    """What to measure.

    Args:
        model: a .gguf file or a Hugging Face folder.
        prompts: P.
        samples: G.
        max_new_tokens: the limit of a response.
        instruction: stands behind each question; it decides how long responses are.
        slots: slot counts of our batch sampler to try.
        lane_width: slots that share a prompt's cache.
        shrink: shares of the slots that a run shrinks to at its end.
        rings: response columns of the cache while all responses are short.
        cache_dtypes: cache types of our batch sampler to try.
        plain: whether our plain sampler takes part.
        torch_dtypes: types of transformers' model to try; none leaves it out.
        torch_batches: responses that `generate` draws at once, to try.
        continuous: whether transformers' continuous batching takes part.
        repeats: turns, of which the best counts.
        seed: of both samplers' draws.
        json: where to write the result, if anywhere.
    """

    model: Path
    prompts: int = 32
    samples: int = 8
    max_new_tokens: int = 128
    instruction: str = INSTRUCTION
    slots: tuple[int, ...] = (128, 256)
    lane_width: int = 2
    shrink: tuple[float, ...] = (0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)
    rings: tuple[int, ...] = (32, 64, 96)
    cache_dtypes: tuple[str, ...] = ("float32",)
    plain: bool = True
    torch_dtypes: tuple[str, ...] = ("float32", "bfloat16")
    torch_batches: tuple[int, ...] = (256, 64)
    continuous: bool = True
    repeats: int = 3
    seed: int = 0
    json: Path | None = None

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "max_new_tokens", "repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        for batch in self.torch_batches:
            if batch < self.samples:
                raise ValueError(
                    f"torch_batches must hold a group ({self.samples}), got {batch}"
                )


@dataclass(frozen=True)
class Turn:
    """One run."""

    seconds: float
    cpu_seconds: float
    lengths: np.ndarray

    @property
    def rate(self) -> float:
        """Real tokens a second."""
        return float(self.lengths.sum()) / self.seconds


@dataclass(frozen=True)
class Runner:
    """One way of drawing all responses: seed -> [B] lengths."""

    name: str
    rows: int
    run: Callable[[int], np.ndarray]
    ours: bool = False


@dataclass
class Row:
    """One runner's figures."""

    name: str
    rows: int
    ours: bool
    rate: float
    cpu_seconds: float
    tokens: int
    mean_length: float
    longest: int
    of_peak: float = 0.0
    of_products: float = 0.0
    ratio: float = 0.0
    rates: list[float] = field(default_factory=list)


def our_runners(options: Options, prompts: Any, ends: tuple[int, ...]) -> list[Runner]:
    """The plain sampler and the batch sampler in every setting asked for."""
    loaded = peers.load_ours(options.model)
    model, params = Transformer(loaded.config), loaded.params
    settings = SamplingSettings(options.max_new_tokens, ends)
    tokens, lengths = prompts
    total = options.prompts * options.samples

    def draw(sampler: Callable[..., Any], seed: int) -> np.ndarray:
        ids = jnp.arange(options.prompts)
        keys = sampling_keys(seed, 0, ids, options.samples)
        done = sampler(params, tokens, lengths, keys)
        return np.asarray(jax.device_get(done).lengths)

    made = []
    if options.plain:
        plain = make_sampler(model, settings, options.samples)
        made.append(Runner("ours, plain", total, partial(draw, plain), True))
    for slots in sorted({min(slots, total) for slots in options.slots}):
        for dtype in options.cache_dtypes:
            lane = options.lane_width
            fewer = {int(share * slots) // lane * lane for share in options.shrink}
            batch = BatchSettings(
                slots,
                (tokens.shape[1],),
                lane_width=lane,
                shrink_to=tuple(sorted(fewer - {0, slots}, reverse=True)),
                rings=tuple(n for n in options.rings if n < options.max_new_tokens),
                cache_dtype=dtype,
            )
            sampler = make_batch_sampler(model, settings, options.samples, batch)
            name = f"ours, {slots} slots, {dtype} cache"
            made.append(Runner(name, slots, partial(draw, sampler), True))
    return made


def their_runners(
    options: Options, prompts: list[list[int]], folder: Path, ends: tuple[int, ...]
) -> list[Runner]:
    """transformers' generate in every type and batch size, and generate_batch."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    pad = AutoTokenizer.from_pretrained(folder).pad_token_id
    how = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_new_tokens=options.max_new_tokens,
        eos_token_id=list(ends),
        pad_token_id=ends[0] if pad is None else pad,
        num_return_sequences=options.samples,
    )
    made = []
    for dtype in options.torch_dtypes:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        ).eval()
        total = options.prompts * options.samples
        for batch in sorted({min(n, total) for n in options.torch_batches}):
            run = partial(generate, model, how, prompts, batch // options.samples)
            made.append(Runner(f"transformers, {dtype}, {batch} rows", batch, run))
        if options.continuous:
            run = partial(generate_continuously, model, how, prompts)
            made.append(Runner(f"transformers, {dtype}, continuous", total, run))
    return made


def generate(
    model: Any, how: Any, prompts: list[list[int]], at_once: int, seed: int
) -> np.ndarray:
    """[B] lengths of what `generate` draws, so many prompts at once."""
    import torch

    torch.manual_seed(seed)
    found = []
    for start in range(0, len(prompts), at_once):
        few = prompts[start : start + at_once]
        tokens, mask = (
            torch.from_numpy(x) for x in peers.padded_left(few, how.pad_token_id)
        )
        with torch.inference_mode():
            out = model.generate(
                input_ids=tokens, attention_mask=mask, generation_config=how
            )
        drawn = out[:, tokens.shape[1] :].numpy()
        found.append(peers.real_lengths(drawn, how.eos_token_id))
    return np.concatenate(found)


def generate_continuously(
    model: Any, how: Any, prompts: list[list[int]], seed: int
) -> np.ndarray:
    """[B] lengths of what `generate_batch` draws."""
    from transformers import ContinuousBatchingConfig

    longest = max(map(len, prompts)) + how.max_new_tokens
    total = len(prompts) * how.num_return_sequences
    page = 64
    settings = ContinuousBatchingConfig(
        page_size=page,
        # Left alone, they follow the memory of the machine.
        num_blocks=total * -(-longest // page),
        max_batch_tokens=max(512, total),
        max_requests_per_batch=total,
        seed=seed,
    )
    out = model.generate_batch(
        prompts, generation_config=how, continuous_batching_config=settings
    )
    if len(out) != total:
        raise RuntimeError(
            f"generate_batch must give {total} responses, got {len(out)}"
        )
    return np.array([len(x.generated_tokens) for x in out.values()])


def products_rate(config: TransformerConfig, rows: int, repeats: int) -> float:
    """Tokens a second of a decode step that were nothing but its matrix products.

    Every layer has weights of its own, as in a model, so they come from memory.
    """
    c, key = config, jax.random.key(0)
    queries, shared = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    shapes = {
        "qkv": (c.width, queries + 2 * shared),
        "o": (queries, c.width),
        "gate": (c.width, c.mlp_width),
        "up": (c.width, c.mlp_width),
        "down": (c.mlp_width, c.width),
    }
    layers = [
        {name: jax.random.normal(key, shape) * 0.01 for name, shape in shapes.items()}
        for _ in range(c.num_layers)
    ]
    head = jax.random.normal(key, (c.width, c.vocab_size)) * 0.01
    x = jax.random.normal(key, (rows, c.width))

    @jax.jit
    def step(layers: Any, head: jax.Array, x: jax.Array) -> jax.Array:
        for layer in layers:
            x = (x @ layer["qkv"])[:, :queries] @ layer["o"]
            x = (x @ layer["gate"] + x @ layer["up"]) @ layer["down"]
        return x @ head

    return rows / best_seconds(lambda: step(layers, head, x), repeats)


def turn(runner: Runner, seed: int) -> Turn:
    """Time one run."""
    start, cpu = time.perf_counter(), time.process_time()
    lengths = runner.run(seed)
    return Turn(time.perf_counter() - start, time.process_time() - cpu, lengths)


def warmed_up(
    runners: list[Runner], seed: int, say: Callable[[str], None]
) -> list[Runner]:
    """The runners that run at all, each after one run that is not counted."""
    able = []
    for runner in runners:
        try:
            say(f"{runner.name}: {turn(runner, seed).seconds:.1f} s to warm up")
        except Exception as error:  # a peer may not run here: say so, go on
            if runner.ours:
                raise
            say(f"{runner.name} does not run here: {error!r}")
        else:
            able.append(runner)
    return able


def measure(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Let all take turns; keep each one's best."""
    asked = peers.questions(options.prompts)
    task = peers.load_task(options.model, options.instruction)
    prompts = [task.prompt_tokens(question) for question in asked]
    width = -(-max(map(len, prompts)) // 8) * 8
    ends = task.end_tokens
    runners = our_runners(options, prompt_batch(task, asked, width), ends)
    with tempfile.TemporaryDirectory() as scratch:
        folder = peers.hugging_face_folder(options.model, Path(scratch, "model"))
        runners += their_runners(options, prompts, folder, ends)
    runners = warmed_up(runners, options.seed, say)
    turns: dict[str, list[Turn]] = {runner.name: [] for runner in runners}
    peak = matrix_peak(3)
    for repeat in range(options.repeats):
        for runner in runners:
            turns[runner.name].append(turn(runner, options.seed + repeat))
            say(f"{runner.name}: {turns[runner.name][-1].rate:.0f} tokens/s")
        peak = max(peak, matrix_peak(3))
    config = peers.load_ours(options.model).config
    counts = {runner.rows for runner in runners}
    products = {rows: products_rate(config, rows, 5) for rows in sorted(counts)}
    rows = table_rows(runners, turns, config, peak, products)
    return {
        "model": options.model.name,
        "peak_gflop_per_second": peak,
        "products_tokens_per_second": products,
        "rows": [asdict(row) for row in rows],
    }


def table_rows(
    runners: list[Runner],
    turns: dict[str, list[Turn]],
    config: TransformerConfig,
    peak: float,
    products: dict[int, float],
) -> list[Row]:
    """Each runner's best turn, set against the peak and against transformers."""
    size = sum(x.size for x in jax.tree.leaves(abstract_params(Transformer(config))))
    best = {name: max(of, key=lambda t: t.rate) for name, of in turns.items()}
    theirs = [best[runner.name].rate for runner in runners if not runner.ours]
    rows = []
    for runner in runners:
        done = best[runner.name]
        rows.append(
            Row(
                name=runner.name,
                rows=runner.rows,
                ours=runner.ours,
                rate=done.rate,
                cpu_seconds=done.cpu_seconds,
                tokens=int(done.lengths.sum()),
                mean_length=float(done.lengths.mean()),
                longest=int(done.lengths.max()),
                of_peak=done.rate * 2 * size / 1e9 / peak,
                of_products=done.rate / products[runner.rows],
                ratio=done.rate / max(theirs) if theirs else 0.0,
                rates=[t.rate for t in turns[runner.name]],
            )
        )
    return rows


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the result."""
    table = Table(box=None)
    table.add_column("sampler", no_wrap=True)
    columns = ("tokens/s", "ratio", "CPU s", "mean length", "of peak", "of products")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["rows"]:
        table.add_row(
            row["name"],
            f"{row['rate']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['mean_length']:.1f}",
            f"{row['of_peak']:.0%}",
            f"{row['of_products']:.0%}",
        )
    console.print(table)
    console.print(
        f"best float32 product: {result['peak_gflop_per_second']:.0f} GFLOP/s"
    )
    for rows, rate in result["products_tokens_per_second"].items():
        console.print(f"bare products of {rows} rows: {rate:,.0f} tokens/s")


def main(options: Options) -> dict[str, Any]:
    """Measure, print, and write what was asked for."""
    if options.torch_dtypes:
        peers.need("torch", "transformers")
    console = peers.wide_console()
    result = measure(options, partial(console.print, style="dim", highlight=False))
    show(console, result)
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return result


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
