"""Hooks of a loop: its log, checkpoints, evaluations and interrupts."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxrl_reason.runs.checkpoints import CheckpointFolder
from jaxrl_reason.runs.interrupt import GracefulInterrupt
from jaxrl_reason.runs.metrics_log import MetricsLog, Row
from jaxrl_reason.runs.profile import StepProfile
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_warnings import RunWarnings
from jaxrl_reason.runs.update_guard import NotFiniteError, Update, UpdateGuard
from jaxrl_reason.sharding.agreement import exchange
from jaxrl_reason.sharding.processes import count

Params = Any
# What a checkpoint holds, as arguments of `CheckpointFolder.save`.
Contents = Callable[[], Mapping[str, Any]]


@dataclass(frozen=True)
class Hooks:
    """The outputs of a loop, what it checks, and how often.

    Attributes:
      log: gets one row per step (the supervised loop: one per `log_every` updates).
      checkpoints: of this stage.
      fingerprint: settings that a resumed run must share.
      progress: the progress bar.
      interrupt: checked after every step.
      save_every: steps between checkpoints.
      save_minutes: a checkpoint also when the newest is this old; 0 for never.
      evaluate: params -> metrics, e.g. {"heldout/accuracy": 0.4}.
      evaluate_every: steps between evaluations; the last step is always evaluated.
      show_samples: gets (step, rollouts) at every evaluation.
      log_every: supervised updates between rows.
      annotate: (RL step, its sampled rollouts) -> further columns of its row.
      profile: traces one step.
      guard: watches the updates; None for no bound on those that are skipped.
      warnings: looks at the rows.
    """

    log: MetricsLog
    checkpoints: CheckpointFolder
    fingerprint: Mapping[str, Any]
    progress: TrainingProgress
    interrupt: GracefulInterrupt
    save_every: int
    save_minutes: float = 0.0
    evaluate: Callable[[Params], Row] | None = None
    evaluate_every: int = 0
    show_samples: Callable[[int, Any], None] | None = None
    log_every: int = 50
    annotate: Callable[[int, Any], Row] | None = None
    profile: StepProfile | None = None
    guard: UpdateGuard | None = None
    warnings: RunWarnings | None = None

    def record(self, step: int, row: Row) -> None:
        """Writes a finished row, with the warnings in it, and shows it.

        Args:
          step: of the row.
          row: its metrics.
        """
        if self.warnings is not None:
            row = {**row, **self.warnings.look(step, row)}
        self.log.write(step, row)
        self.progress.update(step, row)

    def watch(self, update: Update, name: str) -> Update:
        """An update function that the guard watches, if there is one.

        Args:
          update: of a learner.
          name: of its model.
        """
        if self.guard is None:
            return update
        return self.guard.watch(update, name, at_once=False)

    def check(
        self, models: Mapping[str, Any], save: Callable[[], None], *, wait: bool = True
    ) -> None:
        """Ends the loop where its updates or its warnings ask for that.

        What is still good is saved first.

        Args:
          models: the states of the trained models by name.
          save: saves a checkpoint of the last finished step.
          wait: look at updates that the device may not have finished.

        Raises:
          NotFiniteError: too many updates, one after the other, were skipped.
          StoppedByWarning: a warning that ends the run.
        """
        if self.guard is not None:
            try:
                self.guard.check(models, wait=wait)
            except NotFiniteError:
                with contextlib.suppress(NotFiniteError):  # nothing good to save
                    save()
                self.checkpoints.wait()
                raise
        if self.warnings is not None and self.warnings.stopping:
            save()
            self.checkpoints.wait()
            self.warnings.stop_if_asked()

    def hold(self, step: int, contents: Contents | None = None) -> None:
        """Keeps a finished step for the grace period of a signal, if there is one.

        Args:
          step: that has ended.
          contents: of its checkpoint; None if it has one, or cannot be saved in the
            middle of the next step.
        """
        hold_step(self.interrupt, self.checkpoints, self.fingerprint, step, contents)

    def profiled(self, step: int) -> contextlib.AbstractContextManager[None]:
        """Context of a step: traces it if it is the one to profile."""
        return contextlib.nullcontext() if self.profile is None else self.profile(step)

    def save_due(self, step: int, score: float | None = None) -> bool:
        """Whether this step is saved: by its number, the clock, or as the best so far.

        Args:
          step: that has ended.
          score: of this step, if it was evaluated.
        """
        old = False
        if self.save_minutes:  # the clock of process 0 is that of all
            age = self.checkpoints.seconds_since_save()
            old = exchange("save", age >= 60 * self.save_minutes)[0]
        best = score is not None and self.checkpoints.is_best(score)
        return step % self.save_every == 0 or old or best

    def due(self, step: int, last: int) -> bool:
        """Whether this step is evaluated."""
        if self.evaluate is None or not self.evaluate_every:
            return False
        return step % self.evaluate_every == 0 or step == last


def hold_step(
    interrupt: GracefulInterrupt,
    checkpoints: CheckpointFolder,
    fingerprint: Mapping[str, Any],
    step: int,
    contents: Contents | None = None,
) -> None:
    """Keeps a finished step, on the host, since updates donate its arrays.

    With several processes there is nothing to keep: a checkpoint is of all of them, and
    they are at different places when the grace period ends.

    Args:
      interrupt: of the run; without a grace period nothing is kept.
      checkpoints: of the stage.
      fingerprint: settings that a resumed run must share.
      step: that has ended.
      contents: as for `Hooks.hold`.
    """
    if not interrupt.grace or count() > 1:
        return
    kept: dict[str, Any] | None = None
    if contents is not None:
        kept = dict(contents())
        kept["state"] = jax.device_get(kept["state"])

    def save() -> int | None:
        steps = checkpoints.steps()  # waits for the one that is being written
        if kept is not None and step not in steps and _is_finite(kept["state"]):
            checkpoints.save(**kept, fingerprint=fingerprint)
            checkpoints.wait()
            return step
        return max(steps, default=None)

    interrupt.hold(save)


def _is_finite(state: Any) -> bool:
    """Whether all numbers are; on the host, since the devices may not answer."""
    return all(
        bool(np.isfinite(x).all())
        for x in jax.tree.leaves(state)
        if jax.numpy.issubdtype(x.dtype, jax.numpy.floating)
    )
