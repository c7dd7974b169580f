"""The command `jaxrl-reason`, also `python -m jaxrl_reason`.

Imports little: worker processes import this file again, and --help must be fast.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence

# A command is the `main` of the module with its name in this folder. It takes the
# arguments and raises errors; only `run` below turns these into an exit.
COMMANDS = {
    "train": "train a model, on any task, by any method",
    "replay": "run a step of a run again: the same bits, its loss by token",
    "diff": "find the first step at which two runs part",
    "compare": "draw runs beside each other, with forecasts of their accuracy",
    "data": "clean a raw set of questions for training: data clean RAW... --out DIR",
    "evaluate": "measure a model on a benchmark",
    "claim": "test what a paper claims on toys: shown, refuted or unresolved",
    "generate": "stream a completion of a model",
    "aot": "compile a run for a pod that is not there: does it fit, how fast is it",
    "export": "write a model as a Hugging Face folder with a model card",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a command.

    Args:
      argv: the command's name and its arguments; those of this process if None.

    Raises:
      SystemExit: with one sentence if the settings, the files or the model cannot be
      used (status 1); for the command's `--help` and usage errors (0 and 2).
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in ("-h", "--help"):
        print(usage())
        return
    if name not in COMMANDS:
        print(f"{usage()}\n\nno command is called {name!r}", file=sys.stderr)
        raise SystemExit(2)
    # Inside, so that Ctrl-C during the import of JAX is handled like any other.
    run(lambda: importlib.import_module(f"jaxrl_reason.cli.{name}").main(rest))


def run(command: Callable[[], None]) -> None:
    """Runs a command for a person: an error ends it with one sentence.

    Args:
      command: raises errors.

    Raises:
      SystemExit: as `main`.
    """
    try:
        command()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has closed the pipe; Python's writes at exit must not fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except (ValueError, ImportError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    except KeyboardInterrupt:
        # No orderly exit: JAX would crash in one if it was interrupted during a
        # compilation. The records are on disk; the same call continues from there.
        os.write(2, b"\n")
        os._exit(130)


def usage() -> str:
    """The usage text, one line per command."""
    lines = [f"  {name:<10}{what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "usage: jaxrl-reason COMMAND ...",
            "",
            *lines,
            "",
            "`jaxrl-reason COMMAND --help` explains a command's settings.",
        ]
    )
