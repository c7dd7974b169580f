"""Our samplers against transformers' generate, in real tokens per second.

    pip install 'jaxrl-reason[benchmarks]'
    python experiments/benchmarks/rollout_against_transformers.py --model MODEL.gguf
    python experiments/benchmarks/rollout_against_transformers.py --model MODEL.gguf \
        --prompts 4 --max-new-tokens 16 --repeats 1

P questions of two-number arithmetic in the model's chat template get G samples each, at
temperature 1, unfiltered, until an EOS token or the limit. One process holds both
libraries, with the same weights, prompts and EOS tokens; all take turns after a run
that is not counted, and each one's best run counts. transformers runs `generate` with
its default (dynamic) cache on left-padded prompts, in every type and batch size asked
for, and its continuous batching (`generate_batch`).

Tokens are counted up to and with the EOS token. Fractions of the peak of products:
- "of peak": 2 FLOP per parameter and token, over the best float32 matrix product.
- "of products": the seconds that bare products of the same shapes take, over those of
  the run: those with the weights, and attention's.
- "of weights products": without attention's. They are a decode step's (all layers and
  the head) for every step, with a row for every response that is still drawn in it, and
  a prefill's (all layers) for every prompt token once, where what all prompts begin
  with counts once. Responses are as long as they came out, and slots are filled as soon
  as one ends. Attention's products count at the best float32 product's rate, which
  products of a few rows never have.
- "of full steps": those with the weights, as if no step had fewer rows than the sampler
  has slots.

The ratio is to the fastest row of transformers. Where other work shares the machine,
compare "CPU s": the process's seconds on all cores.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

# Run as a script, this file's folder is on the path, not the root.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from experiments.benchmarks import peers
from experiments.benchmarks.product_bounds import ProductBounds
from experiments.benchmarks.rollout_runners import (
    Options,
    Runner,
    our_runners,
    their_runners,
)
from experiments.benchmarks.throughput import matrix_peak
from jaxrl_reason.models import Transformer, TransformerConfig, abstract_params
from jaxrl_reason.sampler import common_prefix
from jaxrl_reason.sampler.sample_loop import pad_prompts


@dataclass(frozen=True)
class Turn:
    """One run."""

    seconds: float
    cpu_seconds: float
    lengths: np.ndarray

    @property
    def rate(self) -> float:
        """Real tokens per second."""
        return float(self.lengths.sum()) / self.seconds


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
    of_weights_products: float = 0.0
    of_full_steps: float = 0.0
    ratio: float = 0.0
    turns: list[tuple[float, float]] = field(default_factory=list)


def turn(run: Callable[[int], np.ndarray], seed: int) -> Turn:
    """Time one run."""
    start, cpu = time.perf_counter(), time.process_time()
    lengths = run(seed)
    return Turn(time.perf_counter() - start, time.process_time() - cpu, lengths)


def warmed_up(
    runners: list[Runner], seed: int, say: Callable[[str], None]
) -> list[Runner]:
    """The runners that run at all, each after one run that is not counted."""
    able = []
    for runner in runners:
        try:
            seconds = turn(runner.warm_up or runner.run, seed).seconds
            say(f"{runner.name}: {seconds:.1f} s to warm up")
        except Exception as error:  # a peer may not run here: say so, go on
            if runner.ours:
                raise
            say(f"{runner.name} does not run here: {error!r}")
        else:
            able.append(runner)
    return able


def take_turns(
    runners: list[Runner], options: Options, end: float, say: Callable[[str], None]
) -> dict[str, list[Turn]]:
    """All in turn once, then the fastest of each side, until the clock says `end`."""
    turns: dict[str, list[Turn]] = {runner.name: [] for runner in runners}
    for repeat in range(options.repeats):
        for runner in runners:
            turns[runner.name].append(turn(runner.run, options.seed + repeat))
            say(f"{runner.name}: {turns[runner.name][-1].rate:.0f} tokens/s")
        if repeat == 0:
            sides = ([r for r in runners if r.ours == side] for side in (True, False))
            runners = [
                max(side, key=lambda r: turns[r.name][0].rate) for side in sides if side
            ]
        needed = sum(turns[runner.name][-1].seconds for runner in runners)
        if time.perf_counter() + needed > end:
            break
    return turns


def measure(options: Options, say: Callable[[str], None]) -> dict[str, Any]:
    """Let all take turns; keep each one's best."""
    end = time.perf_counter() + 60 * options.minutes
    asked = peers.questions(options.prompts)
    task = peers.load_task(options.model, options.instruction)
    prompts = [task.prompt_tokens(question) for question in asked]
    ids = [question.problem_id for question in asked]
    padded = pad_prompts(prompts, ids, 8192, multiple_of=8)
    ends = task.eos_token_ids
    runners = our_runners(options, padded, ends)
    with tempfile.TemporaryDirectory() as scratch:
        folder = peers.hugging_face_folder(options.model, Path(scratch, "model"))
        runners += their_runners(options, prompts, folder, ends)
    runners = warmed_up(runners, options.seed, say)
    peak = matrix_peak(3)
    turns = take_turns(runners, options, end, say)
    peak = max(peak, matrix_peak(3))
    config = peers.load_ours(options.model).config
    most = max(runner.rows for runner in runners)
    bounds = ProductBounds.measured(config, most, peak * 1e9, say)
    rows = table_rows(runners, turns, config, bounds, prompts)
    return {
        "model": options.model.name,
        "peak_gflop_per_second": peak,
        "products": asdict(bounds),
        "prompt_tokens": distinct_tokens(prompts),
        "rows": [asdict(row) for row in rows],
    }


