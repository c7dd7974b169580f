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

import sys
import time
from pathlib import Path

import jax
import tyro

# Run as a script, this file's folder is on the path, not the one above it.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from experiments.countdown_setup import Bench, Config, set_up, trace_examples
from experiments.rl_session import (
    Described,
    Outcome,
    Reinforcement,
    Session,
    exit_status,
    leave_results,
    leave_samples,
    percent,
    reinforce,
    show_results,
)
from jaxrl_reason.training.checkpoints import CheckpointFolder
from jaxrl_reason.training.interrupt import GracefulInterrupt
from jaxrl_reason.training.loops import LoopTools, resume_supervised, train_supervised
from jaxrl_reason.training.metrics import MetricsLog, truncate_after
from jaxrl_reason.training.progress import TrainingProgress
from jaxrl_reason.training.rl_parts import start_rl
from jaxrl_reason.training.run_folder import open_run
from jaxrl_reason.training.stage_clock import StageClock
from jaxrl_reason.training.state import TrainState, create_state


def fresh_model(bench: Bench) -> TrainState:
    """An untrained model under the priming optimiser."""
    place = bench.place
    key = jax.random.key(bench.config.seed)
    optimizer = bench.config.prime_schedule().build()
    return create_state(bench.model, optimizer, key, place.mesh, place.rules)


def prime(bench: Bench, session: Session) -> TrainState:
    """Supervised priming from update 0, or from where the folder's run stopped."""
    config, state, run = bench.config, fresh_model(bench), session.run
    fingerprint = config.model_fingerprint()
    folder = config.primed_from or run.path
    checkpoints = CheckpointFolder(folder / "checkpoints" / "prime", keep=1)
    if config.primed_from or checkpoints.steps():
        state = resume_supervised(checkpoints, fingerprint, state)
    if config.primed_from and int(state.step) < config.prime.updates:
        raise ValueError(
            f"primed_from must hold a model primed for {config.prime.updates} updates, "
            f"got one of {int(state.step)} in {folder}"
        )
    if int(state.step) >= config.prime.updates:
        return state
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
        return train_supervised(bench.supervised, state, trace_examples(bench), tools)


def reinforcement(bench: Bench) -> Reinforcement:
    """The RL stage."""
    config = bench.config
    return Reinforcement(
        parts=bench.rl,
        problems=bench.train_problems,
        accuracy=bench.greedy.accuracy,
        fingerprint=config.rl_fingerprint(),
        eval_every=config.eval_every,
        save_every=config.save_every,
        resume_step=config.resume_step,
    )


def run_countdown(config: Config) -> Outcome | None:
    """The whole run; None if it was interrupted and has left a checkpoint."""
    started = time.perf_counter()
    bench = set_up(config)
    with (
        open_run(config.folder, config, resume=config.resume) as run,
        GracefulInterrupt() as interrupt,
    ):
        clock = StageClock(run.path / "wall_seconds.json")
        clock.add("set-up", time.perf_counter() - started)
        with TrainingProgress() as progress:
            session = Session(run, progress, interrupt)
            with clock("priming"):
                primed = prime(bench, session)
            if interrupt.requested:
                return None
            with clock("evaluation"):
                before = bench.accuracies(primed.params)
            progress.note(f"primed: {percent(before)}")
            with clock(config.method):
                state, first_step = reinforce(
                    reinforcement(bench), start_rl(bench.rl, primed), session
                )
            if interrupt.requested:
                return None
            with clock("evaluation"):
                after = bench.accuracies(state.policy.params)
            progress.note(f"after {config.method}: {percent(after)}")
        outcome = Outcome(before, after, state, first_step)
        answers = bench.greedy.run(state.policy.params)
        leave_samples(bench.task, bench.heldout_problems, answers, run, state.step)
        page = leave_results(run, described(bench), outcome, clock.seconds)
        show_results(page, run)
    return outcome


def described(bench: Bench) -> Described:
    """What the report says of this run beside its outcome."""
    config, dapo = bench.config, bench.config.dapo
    clip_range = (dapo.clip_low, dapo.clip_high) if config.method == "dapo" else None
    return Described(
        title=f"{config.method.upper()} on Countdown, seed {config.seed}",
        method=config.method,
        seed=config.seed,
        length_limit=config.rl.max_new_tokens,
        clip_range=clip_range,
        heldout_problems=len(bench.heldout_problems),
        heldout_samples=bench.sampled.num_samples,
        heldout_temperature=1.0,
        settings=config,
        more={"eval_split": config.eval_split},
    )


def main() -> int:
    """Reads the command line, runs, and turns expected errors into one sentence."""
    config = tyro.cli(Config, description=__doc__)
    return exit_status(lambda: run_countdown(config), config.folder)


if __name__ == "__main__":
    sys.exit(main())
