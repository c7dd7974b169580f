"""`jaxrl-reason train`: any model, any task, any method."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jaxrl_reason.cli.main import run
from jaxrl_reason.rl.collect import GraderError, NoSignalError
from jaxrl_reason.serving import EngineError
from jaxrl_reason.train.config_file import read_config, with_tree
from jaxrl_reason.train.presets import PRESETS
from jaxrl_reason.train.run import finished_report, run_training
from jaxrl_reason.train.settings_checks import unread_flags
from jaxrl_reason.train.train_settings import TrainSettings

DESCRIPTION = """Train a model.

The settings are those of --preset, or the defaults; over them those of --config, over
these the flags. The run's folder then holds config.yaml (which starts the same run
again), metrics.jsonl, TensorBoard events, samples, curves.png, checkpoints, report.json
and report.md. Ctrl-C leaves a run that `--resume must` continues.
"""


@dataclass(frozen=True)
class TrainCommand:
    """Settings of the command besides those of the run.

    Attributes:
      preset: start from the settings of a study: countdown, smollm2-arithmetic or
        smollm2-gsm8k.
      config: YAML file of settings, such as the config.yaml of another run.
    """

    settings: Annotated[TrainSettings, tyro.conf.arg(name="")]
    preset: str | None = None
    config: Path | None = None


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
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=preset)
    first.add_argument("--config", type=Path)
    found = first.parse_known_args(list(argv))[0]
    if found.config is not None:
        # Errors in the flags are reported before the file is read.
        command = TrainCommand(starting_point(found.preset, {}))
        tyro.cli(
            TrainCommand, args=argv, default=command, description=description, prog=prog
        )
    tree = {} if found.config is None else read_config(found.config)
    default = starting_point(tree.pop("preset", found.preset), tree)
    command = TrainCommand(default, found.preset, found.config)
    settings = tyro.cli(
        TrainCommand, args=argv, default=command, description=description, prog=prog
    ).settings
    for sentence in unread_flags(settings, default):
        print(f"note: {sentence}", file=sys.stderr)
    return settings


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
      SystemExit: with status 130 after an interrupt.
    """
    start(read_settings(argv), "jaxrl-reason train")


def start(settings: TrainSettings, command: str) -> None:
    """Runs a training, or reports that it is finished.

    Raises:
      SystemExit, ValueError: as `main`.
    """
    done = finished_report(settings) if settings.resume == "auto" else None
    if done is not None and settings.last_step in (None, done["steps"]):
        print(f"finished before: {settings.folder / 'report.md'}")
        return
    try:
        finished = run_training(settings) is not None
    except (NoSignalError, GraderError, EngineError) as error:
        raise ValueError(str(error)) from error  # a sentence, no traceback
    except KeyboardInterrupt:  # the second one: do not finish the step
        finished = False
    if not finished:
        print(
            f"stopped; resume with: {command} --resume must "
            f"--run-dir {settings.folder} (and the flags of the first start)"
        )
        sys.stdout.flush()
        raise SystemExit(130)


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
        settings = read_settings(
            argv[1:], preset=preset, description=description, prog=command
        )
        start(settings, command)

    run(study)
