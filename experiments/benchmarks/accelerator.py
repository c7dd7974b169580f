"""RL steps on this machine's accelerator: tokens a second, MFU, and whether they agree.

    python experiments/benchmarks/accelerator.py
    python experiments/benchmarks/accelerator.py --cases qwen3-0.6b --json found.json
    python experiments/benchmarks/accelerator.py --cases toy        # on a laptop

For a machine that is at hand for minutes: GRPO steps of SmolLM2's shape and of a 0.6B
shape in bfloat16 with random weights, all of whose responses have full length, by the
library's own loop on all devices (data parallel). The first step compiles and does not
count. MFU counts the model's own products once (2 FLOP a parameter and token forward,
attention over the mean context): one forward pass for a rollout; for training three for
the update and one for the old log-probs. The peak is that of the device's data sheet,
elsewhere (a CPU) the best product of this process. Then the attention that was used is
compared with the plain one, value and gradient. A peer's figure to look at: prime-rl
trains a 0.6B model on one H100 at 11.9k tokens a second and 11.1% MFU (rows of 16k).
"""

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

# Run as a script, this file's folder is on the path, not the one two above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from experiments.benchmarks.throughput import forward_flops, matrix_peak
from jaxrl_reason.aot.chips import CHIPS
from jaxrl_reason.aot.known_models import model_shape
from jaxrl_reason.learner.state import OptimizerSettings, init_model_state
from jaxrl_reason.models import Transformer, TransformerConfig
from jaxrl_reason.models.attention import NO_WINDOW, Columns
from jaxrl_reason.models.row_attention import attend
from jaxrl_reason.rl.iteration import rl_iteration
from jaxrl_reason.rl.recipes.grpo import grpo
from jaxrl_reason.rl.rl_learner import build_rl_learner, init_rl_state
from jaxrl_reason.rl.rl_settings import RLSettings
from jaxrl_reason.runs.metrics_log import PhaseTimer
from jaxrl_reason.sharding import (
    BatchSharding,
    ShardingRules,
    make_mesh,
    no_constraint,
)
from jaxrl_reason.tasks.task import Graded

# What a device calls itself -> its row in the table of chips.
KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5p": "v5p",
    "TPU v5": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
    "H100": "h100",
    "H200": "h200",
    "B200": "b200",
}


@dataclass(frozen=True)
class Case:
    """A model and the sizes of its steps, each for one device.

    Attributes:
      model: its name, or its shape.
      prompts: P.
      samples: G.
      prompt_width: tokens of every prompt.
      new_tokens: tokens of every response.
      rows: packed rows of a micro-batch.
      row_width: columns of a row.
      dtype: of products.
    """

    model: str
    prompts: int = 8
    samples: int = 16
    prompt_width: int = 256
    new_tokens: int = 1024
    rows: int = 1
    row_width: int = 16384
    dtype: str = "bfloat16"

    def config(self) -> TransformerConfig:
        """The model's shape."""
        if self.model != "toy":
            shape = model_shape(self.model)
            return replace(shape, dtype=self.dtype, remat="full")
        return TransformerConfig(
            vocab_size=64,
            hidden_size=32,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=8,
            mlp_dim=64,
            context_length=256,
        )


CASES = {
    "smollm2-135m": Case("smollm2-135m", prompts=16),
    "qwen3-0.6b": Case("qwen3-0.6b"),
    "toy": Case("toy", 2, 4, 8, 24, row_width=192, dtype="float32"),
}


@dataclass(frozen=True)
class Options:
    """What is measured.

    Attributes:
      cases: of smollm2-135m, qwen3-0.6b and toy.
      steps: that count, after one that compiles.
      json: where to write the figures, if anywhere.
    """

    cases: tuple[str, ...] = ("smollm2-135m", "qwen3-0.6b")
    steps: int = 3
    json: Path | None = None

    def __post_init__(self) -> None:
        unknown = [name for name in self.cases if name not in CASES]
        if unknown:
            raise ValueError(f"cases must be of {', '.join(CASES)}, got {unknown}")
        if self.steps < 1:
            raise ValueError(f"steps must be >= 1, got {self.steps}")


