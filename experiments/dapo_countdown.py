"""Trains a small transformer to solve Countdown puzzles by DAPO, on a laptop.

    python experiments/dapo_countdown.py --seed 0

Two CPU cores need less than ten minutes. A model of 0.6M parameters first learns from
synthetic search traces how to try, check and go back (supervised priming), then learns
by reinforcement to search well: held-out greedy accuracy rises by more than 20 points.
Held-out puzzles have sets of numbers that never occur in training.

The run's folder then holds config.json, metrics.jsonl, TensorBoard events, samples,
curves.png, checkpoints, report.json and report.md. Ctrl-C leaves a run that
`--resume` (with the same --run-dir) continues.
"""

import contextlib
import dataclasses
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import tyro

from jaxrl_reason.data.pipeline import ProblemStream, load_split
from jaxrl_reason.models import Transformer, TransformerConfig
from jaxrl_reason.sharding import ShardingRules, make_mesh, parse_mesh
from jaxrl_reason.tasks.countdown import CountdownSettings, CountdownTask, Problem
from jaxrl_reason.tasks.countdown_traces import (
    TraceSettings,
    make_trace,
    max_trace_tokens,
)
from jaxrl_reason.training.batch import Rollouts
from jaxrl_reason.training.checkpoints import CheckpointFolder
from jaxrl_reason.training.collect import NoSignalError
from jaxrl_reason.training.evaluate import (
    Evaluation,
    build_evaluation,
    samples_for_people,
)
from jaxrl_reason.training.interrupt import GracefulInterrupt
from jaxrl_reason.training.loops import (
    LoopTools,
    resume_rl,
    resume_supervised,
    train_rl,
    train_supervised,
)
from jaxrl_reason.training.methods import DapoSettings, Method, dapo, dr_grpo, grpo, ppo
from jaxrl_reason.training.metrics import MetricsLog, Row, read_metrics, truncate_after
from jaxrl_reason.training.minibatches import Placement
from jaxrl_reason.training.monitor import peak_memory_bytes, versions
from jaxrl_reason.training.plots import plot_run
from jaxrl_reason.training.progress import TrainingProgress
from jaxrl_reason.training.report import Report, write_report
from jaxrl_reason.training.rl_parts import RLSettings, RLState, build_rl, start_rl
from jaxrl_reason.training.run_folder import RunFolder, open_run, to_plain
from jaxrl_reason.training.samples import write_samples
from jaxrl_reason.training.state import OptimizerSettings, TrainState, create_state
from jaxrl_reason.training.supervised import (
    Example,
    SupervisedSettings,
    build_supervised,
)


@dataclass(frozen=True)
class ModelSettings:
    """Shape of the transformer; the vocabulary comes from the task."""

    width: int = 128
    num_layers: int = 3
    num_heads: int = 4
    num_kv_heads: int = 4
    head_dim: int = 32
    mlp_width: int = 384

    def config(self, vocab_size: int, context_length: int) -> TransformerConfig:
        """The transformer's own config."""
        return TransformerConfig(
            vocab_size=vocab_size,
            context_length=context_length,
            scan_unroll=self.num_layers,
            **dataclasses.asdict(self),
        )


