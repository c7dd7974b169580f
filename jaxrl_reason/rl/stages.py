"""Runs in stages, between which length limit, group size, method or data change.

Steps and rollouts are numbered through the whole run, so that no two stages use the
same random numbers. Checkpoints are in one folder and name their stage.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_reason.learner.state import TrainState
from jaxrl_reason.rl.collect import compute_rewards
from jaxrl_reason.rl.rl_learner import RLLearner, RLState, init_rl_state
from jaxrl_reason.rl.rl_loop import restore_rl, train_rl
from jaxrl_reason.rl.rollouts import Rollouts
from jaxrl_reason.rl.stage_parts import InStage, StagedRun, StageProblems
from jaxrl_reason.rl.stage_references import (
    references,
    remake_reference,
    stage_reference,
)
from jaxrl_reason.runs.checkpoints import CheckpointError, CheckpointFolder
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import Row
from jaxrl_reason.sharding.agreement import ProcessError

Params = Any


def train_stages(
    run: StagedRun, initial_policy: TrainState, hooks: Hooks, now: InStage | None = None
) -> RLState:
    """Runs the stages one after the other; an interrupt ends the run, not a stage.

    Args:
      run: of `build_stages`.
      initial_policy: to start from; it is kept as the reference if one is needed.
      hooks: of the run; its fingerprint is what the stages share. Evaluate in the same
        way in all stages, or the curves are not comparable.
      now: the position from `resume_stages`; the start of the first stage if None.

    Returns:
      The state after the last step. Rows of metrics have `run/stage`, from 1, and the
      first of a stage `groups/surplus_dropped`.
    """
    if now is None:
        now = begin_stage(run, 0, None, initial_policy, hooks.checkpoints)
    while True:
        stage, learner = run.stages[now.index], run.learner[now.index]
        hooks.progress.stage(stage.name, learner.settings.steps, now.state.step)
        state = train_rl(learner, now.state, now.problems, stage_hooks(run, now, hooks))
        following = now.index + 1
        if hooks.interrupt.requested or following == len(run.stages):
            return state
        now = begin_stage(run, following, state, initial_policy, hooks.checkpoints)


def resume_stages(
    run: StagedRun,
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    initial_policy: TrainState,
    step: int | None = None,
    *,
    mend: bool = False,
) -> InStage:
    """Continues from a checkpoint, in the stage in which it was saved.

    Args:
      run: of the same stages; later ones may differ.
      checkpoints: of the run; those after the chosen one are moved aside.
      fingerprint: settings that the stages share.
      initial_policy: the policy that the run started from.
      step: of the checkpoint, the newest if None.
      mend: a damaged reference is set aside and made again, to the bit, if the
        checkpoint of its step is whole.

    Raises:
      CheckpointError: as `CheckpointFolder.restore`; also for a stage that the run does
        not have, and for a damaged reference.
    """
    now = restore_stages(run, checkpoints, fingerprint, initial_policy, step, mend=mend)
    checkpoints.drop_after(now.state.step)
    return now


def restore_stages(
    run: StagedRun,
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    initial_policy: TrainState,
    step: int | None = None,
    *,
    mend: bool = False,
) -> InStage:
    """The position in a checkpoint; as `resume_stages`, but later ones stay."""
    names = [stage.name for stage in run.stages]
    saved = checkpoints.fingerprint(step).get("stage")
    # An unknown stage: `restore` reports what differs.
    index = names.index(saved) if saved in names else 0
    problems = StageProblems(run.stages[index])
    shapes = init_rl_state(run.learner[index], initial_policy)
    settings = run.fingerprint(index, fingerprint)
    state = restore_rl(checkpoints, settings, shapes, problems, step)
    try:
        reference = stage_reference(run, index, initial_policy, checkpoints)
    except (CheckpointError, ProcessError) as error:
        reference = remake_reference(
            run, index, initial_policy, checkpoints, fingerprint, mend=mend, error=error
        )
    return InStage(index, replace(state, reference=reference), problems)


def begin_stage(
    run: StagedRun,
    index: int,
    before: RLState | None,
    initial_policy: TrainState,
    checkpoints: CheckpointFolder,
) -> InStage:
    """Moves a run to a stage: models, optimisers, surplus, counters, data.

    Args:
      run: of `build_stages`.
      index: of the stage.
      before: the state at the end of the previous stage; None at the first.
      initial_policy: the policy that the run started from.
      checkpoints: of the run; a fresh reference is saved in `references` beside them,
        but not where they are only read.
    """
    stage, learner = run.stages[index], run.learner[index]
    dropped = 0
    if before is None:
        state = init_rl_state(learner, initial_policy)
    else:
        if stage.fresh_reference and not checkpoints.read_only:
            references(run, checkpoints).save(before.step, before.policy.params)
        surplus, dropped = fit_surplus(before.surplus, learner)
        if stage.fresh_reference and checkpoints.read_only:
            # A copy, since updates donate the policy.
            reference = jax.tree.map(jnp.copy, before.policy.params)
        else:
            reference = stage_reference(run, index, initial_policy, checkpoints)
        state = replace(
            before,
            surplus=surplus,
            unfinished=None,
            reference=reference,
            **carry_models(run, index, before),
        )
    prepared = stage.prepare(learner, state) if stage.prepare is not None else None
    return InStage(index, state, StageProblems(stage).open(prepared), dropped)


def carry_models(run: StagedRun, index: int, before: RLState) -> dict[str, Any]:
    """Carries trained models into a stage and initialises those that are new in it.

    Returns:
      Fields of RLState: policy, models and controls.
    """
    stage, learner = run.stages[index], run.learner[index]
    fresh = init_rl_state(learner, before.policy)

    models = dict(fresh.models)
    for name in fresh.models.keys() & before.models.keys():
        old = before.models[name]
        # A new optimiser for the old parameters has the structure that the stage needs.
        renewed = replace(fresh.models[name], params=old.params)
        models[name] = renewed if stage.fresh_optimizer else old
    return {
        "policy": fresh.policy if stage.fresh_optimizer else before.policy,
        "models": models,
        "controls": (
            before.controls
            if before.controls.keys() == fresh.controls.keys()
            else fresh.controls
        ),
    }


def fit_surplus(
    surplus: Rollouts | None, learner: RLLearner
) -> tuple[Rollouts | None, int]:
    """Surplus groups in the shapes of another stage, and the number that is dropped.

    Groups are padded to a longer limit, or trimmed to a shorter one if that removes
    only padding; the stage's method recomputes their rewards. Groups of another size
    and groups that are too long are dropped, all of them if the method does not refill,
    and the oldest if they would fill a batch alone: every step must sample.
    """
    if surplus is None:
        return None, 0
    s, method = learner.settings, learner.method
    fits = surplus.lengths.max(axis=1) <= s.max_new_tokens
    fits &= surplus.prompt_lengths <= s.prompt_width
    refills = method.dynamic_sampling is not None
    fits &= refills and surplus.lengths.shape[1] == s.group_size
    where = np.flatnonzero(fits)
    where = where[max(0, len(where) - (s.prompts_per_step - 1)) :]
    dropped = len(surplus.problem_ids) - len(where)
    if not len(where):
        return None, dropped
    kept = surplus.select(where)
    kept = replace(
        kept,
        prompt_tokens=_of_width(kept.prompt_tokens, s.prompt_width),
        tokens=_of_width(kept.tokens, s.max_new_tokens),
        sampler_logprobs=_of_width(kept.sampler_logprobs, s.max_new_tokens),
    )
    return compute_rewards(method, kept), dropped


def stage_hooks(run: StagedRun, now: InStage, hooks: Hooks) -> Hooks:
    """The hooks of a run for one stage, with its fingerprint and number."""
    fingerprint = run.fingerprint(now.index, hooks.fingerprint)
    annotate = stage_annotation(run, now, hooks.annotate)
    return replace(hooks, fingerprint=fingerprint, annotate=annotate)


def stage_annotation(
    run: StagedRun, now: InStage, more: Callable[[int, Rollouts], Row] | None
) -> Callable[[int, Rollouts], Row]:
    """What a stage adds to its rows, and what the run adds to all."""
    first, dropped, number = run.first_step(now.index) + 1, now.dropped, now.index + 1

    def annotate(step: int, fresh: Rollouts) -> Row:
        row = more(step, fresh) if more is not None else {}
        row = {**row, "run/stage": number}
        return row | {"groups/surplus_dropped": dropped} if step == first else row

    return annotate


def _of_width(x: np.ndarray, width: int) -> np.ndarray:
    """[..., N] -> [..., width], padded with zeros or trimmed on the right."""
    x = x[..., :width]
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, width - x.shape[-1])])