@dataclass(frozen=True)
class Problem:
    """A question that is nothing but its number."""

    problem_id: int


class Digits:
    """Text of token ids, for the grader."""

    vocab_size, pad_token_id, eos_token_id = 64, 0, 1

    def encode(self, text: str) -> list[int]:
        """Numbers -> ids."""
        return [int(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """The first ids as numbers: all that is graded."""
        return " ".join(map(str, ids[:4]))


DIGITS = Digits()


@dataclass(frozen=True)
class Random:
    """Random prompts of one length; right is what begins with an even token."""

    width: int
    vocab_size: int
    name: str = "random"
    tokenizer: Digits = DIGITS
    eos_token_ids: tuple[int, ...] = ()

    def prompt_tokens(self, problem: Problem) -> list[int]:
        """Of this problem's own numbers."""
        rng = np.random.default_rng(problem.problem_id)
        return rng.integers(2, self.vocab_size, self.width).tolist()

    def grade(self, problem: Problem, response_text: str, truncated: bool) -> Graded:
        """About half of all responses are right."""
        return Graded(int(response_text.split()[0]) % 2 == 0, True, None)


@dataclass(frozen=True)
class Figures:
    """What one case gave; rates of all devices together, medians of the steps."""

    case: str
    device: str
    devices: int
    seconds: float
    rollout_tokens_per_s: float
    rollout_mfu: float
    train_tokens_per_s: float
    train_mfu: float
    peak_gib: float
    attention_error: float
    gradient_error: float
    compile_s: float


LINES: dict[str, Callable[[Figures], str]] = {
    "seconds a step": lambda x: f"{x.seconds:.2f}",
    "rollout, tokens a second": lambda x: f"{x.rollout_tokens_per_s:,.0f}",
    "rollout, MFU": lambda x: f"{x.rollout_mfu:.1%}",
    "training, tokens a second": lambda x: f"{x.train_tokens_per_s:,.0f}",
    "training, MFU": lambda x: f"{x.train_mfu:.1%}",
    "peak memory, GiB a device": lambda x: f"{x.peak_gib:.1f}",
    "attention against plain, value": lambda x: f"{x.attention_error:.1e}",
    "attention against plain, slope": lambda x: f"{x.gradient_error:.1e}",
    "seconds to compile": lambda x: f"{x.compile_s:.0f}",
}


def measure(name: str, steps: int) -> Figures:
    """Runs one case."""
    case, count = CASES[name], len(jax.devices())
    config, rules = case.config(), ShardingRules()
    mesh = make_mesh(data=count)
    placed = BatchSharding(mesh, rules)
    model = Transformer(config, constrain=rules.constrainer(mesh))
    settings = RLSettings(
        prompts_per_step=case.prompts * count,
        group_size=case.samples,
        updates_per_rollout=1,
        prompt_width=case.prompt_width,
        max_new_tokens=case.new_tokens,
        rows_per_micro_batch=case.rows * count,
        row_width=case.row_width,
        slots_per_row=case.samples * 2,
    )
    optimizer = OptimizerSettings(learning_rate=1e-6)
    task: Any = Random(case.prompt_width, config.vocab_size)
    learner = build_rl_learner(
        model, task, grpo(kl_coef=0), settings, optimizer, placed
    )
    policy = init_model_state(model, optimizer.build(), jax.random.key(0), mesh, rules)
    state, problems = init_rl_state(learner, policy), batches(settings.prompts_per_step)
    del policy
    found, compiling = [], 0.0
    for step in range(1 + steps):
        start, timer = time.perf_counter(), PhaseTimer()
        state, _, _ = rl_iteration(learner, state, problems, timer)
        jax.block_until_ready(state.policy)
        seconds = time.perf_counter() - start
        if step == 0:
            compiling = seconds
            continue
        spent = timer.seconds
        found.append((seconds, spent["rollout"], spent["train"]))
    whole, rollout, train = np.median(np.array(found), axis=0).tolist()
    tokens = settings.sequences * case.new_tokens
    forward = forward_flops(config, case.prompt_width + case.new_tokens / 2)
    peak = count * peak_flops()
    value, gradient = attention_errors(config, case)
    return Figures(
        case=name,
        device=jax.devices()[0].device_kind,
        devices=count,
        seconds=whole,
        rollout_tokens_per_s=tokens / rollout,
        rollout_mfu=tokens * forward / rollout / peak,
        train_tokens_per_s=tokens / train,
        train_mfu=tokens * 4 * forward / train / peak,
        peak_gib=peak_bytes() / 2**30,
        attention_error=value,
        gradient_error=gradient,
        compile_s=compiling - whole,
    )


def batches(size: int) -> Any:
    """Ever new problems."""
    first = 0
    while True:
        yield [Problem(first + i) for i in range(size)]
        first += size


def peak_flops() -> float:
    """Of one device: its data sheet's bfloat16, or what this process manages."""
    kind = jax.devices()[0].device_kind
    known = [name for name in KINDS if name in kind]
    if not known:
        return matrix_peak(3) * 1e9
    # The longest name that fits: "TPU v5 lite" is no "TPU v5".
    return CHIPS[KINDS[max(known, key=len)]].peak_flops


def peak_bytes() -> float:
    """The most memory of the first device so far; 0 where it does not say."""
    stats = jax.devices()[0].memory_stats() or {}
    return float(stats.get("peak_bytes_in_use", 0))


def attention_errors(config: TransformerConfig, case: Case) -> tuple[float, float]:
    """The largest distances of the attention in use from the plain one, in float32.

    One row of two sequences, the second with two branches, as training packs them; in
    parts of the largest value and of the largest slope.
    """
    size = min(1024, case.row_width)
    heads, keys = config.num_heads, config.num_kv_heads
    rng = jax.random.split(jax.random.key(1), 4)
    q, out = (jax.random.normal(k, (1, size, heads, config.head_dim)) for k in rng[:2])
    k, v = (jax.random.normal(k, (1, size, keys, config.head_dim)) for k in rng[2:])
    columns = jnp.arange(size)[None]
    second = columns >= size // 2
    branch = jnp.clip((columns - size * 3 // 4) // (size // 8) + 1, 0, 2)
    of_rows = Columns(
        places=columns,
        segments=jnp.where(second, 2, 1),
        positions=columns,
        branches=jnp.where(columns >= size * 3 // 4, branch, 0),
    )

    def run(way: str) -> Any:
        def value(q: jax.Array, k: jax.Array, v: jax.Array) -> Any:
            found = attend(
                q,
                k,
                v,
                of_rows,
                of_rows,
                [NO_WINDOW],
                jnp.zeros((), jnp.int32),
                way=way,
                constrain=no_constraint,
            )
            return jnp.sum(found * out), found

        grad = jax.jit(jax.grad(value, argnums=(0, 1, 2), has_aux=True))
        with jax.default_matmul_precision("float32"):
            return jax.device_get(grad(q, k, v))

    (slopes, value), (slopes_plain, value_plain) = run("auto"), run("plain")
    pairs = list(zip(slopes, slopes_plain, strict=True))
    return apart([(value, value_plain)]), apart(pairs)


def apart(pairs: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """The largest distance of pairs of arrays, in parts of the largest entry."""
    largest = max(float(np.abs(y).max()) for _, y in pairs)
    return max(float(np.abs(x - y).max()) for x, y in pairs) / largest


def main(options: Options) -> list[Figures]:
    """Measures, prints, writes."""
    console, found = Console(), []
    for name in options.cases:
        console.print(f"{name} ...", style="dim")
        found.append(measure(name, options.steps))
    table = Table(box=None)
    table.add_column(f"{found[0].devices} x {found[0].device}")
    for x in found:
        table.add_column(x.case, justify="right")
    for what, show in LINES.items():
        table.add_row(what, *(show(x) for x in found))
    console.print(table)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(x) for x in found], indent=2) + "\n")
    return found


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