@dataclass(frozen=True)
class Config:
    """Settings of the run; the defaults are the main job."""

    seed: int = 0
    """Seed of the parameters, the traces, the order of problems and the samples; the
    stages' own seeds are added to it."""
    run_dir: Path | None = None
    """Folder of the run; runs/countdown-<method>-seed<seed> if left out."""
    resume: bool = False
    """Go on from the newest checkpoint in the run's folder."""
    resume_step: int | None = None
    """With --resume: go on from this RL step's checkpoint instead of the newest."""
    primed_from: Path | None = None
    """Folder of another run whose primed model is used instead of priming anew."""
    method: Literal["dapo", "grpo", "dr_grpo", "ppo"] = "dapo"
    """Which algorithm trains the primed model."""
    mesh: str = "auto"
    """Sizes of the device mesh, such as data=2,fsdp=2,tensor=1; auto spreads the rows
    over all accelerators, or over two virtual devices of a CPU with two cores."""
    data_dir: Path = Path("runs/datasets")
    """Where the problem set is prepared once and kept."""
    eval_split: Literal["test", "validation"] = "test"
    """Held-out problems that accuracy is measured on; tune on validation."""
    eval_problems: int = 512
    """How many of them."""
    eval_every: int = 5
    """RL steps between greedy evaluations."""
    save_every: int = 10
    """RL steps between checkpoints."""
    task: CountdownSettings = field(
        default_factory=lambda: CountdownSettings(max_number=12, max_value=30)
    )
    """Which puzzles."""
    traces: TraceSettings = field(
        default_factory=lambda: TraceSettings(
            budget_weights=(0.56, 0.0, 0.0, 0.0, 0.0, 0.44),
            first_solution=0.3,
            later_solution=0.15,
            max_value=30,
        )
    )
    """How the solver that writes the priming traces searches."""
    model: ModelSettings = field(default_factory=ModelSettings)
    prime: SupervisedSettings = field(default_factory=SupervisedSettings)
    prime_optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=3e-3, warmup_updates=50)
    )
    rl: RLSettings = field(default_factory=RLSettings)
    rl_optimizer: OptimizerSettings = field(
        default_factory=lambda: OptimizerSettings(learning_rate=3e-4, warmup_updates=8)
    )
    cosine: bool = True
    """Let both learning rates fall by a cosine over their stage."""
    dapo: DapoSettings = field(default_factory=DapoSettings)
    """The four parts of DAPO, each a switch."""

    def __post_init__(self) -> None:
        for name in ("eval_problems", "eval_every", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.resume_step is not None and not self.resume:
            raise ValueError("resume_step needs --resume, got it without")

    def prime_schedule(self) -> OptimizerSettings:
        """The priming optimiser with its decay."""
        return self._decayed(self.prime_optimizer, self.prime.updates)

    def rl_schedule(self) -> OptimizerSettings:
        """The RL optimiser with its decay."""
        updates = self.rl.steps * self.rl.updates_per_rollout
        return self._decayed(self.rl_optimizer, updates)

    def _decayed(self, optimizer: OptimizerSettings, updates: int) -> OptimizerSettings:
        decay = updates if self.cosine else optimizer.decay_updates
        return dataclasses.replace(optimizer, decay_updates=decay)

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.run_dir or Path("runs", f"countdown-{self.method}-seed{self.seed}")

    def build_method(self) -> Method:
        """The algorithm as a value."""
        limit = self.rl.max_new_tokens
        if self.method == "dapo":
            return dapo(self.dapo, max_new_tokens=limit)
        if self.method == "dr_grpo":
            return dr_grpo(length=limit)
        return {"grpo": grpo, "ppo": ppo}[self.method]()

    def model_fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of the primed model depends on."""
        names = (
            "seed",
            "task",
            "traces",
            "model",
            "prime",
            "prime_optimizer",
            "cosine",
        )
        return {name: to_plain(getattr(self, name)) for name in names}

    def rl_fingerprint(self) -> dict[str, Any]:
        """What a checkpoint of the RL stage depends on."""
        names = ("method", "rl", "rl_optimizer", "dapo")
        return self.model_fingerprint() | {n: to_plain(getattr(self, n)) for n in names}


@dataclass(frozen=True)
class Bench:
    """What all stages of a Countdown run share."""

    config: Config
    task: CountdownTask
    model: Transformer
    place: Placement
    train_problems: list[Problem]
    heldout_problems: list[Problem]
    greedy: Evaluation
    sampled: Evaluation

    def accuracies(self, params: Any) -> dict[str, float]:
        """Greedy accuracy and avg@8 at temperature 1 on the held-out problems."""
        return {
            "greedy": self.greedy.accuracy(params),
            "avg_at_8": self.sampled.accuracy(params),
        }


def build_mesh(sizes: str) -> jax.sharding.Mesh:
    """The mesh asked for; a CPU is split into as many virtual devices as it takes.

    Two devices on two cores are quicker than one on both: small operations that do not
    fill two cores run side by side.
    """
    if sizes == "auto":
        jax.config.update("jax_num_cpu_devices", min(2, os.cpu_count() or 1))
        return make_mesh(data=len(jax.devices()))
    wanted = math.prod(int(n) for n in re.findall(r"=\s*(\d+)", sizes))
    jax.config.update("jax_num_cpu_devices", max(1, wanted))
    return parse_mesh(sizes)


def set_up(config: Config) -> Bench:
    """Problems, task, model and mesh; refuses what does not fit together."""
    mesh, rules = build_mesh(config.mesh), ShardingRules()
    place = Placement(mesh, rules)
    task = CountdownTask.with_symbols(config.task)
    longest = max(config.rl.max_new_tokens, config.prime.max_response)
    context = config.rl.prompt_width + longest
    model = Transformer(
        config.model.config(task.tokenizer.vocab_size, context),
        constrain=rules.constrainer(mesh),
    )
    longest = max(max_trace_tokens(n, config.traces) for n in config.task.numbers)
    if longest > config.prime.max_response:
        raise ValueError(
            f"prime.max_response must hold the longest trace ({longest} tokens), "
            f"got {config.prime.max_response}"
        )
    train = load_split(config.task, config.data_dir, "train")
    heldout = load_split(config.task, config.data_dir, config.eval_split)
    # Spread over the whole split, which is in the order of the problems' numbers.
    chosen = np.linspace(0, len(heldout) - 1, min(config.eval_problems, len(heldout)))
    problems = [heldout[int(i)] for i in chosen]

    def evaluation(num_samples: int, temperature: float) -> Evaluation:
        return build_evaluation(
            model,
            task,
            problems,
            num_samples=num_samples,
            temperature=temperature,
            max_new_tokens=config.rl.max_new_tokens,
            prompt_width=config.rl.prompt_width,
            batch_size=512,
            seed=config.seed,
            place=place,
        )

    greedy, sampled = evaluation(1, 0.0), evaluation(8, 1.0)
    return Bench(config, task, model, place, train, problems, greedy, sampled)


def trace_examples(bench: Bench) -> Callable[[int], list[Example]]:
    """Update number -> its examples: problems from the stream's order, fresh traces."""
    config, encode = bench.config, bench.task.tokenizer.encode
    seed = config.seed + config.prime.seed
    stream = ProblemStream(
        bench.train_problems, batch_size=config.prime.examples_per_update, seed=seed
    )
    origin = stream.get_state()

    def examples(update: int) -> list[Example]:
        if stream.get_state()["next_batch"] != update:
            stream.set_state({**origin, "next_batch": update})
        rng = np.random.default_rng((seed, update))
        return [
            (
                bench.task.prompt_tokens(problem),
                encode(make_trace(problem, rng, config.traces)),
            )
            for problem in next(stream)
        ]

    return examples


def fresh_model(bench: Bench) -> TrainState:
    """An untrained model under the priming optimiser."""
    place = bench.place
    key = jax.random.key(bench.config.seed)
    optimizer = bench.config.prime_schedule().build()
    return create_state(bench.model, optimizer, key, place.mesh, place.rules)


@dataclass(frozen=True)
class Session:
    """Where this process writes, what it shows, and whether it was asked to stop."""

    run: RunFolder
    progress: TrainingProgress
    interrupt: GracefulInterrupt


def prime(bench: Bench, session: Session) -> TrainState:
    """Supervised priming from update 0, or from where the folder's run stopped."""
    config, state, run = bench.config, fresh_model(bench), session.run
    fingerprint = config.model_fingerprint()
    folder = config.primed_from or run.path
    checkpoints = CheckpointFolder(folder / "checkpoints" / "prime", keep=1)
    if config.primed_from or checkpoints.steps():
        state = resume_supervised(checkpoints, fingerprint, state)
    if config.primed_from or int(state.step) >= config.prime.updates:
        return state
    parts = build_supervised(
        bench.model, config.prime, config.prime_schedule(), bench.place
    )
    truncate_after(run.path / "prime.jsonl", int(state.step))
    session.progress.stage("priming", config.prime.updates, int(state.step))
    with MetricsLog(run.path, name="prime") as log:
        tools = LoopTools(
            log=log,
            checkpoints=checkpoints,
            fingerprint=fingerprint,
            progress=session.progress,
            interrupt=session.interrupt,
            save_every=500,
        )
        return train_supervised(parts, state, trace_examples(bench), tools)


def reinforce(
    bench: Bench, primed: TrainState, session: Session
) -> tuple[RLState, int]:
    """The RL stage on the primed model; also the step that this process began with."""
    config, method, run = bench.config, bench.config.build_method(), session.run
    settings = dataclasses.replace(config.rl, seed=config.seed + config.rl.seed)
    optimizer = config.rl_schedule()
    parts = build_rl(bench.model, bench.task, method, settings, optimizer, bench.place)
    state = start_rl(parts, primed, bench.model, optimizer)
    problems = ProblemStream(
        bench.train_problems, batch_size=settings.prompts_per_step, seed=settings.seed
    )
    by_id = {p.problem_id: p for p in bench.train_problems}
    checkpoints = CheckpointFolder(run.checkpoints_path / "rl")
    fingerprint = config.rl_fingerprint()
    if checkpoints.steps():
        state = resume_rl(checkpoints, fingerprint, state, problems, config.resume_step)
    truncate_after(run.metrics_path, state.step)

    def evaluate(params: Any) -> Row:
        return {"heldout_accuracy": bench.greedy.accuracy(params)}

    def show(step: int, rollouts: Rollouts) -> None:
        rows = samples_for_people(bench.task, rollouts, by_id, 8)
        write_samples(run.path, step, rows, "train")

    session.progress.stage(method.name, config.rl.steps, state.step)
    with MetricsLog(run.path) as log:
        tools = LoopTools(
            log=log,
            checkpoints=checkpoints,
            fingerprint=fingerprint,
            progress=session.progress,
            interrupt=session.interrupt,
            save_every=config.save_every,
            evaluate=evaluate,
            evaluate_every=config.eval_every,
            show_samples=show,
        )
        return train_rl(parts, state, problems, tools), state.step


@dataclass(frozen=True)
class Outcome:
    """What a run measured of its own model."""

    primed: dict[str, float]
    trained: dict[str, float]
    state: RLState
    first_step: int  # that this process began with: 0, or of the checkpoint


def run_countdown(config: Config) -> Outcome | None:
    """The whole run; None if it was interrupted and can be resumed."""
    started = time.perf_counter()
    bench = set_up(config)
    seconds: dict[str, float] = {}
    with (
        open_run(config.folder, config, resume=config.resume) as run,
        GracefulInterrupt() as interrupt,
    ):
        seconds["set-up"] = time.perf_counter() - started
        with TrainingProgress() as progress:
            session = Session(run, progress, interrupt)
            with stage(seconds, "priming"):
                primed = prime(bench, session)
            if interrupt.requested:
                return None
            with stage(seconds, "evaluation"):
                before = bench.accuracies(primed.params)
            progress.note(f"primed: {percent(before)}")
            with stage(seconds, config.method):
                state, first_step = reinforce(bench, primed, session)
            with stage(seconds, "evaluation"):
                after = bench.accuracies(state.policy.params)
            progress.note(f"after {config.method}: {percent(after)}")
        outcome = Outcome(before, after, state, first_step)
        leave_samples(bench, run, state)
        leave_results(config, run, bench, outcome, seconds)
    return outcome if state.step >= config.rl.steps else None


def percent(accuracies: dict[str, float]) -> str:
    """Accuracies as people read them."""
    greedy, mean = accuracies["greedy"], accuracies["avg_at_8"]
    return f"{greedy:.1%} of held-out problems greedy, {mean:.1%} avg@8"


@contextlib.contextmanager
def stage(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the wall seconds of a stage to the report's."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def leave_samples(bench: Bench, run: RunFolder, state: RLState) -> None:
    """Writes greedy answers to held-out problems and shows three of them."""
    problems = {p.problem_id: p for p in bench.heldout_problems}
    rollouts = bench.greedy.run(state.policy.params)
    rows = samples_for_people(bench.task, rollouts, problems, len(problems))
    for row in rows:
        del row["reward"]  # held-out answers are graded, not rewarded
    page = write_samples(
        run.path, state.step, rows[:: max(1, len(rows) // 24)], "held-out"
    )
    for row in rows[:: max(1, len(rows) // 3)][:3]:
        verdict = "right" if row["correct"] else "wrong"
        print(f"\n{row['prompt']}\n  {row['answer']}\n  {verdict}")
    print(f"\nmore samples: {page}")


def leave_results(
    config: Config,
    run: RunFolder,
    bench: Bench,
    outcome: Outcome,
    seconds: dict[str, float],
) -> None:
    """Writes curves.png, report.json and report.md, and says what came out."""
    rows = read_metrics(run.metrics_path)
    plot_run(
        rows,
        run.curves_path,
        title=f"{config.method.upper()} on Countdown, seed {config.seed}",
        baseline=outcome.primed["greedy"],
        length_limit=config.rl.max_new_tokens,
        clip_range=(config.dapo.clip_low, config.dapo.clip_high)
        if config.method == "dapo"
        else None,
    )
    warm = [row for row in rows if row["step"] > outcome.first_step + 2]
    report = Report(
        name=run.path.name,
        method=config.method,
        seed=config.seed,
        finished=outcome.state.step >= config.rl.steps,
        steps=outcome.state.step,
        heldout_problems=len(bench.heldout_problems),
        heldout_accuracy_primed=outcome.primed["greedy"],
        heldout_accuracy_rl=outcome.trained["greedy"],
        heldout_samples=bench.sampled.num_samples,
        heldout_avg_primed=outcome.primed["avg_at_8"],
        heldout_avg_rl=outcome.trained["avg_at_8"],
        wall_seconds=seconds,
        rollout_tokens_per_second=rate(rows, "rollout"),
        train_tokens_per_second=rate(rows, "train"),
        peak_memory_bytes=peak_memory_bytes(),
        compiles_after_warm_up=int(sum(row["compiles"] for row in warm)),
        settings=config,
        versions=versions(),
        more={"eval_split": config.eval_split, "mesh": config.mesh},
    )
    path = write_report(run.path, report)
    print(path.with_suffix(".md").read_text("utf-8"))
    print(f"curves: {run.curves_path}")


def rate(rows: Sequence[Row], phase: str) -> float | None:
    """Tokens a second of a phase over all steps."""
    seconds = sum(row[f"seconds_{phase}"] for row in rows)
    return sum(row[f"{phase}_tokens"] for row in rows) / seconds if seconds else None


def main() -> int:
    """Reads the command line, runs, and turns expected errors into one sentence."""
    config = tyro.cli(Config, description=__doc__)
    try:
        outcome = run_countdown(config)
    except (ValueError, NoSignalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if outcome is None:
        print(
            f"stopped; go on with: python {sys.argv[0]} --resume "
            f"--run-dir {config.folder} (and the flags of the first start)"
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
