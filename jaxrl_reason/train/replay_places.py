"""Where a replay begins in a run, and how it gets from stage to stage."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.rl.problem_batches import ProblemBatches
from jaxrl_reason.rl.rl_learner import RLLearner, RLState
from jaxrl_reason.rl.rl_loop import restore_rl
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.rl.stage_parts import InStage
from jaxrl_reason.rl.stages import begin_stage, restore_stages, stage_annotation
from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.train.reinforcement import Reinforcement, row_annotation
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.staged import StagedReinforcement


@dataclass(frozen=True)
class Place:
    """Where a replay is in a run.

    Attributes:
      learner: of the stage.
      state: at its beginning, or of a checkpoint in it.
      problems: of the stage, at the same place.
      annotate: (RL step, its sampled rollouts) -> further columns of its row.
      following: the state at the end of the stage -> the place in the next one.
    """

    learner: RLLearner
    state: RLState
    problems: ProblemBatches
    annotate: Callable[[int, Rollouts], Row]
    following: "Callable[[RLState], Place] | None" = None


def only_place(
    setup: RunSetup, checkpoints: CheckpointFolder, policy: TrainState, at: int | None
) -> Place:
    """The place in a run of one stage.

    Args:
      setup: of the run.
      checkpoints: of the run.
      policy: that the stage began with.
      at: step of the checkpoint; None for the beginning.
    """
    stage = Reinforcement(setup)
    problems = stage.problems()
    state = stage.begin(policy)
    if at is not None:
        state = restore_rl(checkpoints, setup.fingerprint(), state, problems, at)
    return Place(stage.learner, state, problems, row_annotation(setup))


def staged_place(
    setup: RunSetup,
    folder: Path,
    checkpoints: CheckpointFolder,
    policy: TrainState,
    at: int | None,
) -> Place:
    """`only_place` for a run in stages, each of which leads to the next.

    Args:
      setup: of the run.
      folder: of the run.
      checkpoints: of the run.
      policy: that the first stage began with.
      at: step of the checkpoint; None for the beginning.
    """
    stage = StagedReinforcement(setup)
    if setup.settings.stages.data_filter:
        stage.stages = stage.build(stage.filtered(folder))
    run, policy = stage.stages, stage.begin(policy)

    def place(now: InStage) -> Place:
        def following(state: RLState) -> Place:
            return place(begin_stage(run, now.index + 1, state, policy, checkpoints))

        annotate = stage_annotation(run, now, row_annotation(setup))
        more = now.index + 1 < len(run.stages)
        learner = run.learner[now.index]
        return Place(
            learner, now.state, now.problems, annotate, following if more else None
        )

    if at is None:
        return place(begin_stage(run, 0, None, policy, checkpoints))
    fingerprint = setup.fingerprint()
    return place(restore_stages(run, checkpoints, fingerprint, policy, at))
