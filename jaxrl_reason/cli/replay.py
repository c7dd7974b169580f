"""`jaxrl-reason replay`: a step of a run once more."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.serving import EngineError
from jaxrl_reason.tasks.grade_responses import GraderError
from jaxrl_reason.train.replay_page import verdict, write_replay
from jaxrl_reason.train.replay_run import replay_run


@dataclass(frozen=True)
class ReplaySettings:
    """Run a step of an RL run again and write its loss by response and token.

    From the newest checkpoint before the step, or from the beginning. The row is
    compared with the run's, whose folder gets the folder `replay` and is not changed
    otherwise. Ends with status 1 if the numbers differ. Paths in the run's settings are
    read as the run read them: start it where the run was started.

    Attributes:
      run: folder of the run, finished or broken.
      step: of metrics.jsonl.
      out: where to write; by default replay/STEP in the run's folder.
    """

    run: Annotated[Path, tyro.conf.Positional]
    step: int
    out: Path | None = None


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      ValueError: the folder has no such step, or it cannot be run again.
      SystemExit: with status 1 if the numbers are not those of the run.
    """
    settings = tyro.cli(ReplaySettings, args=argv, prog="jaxrl-reason replay")
    try:
        replay = replay_run(settings.run, settings.step)
    except (NoSignalError, GraderError, EngineError) as error:
        raise ValueError(str(error)) from error  # a sentence, no traceback
    out = settings.out or settings.run / "replay" / f"{settings.step:08d}"
    page = write_replay(replay, out)
    print("\n".join([*verdict(replay), f"written: {page}"]))
    if replay.differences or replay.arrays:
        raise SystemExit(1)
