"""`jaxrl-reason train`: any model, any task, any method."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxrl_reason.cli.main import run
from jaxrl_reason.rl.collect import NoSignalError
from jaxrl_reason.runs.interrupt import AT_ONCE, REQUEUE
from jaxrl_reason.runs.run_log import say
from jaxrl_reason.runs.run_warnings import StoppedByWarning
from jaxrl_reason.runs.update_guard import NotFiniteError
from jaxrl_reason.serving import EngineError
from jaxrl_reason.sharding.lifetime import joined
from jaxrl_reason.tasks.grade_responses import GraderError
from jaxrl_reason.train.config_file import read_config, with_tree
from jaxrl_reason.train.guards import kept_checkpoints
from jaxrl_reason.train.presets import PRESETS
from jaxrl_reason.train.run import finished_report, run_training
from jaxrl_reason.train.train_settings import TrainSettings
from jaxrl_reason.train.unread_flags import unread_flags

DESCRIPTION = """Train a model.

The settings are those of --preset, or the defaults; over them those of --config, over
these the flags. The run's folder then holds config.yaml (which starts the same run
again), metrics.jsonl, TensorBoard events, samples, curves.png, checkpoints, report.json
and report.md. Ctrl-C leaves a run that `--resume must` continues.
"""


@dataclass(frozen=True)
class ProcessSettings:
    """How a process finds the others of its run.

    Attributes:
      distributed: this process is one of several of the run, all started by the same
        command. Under Slurm, Open MPI, GKE and on TPU VMs JAX finds the others itself.
      coordinator_address: host:port of process 0, where JAX does not know it.
      num_processes: of the run, likewise.
      process_id: of this process, from 0, likewise.
      stuck_after: seconds without progress of a process after which all of them end.
    """

    distributed: bool = False
    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    stuck_after: float = 1800.0

    def __post_init__(self) -> None:
        given = (self.coordinator_address, self.num_processes, self.process_id)
        if not self.distributed and any(x is not None for x in given):
            raise ValueError(
                "coordinator_address, num_processes and process_id need --distributed"
            )
        if not self.stuck_after > 0:
            raise ValueError(f"stuck_after must be above 0, got {self.stuck_after:g}")

    def joined(self) -> contextlib.AbstractContextManager[None]:
        """The block of the run: among its processes, if there are several."""
        if not self.distributed:
            return contextlib.nullcontext()
        return joined(
            self.coordinator_address,
            self.num_processes,
            self.process_id,
            stuck_after=self.stuck_after,
        )


@dataclass(frozen=True)
class TrainCommand:
    """Settings of the command besides those of the run.

    Attributes:
      preset: start from the settings of a study: countdown, smollm2-arithmetic,
        smollm2-gsm8k, or dapo-qwen2.5-32b, DAPO's own job for a pod.
      config: YAML file of settings, such as the config.yaml of another run.
    """

    settings: Annotated[TrainSettings, tyro.conf.arg(name="")]
    preset: str | None = None
    config: Path | None = None
    processes: Annotated[ProcessSettings, tyro.conf.arg(name="")] = ProcessSettings()


def read_settings(
    argv: Sequence[str],
    *,
    preset: str | None = None,
    description: str = DESCRIPTION,
    prog: str = "jaxrl-reason train",
) -> TrainSettings:
    """The settings of a command line.

    Args:
      argv: the arguments.
      preset: to start from if the arguments name none.
      description: the first paragraph of --help.
      prog: the command's name in --help.

    Raises:
      ValueError: a file or a setting cannot be used.
      SystemExit: after --help, or for arguments that cannot be read.
    """
    return read_command(argv, preset, description, prog)[0]


def read_command(
    argv: Sequence[str],
    preset: str | None = None,
    description: str = DESCRIPTION,
    prog: str = "jaxrl-reason train",
) -> tuple[TrainSettings, ProcessSettings]:
    """`read_settings`, and how to find the other processes."""
    found = named_start(argv, preset)
    if found.config is not None:
        # Errors in the flags are reported before the file is read.
        command = TrainCommand(starting_point(found.preset, {}))
        tyro.cli(
            TrainCommand, args=argv, default=command, description=description, prog=prog
        )
    default = starting_settings(found)
    command = TrainCommand(default, found.preset, found.config)
    command = tyro.cli(
        TrainCommand, args=argv, default=command, description=description, prog=prog
    )
    if not command.processes.process_id:
        for sentence in unread_flags(command.settings, default):
            print(f"note: {sentence}", file=sys.stderr)
    return command.settings, command.processes


def named_start(argv: Sequence[str], preset: str | None) -> argparse.Namespace:
    """The preset and the file that arguments name, before the flags are read."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=preset)
    first.add_argument("--config", type=Path)
    return first.parse_known_args(list(argv))[0]


def starting_settings(named: argparse.Namespace) -> TrainSettings:
    """The settings of a preset and a file, of `named_start`."""
    tree = {} if named.config is None else read_config(named.config)
    return starting_point(tree.pop("preset", named.preset), tree)


def starting_point(preset: str | None, tree: dict[str, object]) -> TrainSettings:
    """The settings of a preset or the defaults, overridden by those of a file."""
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
    return with_tree(TrainSettings() if preset is None else PRESETS[preset], tree)


def main(argv: Sequence[str]) -> None:
    """Runs the command with these arguments.

    Args:
      argv: the arguments.

    Raises:
      ValueError: the settings, the files or the model cannot be used, or training
        cannot continue.
      SystemExit: with status 75 after an interrupt that saved, 130 after a second one.
    """
    start(*read_command(argv), "jaxrl-reason train")


def start(settings: TrainSettings, processes: ProcessSettings, command: str) -> None:
    """Runs a training, or reports that it is finished.

    Raises:
      SystemExit, ValueError: as `main`.
    """
    try:
        with processes.joined():
            status = 0 if finish(settings) else REQUEUE
    except KeyboardInterrupt:  # the second one: do not finish the step
        status = AT_ONCE
    if status:
        say(
            f"stopped; resume with: {command} --resume must "
            f"--run-dir {settings.folder} (and the flags of the first start)"
        )
        raise SystemExit(status)


def finish(settings: TrainSettings) -> bool:
    """Whether the run is finished, now or before; an interrupt saves and stops it."""
    done = finished_report(settings) if settings.resume == "auto" else None
    if done is not None and settings.last_step in (None, done["steps"]):
        say(f"finished before: {settings.folder / 'report.md'}")
        return True
    try:
        return run_training(settings) is not None
    except NotFiniteError as error:
        raise ValueError(f"{error}; {kept_checkpoints(settings)}") from error
    except (NoSignalError, GraderError, EngineError, StoppedByWarning) as error:
        raise ValueError(str(error)) from error  # a sentence, no traceback


def script(argv: Sequence[str], *, preset: str, description: str) -> None:
    """A study of `experiments/`: a preset with its own name and page.

    Args:
      argv: of the process, the script's path first.
      preset: to run.
      description: for --help.

    Raises:
      SystemExit: as the command `jaxrl-reason`.
    """
    command = f"python {argv[0]}"

    def study() -> None:
        start(*read_command(argv[1:], preset, description, command), command)

    run(study)
