"""Trains a small transformer to solve Countdown puzzles by DAPO, on a laptop.

    python experiments/dapo_countdown.py --seed 0

Two CPU cores need less than ten minutes. A model of 0.6M parameters first learns from
synthetic search traces how to try, check and go back (supervised fine-tuning), then
learns by reinforcement to search well: held-out greedy accuracy rises by more than 20
points. Held-out puzzles have sets of numbers that never occur in training.

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

from experiments.countdown_setup import Config, Setup, set_up, trace_examples
from experiments.rl_session import (
    Reinforcement,
    ReportFields,
    RunResult,
    Session,
    exit_status,
    percent,
    reinforce,
    show_results,
    write_heldout_samples,
    write_run_report,
)
from jaxrl_reason.learner.sft_loop import resume_sft, train_sft
from jaxrl_reason.learner.state import TrainState, init_model_state
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.clock import StageClock
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics import MetricsLog, truncate_after
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import open_run


def fresh_model(setup: Setup) -> TrainState:
    """An untrained model under the optimiser of fine-tuning."""
    batch_sharding = setup.batch_sharding
    key = jax.random.key(setup.config.seed)
    optimizer = setup.config.sft_schedule().build()
    return init_model_state(
        setup.model, optimizer, key, batch_sharding.mesh, batch_sharding.rules
    )


def fine_tune(setup: Setup, session: Session) -> TrainState:
    """Supervised fine-tuning from update 0, or from where the folder's run stopped."""
    config, state, run = setup.config, fresh_model(setup), session.run
    fingerprint = config.model_fingerprint()
    folder = config.sft_from or run.path
    checkpoints = CheckpointFolder(folder / "checkpoints" / "sft", keep=1)
    if config.sft_from or checkpoints.steps():
        state = resume_sft(checkpoints, fingerprint, state)
    if config.sft_from and int(state.step) < config.sft.updates:
        raise ValueError(
            f"sft_from must hold a model trained for {config.sft.updates} updates, "
            f"got one of {int(state.step)} in {folder}"
        )
    if int(state.step) >= config.sft.updates:
        return state
    truncate_after(run.path / "sft.jsonl", int(state.step))
    session.progress.stage("sft", config.sft.updates, int(state.step))
    with MetricsLog(run.path, name="sft") as log:
        hooks = Hooks(
            log=log,
            checkpoints=checkpoints,
            fingerprint=fingerprint,
            progress=session.progress,
            interrupt=session.interrupt,
            save_every=500,
        )
        return train_sft(setup.supervised, state, trace_examples(setup), hooks)


def reinforcement(setup: Setup) -> Reinforcement:
    """The RL stage."""
    config = setup.config
    return Reinforcement(
        learner=setup.rl,
        problems=setup.train_problems,
        accuracy=setup.greedy.accuracy,
        fingerprint=config.rl_fingerprint(),
        eval_every=config.eval_every,
        save_every=config.save_every,
        resume_step=config.resume_step,
    )


def run_countdown(config: Config) -> RunResult | None:
    """The whole run; None if it was interrupted and has left a checkpoint."""
    started = time.perf_counter()
    setup = set_up(config)
    with (
        open_run(config.folder, config, resume=config.resume) as run,
        GracefulInterrupt() as interrupt,
    ):
        clock = StageClock(run.path / "wall_seconds.json")
        clock.add("set-up", time.perf_counter() - started)
        with TrainingProgress() as progress:
            session = Session(run, progress, interrupt)
            with clock("sft"):
                sft_policy = fine_tune(setup, session)
            if interrupt.requested:
                return None
            with clock("evaluation"):
                before = setup.accuracies(sft_policy.params)
            progress.note(f"after sft: {percent(before)}")
            with clock(config.method):
                state, first_step = reinforce(
                    reinforcement(setup), init_rl_state(setup.rl, sft_policy), session
                )
            if interrupt.requested:
                return None
            with clock("evaluation"):
                after = setup.accuracies(state.policy.params)
            progress.note(f"after {config.method}: {percent(after)}")
        outcome = RunResult(before, after, state, first_step)
        answers = setup.greedy.run(state.policy.params)
        write_heldout_samples(
            setup.task, setup.heldout_problems, answers, run, state.step
        )
        page = write_run_report(run, described(setup), outcome, clock.seconds)
        show_results(page, run)
    return outcome


def described(setup: Setup) -> ReportFields:
    """What the report says of this run beside its outcome."""
    config, dapo = setup.config, setup.config.dapo
    clip_range = (dapo.clip_low, dapo.clip_high) if config.method == "dapo" else None
    return ReportFields(
        title=f"{config.method.upper()} on Countdown, seed {config.seed}",
        method=config.method,
        seed=config.seed,
        length_limit=config.rl.max_new_tokens,
        clip_range=clip_range,
        heldout_problems=len(setup.heldout_problems),
        heldout_samples=setup.sampled.num_samples,
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
