"""What watches over a run: its updates and its metrics."""

from pathlib import Path

from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.runs.run_warnings import RunWarnings
from jaxrl_reason.runs.update_guard import UpdateGuard
from jaxrl_reason.train.session import Session
from jaxrl_reason.train.train_settings import TrainSettings


def update_guard(settings: TrainSettings, session: Session) -> UpdateGuard:
    """The bound on skipped updates, with the run's folder for their batch."""
    return UpdateGuard(settings.max_skipped_updates, session.run.path)


def run_warnings(
    settings: TrainSettings, session: Session, log_name: str = "metrics"
) -> RunWarnings:
    """The warnings of a stage, which know the rows that it has already.

    Args:
      settings: of the run.
      session: where to print, and the folder of the rows.
      log_name: name of the file of rows.
    """
    return RunWarnings(
        settings.warnings,
        settings.stop_on,
        session.progress.note,
        read_metrics(session.run.path / f"{log_name}.jsonl"),
    )


def kept_checkpoints(folder: Path) -> str:
    """The newest checkpoint of each stage of a run, in words.

    Args:
      folder: of the run.
    """
    newest = {}
    for path in sorted((folder / "checkpoints").glob("*/*")):
        if path.name.isdecimal():
            newest[path.parent.name] = int(path.name)
    if not newest:
        return "no checkpoint was saved before"
    names = ", ".join(f"{stage} {step}" for stage, step in newest.items())
    return f"newest checkpoints: {names}; --resume must goes on from there"
