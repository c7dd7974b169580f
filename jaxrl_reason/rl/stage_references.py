"""The reference of a stage, where stages begin with fresh ones."""

from collections.abc import Mapping
from typing import Any

from jaxrl_reason.learner.state import TrainState, abstract
from jaxrl_reason.rl.rl_learner import init_rl_state
from jaxrl_reason.rl.rl_loop import trained_models
from jaxrl_reason.rl.stage_parts import StagedRun
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.run_log import say
from jaxrl_reason.sharding.agreement import on_main

Params = Any


def references(run: StagedRun, checkpoints: CheckpointFolder) -> CheckpointFolder:
    """Where fresh references are kept: beside the checkpoints, with their steps."""
    return CheckpointFolder(
        checkpoints.path / "references",
        keep=len(run.stages),
        read_only=checkpoints.read_only,
    )


def stage_reference(
    run: StagedRun,
    index: int,
    initial_policy: TrainState,
    checkpoints: CheckpointFolder,
) -> Params | None:
    """The reference of a stage: of the last refresh, or else the initial policy."""
    if not run.learner[index].method.uses_reference:
        return None
    refreshed = _last_refresh(run, index)
    if refreshed is None:
        return initial_policy.params
    found = references(run, checkpoints).restore(
        abstract(initial_policy.params), {}, run.first_step(refreshed)
    )
    return found.state


def remake_reference(
    run: StagedRun,
    index: int,
    initial_policy: TrainState,
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    *,
    mend: bool,
    error: Exception,
) -> Params:
    """A damaged reference of a stage once more: the policy after the stage before.

    Args:
      run: of `build_stages`.
      index: of the stage.
      initial_policy: for shapes and shardings.
      checkpoints: of the run.
      fingerprint: settings that the stages share.
      mend: what is damaged may be moved.
      error: what is wrong with it.

    Raises:
      CheckpointError: nothing may be moved, or the checkpoint of that step is gone.
    """
    refreshed = _last_refresh(run, index)
    if refreshed is None:
        raise error
    step, kept = run.first_step(refreshed), references(run, checkpoints)
    damage = on_main("damage of a reference", lambda: kept.damage(step))
    if not damage:
        raise error
    whole = on_main("source of a reference", lambda: not checkpoints.damage(step))
    said = (
        f"the reference of stage {run.stages[refreshed].name} in "
        f"{kept.folder(step)} is damaged ({'; '.join(damage[:3])})"
    )
    if not whole:
        raise CheckpointError(
            f"{said}, and the checkpoint of step {step}, which it is the policy of, is "
            "not kept: go on from an earlier one with --resume-step, or start again"
        ) from error
    if not mend:
        raise CheckpointError(
            f"{said}; --resume auto makes it again from the checkpoint of step {step}"
        ) from error
    # Of the stage before, or of this one if it ended before its first step.
    names = [stage.name for stage in run.stages]
    saved_in = names.index(checkpoints.fingerprint(step)["stage"])
    models = trained_models(init_rl_state(run.learner[saved_in], initial_policy))
    settings = run.fingerprint(saved_in, fingerprint)
    found = checkpoints.restore(abstract(models), settings, step)
    params = found.state["policy"].params
    kept.set_aside_damaged()
    kept.save(step, params)
    say(f"{said}; it was made again from the checkpoint of step {step}")
    return params


def _last_refresh(run: StagedRun, index: int) -> int | None:
    """The last stage up to this one that began with a fresh reference."""
    refreshed = [j for j in range(1, index + 1) if run.stages[j].fresh_reference]
    return refreshed[-1] if refreshed else None
