"""`jaxrl-reason aot`: compiles a run for devices that are not there."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jaxrl_reason.aot.aot_run import compile_run, search_run, with_nearest
from jaxrl_reason.aot.run_steps import STEPS
from jaxrl_reason.aot.topology import parse_topology
from jaxrl_reason.aot.verdict import verdict_text
from jaxrl_reason.aot.verdict_page import ranking_text, write_verdict
from jaxrl_reason.cli.train import named_start, starting_settings
from jaxrl_reason.train.train_settings import TrainSettings

DESCRIPTION = """Compile a run before you rent its devices.

The steps of the run with these settings are compiled for a TPU slice or for NVIDIA
GPUs, none of which is needed: does each step fit, what fills the memory, what is
exchanged over which axis, what limits the speed. The settings and flags are those of
`jaxrl-reason train`; without --preset or --config they start from DAPO's own job
(dapo-qwen2.5-32b). The model may be a name, such as qwen2.5-7b: no weights are read.
"""


@dataclass(frozen=True)
class AotCommand:
    """Settings of the command besides those of the run.

    Attributes:
      topology: the devices: a TPU slice such as v5p:4x4x4 (v4, v5e, v5p, v6e, tpu7x),
        or GPUs such as h100:64 (h100, h200, b200).
      preset: start from the settings of a study.
      config: YAML file of settings, such as the config.yaml of a run.
      steps: which steps to compile.
      search: compile the update for other meshes, remat and micro-batches instead, and
        rank them.
      tries: how many settings a search compiles, or the search for settings that fit.
      effort: O1 compiles several times faster, but plans memory less well.
      html: file for a page with plots.
    """

    settings: Annotated[TrainSettings, tyro.conf.arg(name="")]
    topology: str
    preset: str | None = None
    config: Path | None = None
    steps: tuple[Literal["score", "update", "sample"], ...] = (
        "score",
        "update",
        "sample",
    )
    search: bool = False
    tries: int = 6
    effort: Literal["default", "O1"] = "default"
    html: Path | None = None

    def __post_init__(self) -> None:
        if self.tries < 1:
            raise ValueError(f"tries must be >= 1, got {self.tries}")
        if not self.steps:
            raise ValueError(f"steps must be some of {STEPS}, got none")


def check_page(given: AotCommand) -> None:
    """Raises, before anything is compiled, for a page that cannot be written.

    Args:
      given: of the command.

    Raises:
      ValueError: a search writes none, or its folder does not exist.
    """
    if given.html is None:
        return
    if given.search:
        raise ValueError(f"html is for a verdict, got {given.html} with search")
    if not given.html.absolute().parent.is_dir():
        raise ValueError(f"html must be in a folder that exists, got {given.html}")


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      ValueError: settings, model, mesh and topology do not fit together, or the
        platform's compiler is not installed.
    """
    # The method's other name, by which papers call it.
    argv = ["--method" if x == "--recipe" else x for x in argv]
    named = named_start(argv, None)
    if named.preset is None and named.config is None:
        named.preset = "dapo-qwen2.5-32b"
    default = starting_settings(named)
    given = tyro.cli(
        AotCommand,
        args=argv,
        default=AotCommand(default, tyro.MISSING),
        description=DESCRIPTION,
        prog="jaxrl-reason aot",
    )
    topology = parse_topology(given.topology)
    check_page(given)
    if given.search:
        found = search_run(given.settings, topology, given.tries, given.effort)
        print(ranking_text(found, topology))
        return
    verdict = compile_run(given.settings, topology, given.steps, given.effort)
    verdict = with_nearest(verdict, given.tries)
    print(verdict_text(verdict))
    if given.html is not None:
        write_verdict(given.html, verdict)
        print(f"written: {given.html}", file=sys.stderr)
