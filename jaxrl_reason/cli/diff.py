"""`jaxrl-reason diff`: where two runs part."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxrl_reason.runs.run_diff import diff_runs, differing_settings


@dataclass(frozen=True)
class DiffSettings:
    """Find the first step at which two runs part, and what is different there.

    Ends with status 1 if anything is.

    Attributes:
      first: folder of a run, called A.
      second: folder of another, called B.
      shown: names to print of each file.
    """

    first: Annotated[Path, tyro.conf.Positional]
    second: Annotated[Path, tyro.conf.Positional]
    shown: int = 10

    def __post_init__(self) -> None:
        if self.shown < 0:
            raise ValueError(f"shown must be >= 0, got {self.shown}")


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      ValueError: a folder has no run.
      SystemExit: with status 1 if the runs part.
    """
    settings = tyro.cli(DiffSettings, args=argv, prog="jaxrl-reason diff")
    found = diff_runs(settings.first, settings.second)
    print(f"A: {settings.first}\nB: {settings.second}")
    for line in differing_settings(settings.first, settings.second):
        print(f"setting {line}")
    if not found:
        print("the same bits, as far as both go")
        return
    for parting in found:
        print(f"\nfirst different in {parting.where}: step {parting.step}")
        for line in parting.lines[: settings.shown]:
            print(f"  {line}")
        if parting.lines[settings.shown :]:
            print(f"  and {len(parting.lines) - settings.shown} more")
    raise SystemExit(1)
