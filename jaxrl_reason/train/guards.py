"""What watches over a run: its updates and its metrics."""

from pathlib import Path

from jaxrl_reason.runs.checkpoint_bucket import is_remote
from jaxrl_reason.runs.metrics_log import read_metrics
from jaxrl_reason.runs.run_warnings import RunWarnings
from jaxrl_reason.runs.update_guard import UpdateGuard
from jaxrl_reason.sharding.agreement import on_main
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
    path, known = session.run.path / f"{log_name}.jsonl", settings.warnings
    count = known.history + known.rows
    # The file is that of process 0, and all of them must stop at the same row.
    rows = on_main("rows before", lambda: read_metrics(path)[-count:])
    return RunWarnings(known, settings.stop_on, session.progress.note, rows)


def kept_checkpoints(settings: TrainSettings) -> str:
    """The newest checkpoint of each stage of a run, in words.

    Args:
      settings: of the run.
    """
    folder = settings.checkpoints.folder
    if folder is not None and is_remote(folder):
        return f"checkpoints that were saved before are in {folder}"
    root = Path(folder) if folder is not None else settings.folder / "checkpoints"
    newest = {}
    for path in sorted(root.glob("*/*")):
        if path.name.isdecimal():
            newest[path.parent.name] = int(path.name)
    if not newest:
        return "no checkpoint was saved before"
    names = ", ".join(f"{stage} {step}" for stage, step in newest.items())
    return f"newest checkpoints: {names}; --resume must goes on from there"