def table_rows(
    runners: list[Runner],
    turns: dict[str, list[Turn]],
    config: TransformerConfig,
    bounds: ProductBounds,
    prompts: list[list[int]],
) -> list[Row]:
    """Each runner's best turn, set against the peak and against transformers."""
    size = sum(x.size for x in jax.tree.leaves(abstract_params(Transformer(config))))
    best = {name: max(of, key=lambda t: t.rate) for name, of in turns.items()}
    theirs = [best[runner.name].rate for runner in runners if not runner.ours]
    fractions = partial(peak_fractions, config=config, bounds=bounds, prompts=prompts)
    rows = []
    for runner in runners:
        done, of = best[runner.name], turns[runner.name]
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
                of_peak=done.rate * 2 * size / bounds.best_flop_per_second,
                **fractions(done, runner.rows),
                ratio=done.rate / max(theirs) if theirs else 0.0,
                turns=[(t.rate, fractions(t, runner.rows)["of_products"]) for t in of],
            )
        )
    return rows


def peak_fractions(
    turn: Turn,
    rows: int,
    *,
    config: TransformerConfig,
    bounds: ProductBounds,
    prompts: list[list[int]],
) -> dict[str, float]:
    """The fractions of a turn's time that products alone would take; see above."""
    prompt_lengths = np.array([len(prompt) for prompt in prompts])
    by_prompt = turn.lengths.reshape(len(prompts), -1)
    attention = bounds.attention(config, prompt_lengths, by_prompt)
    reading = bounds.prompts(distinct_tokens(prompts))
    weights = reading + bounds.active(turn.lengths, rows)
    return {
        "of_products": (weights + attention) / turn.seconds,
        "of_weights_products": weights / turn.seconds,
        "of_full_steps": (reading + bounds.full(turn.lengths, rows)) / turn.seconds,
    }


def distinct_tokens(prompts: list[list[int]]) -> int:
    """Prompt tokens, where what all prompts begin with counts once."""
    again = len(common_prefix(prompts)) * (len(prompts) - 1)
    return sum(map(len, prompts)) - again


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the result."""
    table = Table(box=None)
    table.add_column("sampler", no_wrap=True)
    columns = ("tokens/s", "ratio", "CPU s", "mean length")
    names = ("of peak", "of products", "of weights products", "of full steps")
    for column in (*columns, *names):
        table.add_column(column, justify="right", no_wrap=True)
    for row in result["rows"]:
        table.add_row(
            row["name"],
            f"{row['rate']:,.0f}",
            f"{row['ratio']:.2f}",
            f"{row['cpu_seconds']:.1f}",
            f"{row['mean_length']:.1f}",
            *(f"{row[name.replace(' ', '_')]:.0%}" for name in names),
        )
    console.print(table)
    for row in result["rows"]:
        of = ", ".join(f"{rate:.0f} ({part:.0%})" for rate, part in row["turns"])
        console.print(f"{row['name']}, turns (of products): {of}")
    console.print(
        f"best float32 product: {result['peak_gflop_per_second']:.0f} GFLOP/s"
    )
    for rows, seconds in zip(
        *(result["products"][k] for k in ("rows", "seconds")), strict=True
    ):
        console.print(
            f"bare products of {rows} rows: {seconds * 1e3:.0f} ms, "
            f"{rows / seconds:,.0f} tokens/s"
        )


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
