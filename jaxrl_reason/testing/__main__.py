"""`python -m jaxrl_reason.testing my_file.py:my_loss --out report/`.

Writes `index.html`, a self-contained page about the loss, and `report.json` with all
its numbers. Exits with status 1 if the loss fails a check.
"""

import argparse
import ast
import functools
import importlib
import importlib.util
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrl_reason.testing.arrays import INPUTS
from jaxrl_reason.testing.check import LAWS, case_of
from jaxrl_reason.testing.evaluate import LossFunction
from jaxrl_reason.testing.evidence import gather_evidence
from jaxrl_reason.testing.page import summary, write_page


def load_loss(place: str) -> LossFunction:
    """A loss from a file or a package.

    Args:
      place: `path/to/file.py:name` or `package.module:name`.

    Returns:
      The function.

    Raises:
      ValueError: the file, the module or the function does not exist.
    """
    path, colon, name = place.rpartition(":")
    if not colon or not name.isidentifier():
        raise ValueError(f"a loss must be my_file.py:my_loss, got {place!r}")
    if path.endswith(".py"):
        if not Path(path).is_file():
            raise ValueError(f"a loss must be in a file that exists, got {path}")
        spec = importlib.util.spec_from_file_location(Path(path).stem, path)
        assert spec is not None  # a .py file always has one
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # inspect looks up its source here
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(path)
        except ModuleNotFoundError as error:
            raise ValueError(
                f"a loss must be in a module that exists, got {path}"
            ) from error
    found = getattr(module, name, None)
    if not callable(found):
        raise ValueError(f"{path} must have a function of this name, got {name!r}")
    function: LossFunction = found
    return function


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return name, value


def parser() -> argparse.ArgumentParser:
    """The arguments of the command."""
    made = argparse.ArgumentParser(
        prog="python -m jaxrl_reason.testing",
        description=(
            "Checks a policy loss of JAX or torch: the laws that hold for any of them, "
            "its gradient against finite differences, the nearest published method, a "
            "learning curve on a toy. Writes one page of HTML and a JSON."
        ),
        epilog=(
            "The loss is f(logprobs, old_logprobs, advantages, mask, counts, **inputs) "
            "-> (scalar, metrics). Inputs that it may name: "
            + ", ".join(INPUTS)
            + ", or names that end in _logprobs. Laws: "
            + ", ".join(law.name for law in LAWS)
            + "."
        ),
    )
    made.add_argument("loss", help="my_file.py:my_loss or package.module:my_loss")
    made.add_argument("--out", type=Path, default=Path("report"), help="a folder")
    made.add_argument(
        "--set",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the loss; may be repeated",
    )
    made.add_argument(
        "--inputs",
        nargs="*",
        metavar="NAME",
        help="what the loss gets by keyword; left out: what it names and can be made",
    )
    made.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="LAW",
        help="a law that the method breaks on purpose; may be repeated",
    )
    made.add_argument("--seed", type=int, default=0, help="of the random arrays")
    made.add_argument("--seeds", type=int, default=8, help="toy runs")
    made.add_argument("--steps", type=int, default=60, help="of a toy run")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report and returns the exit status."""
    given = parser().parse_args(arguments)
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        loss = load_loss(given.loss)
        if given.set:
            loss = functools.partial(loss, **dict(given.set))
        case = case_of(loss, inputs=given.inputs, seed=given.seed)
        evidence = gather_evidence(
            case,
            skip=given.skip,
            seeds=given.seeds,
            steps=given.steps,
            say=lambda part: print(f"{part} ...", flush=True),
        )
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = shlex.join(["python", "-m", "jaxrl_reason.testing", *words])
    page = write_page(evidence, given.out, command)
    for x in evidence.broken:
        print(f"{x.law.name}: {x.law.rule}, {x.detail}")
    print(f"{summary(evidence)} {evidence.seconds:.0f} s. {page}")
    return 0 if evidence.passes else 1


if __name__ == "__main__":
    sys.exit(main())
