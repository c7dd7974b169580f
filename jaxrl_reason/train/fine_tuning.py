"""The supervised stage of a run."""

from pathlib import Path
from typing import Any

from jaxrl_reason.learner.sft_loop import SFTPosition, resume_sft, train_sft
from jaxrl_reason.learner.state import TrainState, init_state
from jaxrl_reason.runs.hooks import Hooks
from jaxrl_reason.runs.metrics_log import Row, truncate_after
from jaxrl_reason.train.guards import run_warnings, update_guard
from jaxrl_reason.train.run_setup import RunSetup
from jaxrl_reason.train.session import Session, StageResult, checkpoints_of

_SAVE_EVERY = 500
# What of a fine-tuning run says how it was trained, and what says on which model.
TRAINING = (
    *("seed", "sft", "sft_optimizer", "cosine"),
    *("trace", "trace_function", "sft_base"),
)
MODEL = ("model", "model_digest")


def fine_tune(setup: RunSetup, session: Session) -> TrainState:
    """The initial model of the next stage: built or read, then fine-tuned.

    Fine-tuning starts at update 0 or where the folder's run stopped; with 0 updates the
    model is unchanged.
    """
    if setup.supervised is None:
        return setup.built.init(None)
    return run_sft(setup, untuned_policy(setup), session, log_name="sft")


def untuned_policy(setup: RunSetup) -> TrainState:
    """The model of update 0: built or read, or the fine-tuned one of `sft_base`.

    Raises:
      ValueError: that one is of another model or vocabulary, or is not finished.
    """
    optimizer, base = setup.settings.sft_schedule(), setup.settings.sft_base
    state = setup.built.init(optimizer)
    if base is None:
        return state
    saved, ours = checkpoints_of(base, "sft"), setup.sft_fingerprint()
    theirs = saved.fingerprint()
    # How it was trained may differ; what gave a new model its tokens may not.
    free = set(TRAINING) if setup.files is None else ({*ours, *theirs} - {*MODEL})
    wanted = {name: x for name, x in ours.items() if name not in free}
    wanted |= {name: x for name, x in theirs.items() if name in free}
    if "response" in theirs["task"]:
        wanted["task"] = wanted["task"] | {"response": theirs["task"]["response"]}
    state, at = resume_sft(saved, wanted, state)
    updates = theirs["sft"]["updates"]
    if at.step < updates:
        raise ValueError(
            f"sft_base must hold a model trained for {updates} updates, got one of "
            f"{at.step} in {base}"
        )
    return init_state(state.params, optimizer.build())


def tuned_policy(setup: RunSetup, folder: Path) -> TrainState:
    """The policy that a run's main stage began with, from its folder.

    Args:
      setup: of the run.
      folder: of the run.

    Raises:
      ValueError: its fine-tuning was not finished.
    """
    settings = setup.settings
    if setup.supervised is None:
        return setup.built.init(None)
    state = untuned_policy(setup)
    saved = checkpoints_of(settings.sft_from or folder, "sft")
    state, at = resume_sft(saved, setup.sft_fingerprint(), state)
    if at.step < settings.sft.updates:
        raise ValueError(
            f"fine-tuning must have done {settings.sft.updates} updates, "
            f"got {at.step} in {saved.path}"
        )
    return state


def run_sft(
    setup: RunSetup, state: TrainState, session: Session, *, log_name: str
) -> TrainState:
    """Supervised updates up to `sft.updates`, from an initial state or a checkpoint.

    Args:
      setup: with examples.
      state: of update 0; donated.
      session: where to write.
      log_name: name of the file of rows.
    """
    settings, run, learner = setup.settings, session.run, setup.supervised
    assert learner is not None  # checked by the caller
    assert setup.examples is not None
    fingerprint = setup.sft_fingerprint()
    if settings.sft_from is None:
        checkpoints = session.checkpoints("sft", keep=1)
    else:
        checkpoints = checkpoints_of(settings.sft_from, "sft")
    at = SFTPosition()
    if settings.sft_from or checkpoints.steps():
        state, at = resume_sft(checkpoints, fingerprint, state)
    done, updates = at.step, settings.sft.updates
    if settings.sft_from and done < updates:
        raise ValueError(
            f"sft_from must hold a model trained for {updates} updates, "
            f"got one of {done} in {settings.sft_from}"
        )
    if done >= updates:
        return state
    truncate_after(run.path / f"{log_name}.jsonl", done)
    session.progress.stage("sft", updates, done)
    evaluated = log_name != "sft"  # the main stage of that run

    def evaluate(params: Any) -> Row:
        return setup.heldout.row(params)

    with session.log(log_name) as log:
        hooks = Hooks(
            log=log,
            checkpoints=checkpoints,
            fingerprint=fingerprint,
            progress=session.progress,
            interrupt=session.interrupt,
            save_every=_SAVE_EVERY,
            save_minutes=settings.checkpoints.every_minutes,
            evaluate=evaluate if evaluated else None,
            evaluate_every=settings.eval.every,
            log_every=settings.eval.every if evaluated else 50,
            profile=session.profile(settings.profile) if evaluated else None,
            guard=update_guard(settings, session),
            warnings=run_warnings(settings, session, log_name),
        )
        return train_sft(learner, state, setup.examples, hooks, at)


class FineTuning:
    """Supervised fine-tuning as the main stage of a run (method sft)."""

    def __init__(self, setup: RunSetup) -> None:
        self.setup = setup

    def begin(self, policy: TrainState) -> TrainState:
        """The policy, which already has the optimiser of fine-tuning."""
        return policy

    def run(self, state: TrainState, session: Session) -> StageResult:
        """Trains up to `sft.updates`."""
        first = int(state.step)
        state = run_sft(self.setup, state, session, log_name="metrics")
        # Skipped updates are not counted in the state.
        return StageResult(state.params, self.setup.settings.sft.updates, first)
