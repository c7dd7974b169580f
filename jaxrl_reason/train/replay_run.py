"""A step of a run once more: the same bits, and where its loss came from."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

from jaxrl_reason.grading.math_verifier import MathVerifier
from jaxrl_reason.rl.iteration import model_params, train_step
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rl_loop import rl_throughput
from jaxrl_reason.rl.rollouts_ahead import RolloutsAhead
from jaxrl_reason.rl.token_losses import LossRecorder, recording
from jaxrl_reason.runs.metrics_log import PhaseTimer, Row, read_metrics
from jaxrl_reason.runs.run_diff import (
    checkpoint_arrays,
    differing_arrays,
    differing_metrics,
    named_arrays,
)
from jaxrl_reason.runs.run_warnings import RunWarnings
from jaxrl_reason.train.config_file import read_config, with_tree
from jaxrl_reason.train.fine_tuning import tuned_policy
from jaxrl_reason.train.methods import kind_of
from jaxrl_reason.train.replay_places import Place, only_place, staged_place
from jaxrl_reason.train.run_setup import RunSetup, build_run_setup
from jaxrl_reason.train.session import checkpoints_of
from jaxrl_reason.train.train_settings import TrainSettings


@dataclass(frozen=True)
class Replay:
    """A step that was run again.

    Attributes:
      step: its number.
      begun: the step of the checkpoint that it was begun from, 0 for none.
      row: its metrics.
      differences: metrics that are not those of the run's row, one line for each; None
        if the run has no row of this step.
      arrays: arrays of the run's checkpoint after the step that are not those of the
        replay; None if there is no such checkpoint.
      recorder: what its updates were made of.
      setup: of the run.
    """

    step: int
    begun: int
    row: Row
    differences: list[str] | None
    arrays: list[str] | None
    recorder: LossRecorder
    setup: RunSetup


def replay_run(folder: Path, step: int) -> Replay:
    """Runs a step of an RL run again, from the newest checkpoint before it.

    Nothing in the folder is changed.

    Args:
      folder: of the run.
      step: of `metrics.jsonl`, from 1.

    Raises:
      ValueError: the folder has no RL run, the step is not one of the run's, or a
        checkpoint is damaged or of other settings.
    """
    settings = settings_of(folder)
    if kind_of(settings.method) != "rl":
        raise ValueError(f"a replay is for RL, got method {settings.method}")
    if not 1 <= step <= settings.last_step_of_rl:
        raise ValueError(
            f"step must be from 1 to {settings.last_step_of_rl}, got {step}"
        )
    with MathVerifier(settings.task.algebra_deadline) as verify:
        setup = build_run_setup(settings, verify)
        try:
            return replay_step(setup, folder, step)
        finally:
            setup.close()


def settings_of(folder: Path) -> TrainSettings:
    """The settings of the run in a folder, from its config.yaml.

    A mesh of all devices becomes one of as many as the run had, which may have been of
    several processes; a replay is one process.
    """
    if not (folder / "config.yaml").is_file():
        raise ValueError(f"a run must have a config.yaml, got none in {folder}")
    settings = with_tree(TrainSettings(), read_config(folder / "config.yaml"))
    if settings.mesh == "auto":
        config = json.loads((folder / "config.json").read_text("utf-8"))
        settings = replace(settings, mesh=f"data={config['devices']['count']}")
    return replace(settings, run_dir=folder, resume="must")


def replay_step(setup: RunSetup, folder: Path, step: int) -> Replay:
    """`replay_run` with what was built."""
    checkpoints = checkpoints_of(folder, "rl")
    before = [saved for saved in checkpoints.steps() if saved < step]
    policy, at = tuned_policy(setup, folder), before[-1] if before else None
    if setup.settings.stages.limits:
        place = staged_place(setup, folder, checkpoints, policy, at)
    else:
        place = only_place(setup, checkpoints, policy, at)
    begun = place.state.step
    learner, state, row, recorder = run_to(place, step, setup)
    saved = {int(r["step"]): r for r in read_metrics(folder / "metrics.jsonl")}
    if "heldout/accuracy" in saved.get(step, {}):
        row |= setup.heldout.row(model_params(learner, state))
    # Warnings depend on the rows before, which the run has.
    earlier = [r for number, r in saved.items() if number < step]
    warnings = RunWarnings(setup.settings.warnings, tell=lambda _: None, rows=earlier)
    row |= warnings.look(step, row)
    row["step"] = step
    arrays = None
    if step in checkpoints.steps():
        theirs = checkpoint_arrays(checkpoints, step)
        own = named_arrays({"policy": state.policy, **state.models})
        same_names = {name: x for name, x in theirs.items() if name in own}
        arrays = differing_arrays(same_names, own)
    return Replay(
        step=step,
        begun=begun,
        row=row,
        differences=differing_metrics(saved[step], row) if step in saved else None,
        arrays=arrays,
        recorder=recorder,
        setup=setup,
    )


def run_to(
    place: Place, step: int, setup: RunSetup
) -> tuple[RLLearner, RLState, Row, LossRecorder]:
    """Runs steps up to the one that is asked for, which is recorded.

    Args:
      place: before it.
      step: the last one.
      setup: of the run.

    Returns:
      Its learner, the state after it, its row as training makes it, and the record.
    """
    timer, learner, state = PhaseTimer(), place.learner, place.state
    recorder, row = None, Row()
    while state.step < step:
        if state.step == learner.settings.steps and place.following is not None:
            place = place.following(state)
        learner, state = place.learner, place.state
        last = min(step, learner.settings.steps)
        with RolloutsAhead(learner, state, place.problems, place.annotate) as ahead:
            state = replace(state, ahead=())
            while state.step < last:
                if state.step == step - 1:
                    learner, recorder = recording(learner, setup.model)
                drawn = ahead.take(state, timer)
                groups = drawn.collected
                state, row = train_step(learner, state, groups, timer)
                row |= drawn.row | timer.take()
                row |= rl_throughput(row, groups.fresh, groups.rollouts)
    assert recorder is not None
    return learner, state, row, recorder
