"""A run from its settings to its report, the same for every run."""

import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from rich.console import Console

from jaxrl_reason.grading.math_verifier import MathVerifier
from jaxrl_reason.pretrained.model_folder import check_new_folder
from jaxrl_reason.runs.clock import StageClock
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_folder import RunFolder, open_run
from jaxrl_reason.runs.run_log import keep, run_log, say
from jaxrl_reason.runs.trackers import open_trackers
from jaxrl_reason.sharding.agreement import on_main
from jaxrl_reason.sharding.processes import is_main
from jaxrl_reason.train.config_file import write_config
from jaxrl_reason.train.fine_tuning import FineTuning, fine_tune, untuned_policy
from jaxrl_reason.train.game_stage import ProverVerifierGame
from jaxrl_reason.train.heldout_figures import Measured, percent, values
from jaxrl_reason.train.methods import Kind, kind_of
from jaxrl_reason.train.offline_rounds import Rounds
from jaxrl_reason.train.process_checks import check_data, check_processes
from jaxrl_reason.train.reinforcement import Reinforcement
from jaxrl_reason.train.results import (
    RunResult,
    export_trained,
    write_run_report,
)
from jaxrl_reason.train.reward_model_stage import RewardModel
from jaxrl_reason.train.run_setup import RunSetup, build_run_setup
from jaxrl_reason.train.session import Session, Stage
from jaxrl_reason.train.staged import StagedReinforcement
from jaxrl_reason.train.train_settings import TrainSettings

_STAGES: Mapping[Kind, Callable[[RunSetup], Stage]] = {
    "rl": Reinforcement,
    "examples": FineTuning,
    "rounds": Rounds,
    "reward_model": RewardModel,
    "game": ProverVerifierGame,
}


def build_stage(setup: RunSetup) -> Stage:
    """The stage that trains the model after fine-tuning; nothing is compiled yet.

    Raises:
      ValueError: the settings do not fit together.
    """
    if setup.settings.stages.limits:
        return StagedReinforcement(setup)
    return _STAGES[kind_of(setup.settings.method)](setup)


def resumes(settings: TrainSettings) -> bool:
    """Whether the run resumes that of its folder."""
    if settings.resume == "auto":
        return on_main("resume", (settings.folder / "config.json").is_file)
    return settings.resume == "must"


def run_training(settings: TrainSettings) -> RunResult | None:
    """The whole run; None if it was interrupted and saved a checkpoint.

    Raises:
      ValueError: the settings, the files or the folder do not fit.
      NoSignalError: dynamic sampling found no groups with signal.
      GraderError: the grader failed on every response.
      NotFiniteError: numbers are not finite, and training cannot go on.
      StoppedByWarning: a warning that ends the run.
    """
    started = time.perf_counter()
    if settings.export.folder is not None:
        check_new_folder(settings.export.folder)  # also before the end
    stop = settings.stop
    with ExitStack() as stack:
        # A signal during the set-up ends the run, with the same status, after it.
        interrupt = stack.enter_context(
            GracefulInterrupt(signals=stop.signals, grace=stop.grace_seconds)
        )
        check_processes(settings)
        # Its workers start when an answer needs them.
        verify = stack.enter_context(MathVerifier(settings.task.algebra_deadline))
        setup = build_run_setup(settings, verify)
        stack.callback(setup.close)
        check_data(setup)
        # Built before anything is trained, so that errors appear now.
        stage = build_stage(setup)
        return record_training(setup, stage, settings, interrupt, started)


def record_training(
    setup: RunSetup,
    stage: Stage,
    settings: TrainSettings,
    interrupt: GracefulInterrupt,
    started: float,
) -> RunResult | None:
    """Runs the training in its folder.

    Args:
      setup: of the run.
      stage: the main stage.
      settings: as given, without sizes taken from the data.
      interrupt: whether a stop was requested.
      started: when the process started the run.
    """
    resume = resumes(settings)
    with (
        open_run(settings.folder, settings, resume=resume) as run,
        run_log(run.log_path),
    ):
        if not (run.path / "config.yaml").exists():
            write_config(run.path / "config.yaml", settings)
        clock = StageClock(run.path / "wall_seconds.json")
        clock.add("set-up", time.perf_counter() - started)
        with (
            open_trackers(
                settings.trackers if is_main() else (),
                run.path,
                project=settings.tracker_project,
            ) as trackers,
            TrainingProgress(console=Console(quiet=not is_main())) as progress,
        ):
            session = Session(settings, run, trackers, progress, interrupt)
            try:
                found = train(setup, stage, session, clock)
            finally:
                session.close()
        if found is None:
            keep("stopped by a signal, and saved")
            return None
        result, measured = found
        write_results(setup, run, result, measured, clock)
    return result


def train(
    setup: RunSetup, stage: Stage, session: Session, clock: StageClock
) -> tuple[RunResult, Measured | None] | None:
    """Fine-tuning, the held-out evaluation, the stage, the evaluation again."""
    method, heldout = setup.settings.method, setup.heldout
    note, interrupt = session.progress.note, session.interrupt
    measures = kind_of(method) != "reward_model"
    before, after = None, None
    if isinstance(stage, FineTuning):
        policy = untuned_policy(setup)
    else:
        with clock("sft"):
            policy = fine_tune(setup, session)
    if interrupt.requested:
        return None
    if measures:
        with clock("evaluation"):
            before = heldout.before(policy.params, session.run)
        note(f"before {method}: {percent(values(before))}")
    state = stage.begin(policy)
    del policy  # for a large model, half of the memory
    if interrupt.requested:
        return None
    with clock(method):
        done = stage.run(state, session)
    if interrupt.requested:
        return None
    if measures:
        with clock("evaluation"):
            after = heldout.measure(done.params)
        note(f"after {method}: {percent(values(after.figures))}")
    return RunResult(before, None if after is None else after.figures, done), after


def write_results(
    setup: RunSetup,
    run: RunFolder,
    result: RunResult,
    measured: Measured | None,
    clock: StageClock,
) -> None:
    """Writes samples, report, curves and exported model, and prints where they are."""
    if is_main():
        if measured is not None:
            responses, step = measured.responses, result.stage.step
            setup.heldout.write_samples(responses, run, step, shown=3)
        greedy = None if measured is None else measured.responses
        page = write_run_report(setup, run, result, clock.seconds, greedy)
        say(page.read_text("utf-8"))
        say(f"curves: {run.curves_path}")
    export_trained(setup, result)


def finished_report(settings: TrainSettings) -> dict[str, Any] | None:
    """The report of a finished run, or None."""
    path = settings.folder / "report.json"

    def read() -> dict[str, Any] | None:
        if not path.is_file():
            return None
        report: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return report if report["finished"] else None

    return on_main("report", read)
