"""Runs the laws of `jaxrl_reason.testing` over the losses of other libraries.

    python experiments/conformance/peer_losses.py --trl --verl PATH --openrlhf PATH

A path is a checkout; `--trl` is the installed package (the extra is `conformance`). It
prints what is broken, and with `--page docs/conformance.md` writes a matrix of laws and
losses there, of the libraries that are named.
"""

import argparse
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.conformance.extract import version_of
from jaxrl_reason.testing.check import Verdict, case_of, verdicts

# Of JAX alone, of arguments that are not given, or of metrics that are not asked for.
LEFT_OUT = ("jit", "vmap", "clip bounds", "reference policy", "reduction", "reference")
SKIPPED = ("metrics",)
# What a caller can see to: see the page.
CALLERS = ("constants", "bfloat16", "garbage", "extremes", "empty")
START, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"


@dataclass(frozen=True)
class Library:
    """A library that was looked at.

    Attributes:
      name: of the library.
      version: a commit and its date, or a version.
      losses: verdicts by the loss's name.
      shifted: by the name of a group advantage, how far a constant added to all rewards
        moves it; relative.
    """

    name: str
    version: str
    losses: dict[str, list[Verdict]]
    shifted: dict[str, float]


def look_at(
    name: str,
    version: str,
    entries: Sequence[Any],
    advantages: dict[str, Callable[..., Any]] | None = None,
) -> Library:
    """Checks all laws on all losses of a library."""
    losses = {}
    for entry in entries:
        found = verdicts(case_of(entry.loss, inputs=()), SKIPPED)
        losses[entry.name] = [x for x in found if x.law.name not in LEFT_OUT + SKIPPED]
        broken = [x.law.name for x in losses[entry.name] if x.holds is False]
        print(f"{name}, {entry.name}: {', '.join(broken) or 'all hold'}", flush=True)
    shifted = {k: shift(x) for k, x in (advantages or {}).items()}
    for key, far in shifted.items():
        print(f"{name}, advantages of {key}: moved by {far:.3g}", flush=True)
    return Library(name, version, losses, shifted)


def shift(advantages: Callable[..., Any]) -> float:
    """How far advantages move when every reward gets 1 more; they should not."""
    groups = np.repeat(np.arange(3), 4)
    rewards = np.array([1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0, 0], np.float32)
    plain, moved = advantages(rewards, groups), advantages(rewards + 1, groups)
    return float(np.abs(plain - moved).max() / max(np.abs(plain).max(), 1e-30))


def mark(verdict: Verdict) -> str:
    """A dot for a law that holds; a cross, bold where the caller cannot help it."""
    if verdict.holds is not False:
        return "·"
    return "×" if verdict.law.name in CALLERS else "**×**"


def table(libraries: Sequence[Library]) -> str:
    """The matrix, as the page has it."""
    every = [x for one in libraries for found in one.losses.values() for x in found]
    broken = {x.law.name for x in every if x.holds is False}
    names = list(dict.fromkeys(x.law.name for x in every))
    laws = [name for name in names if name in broken]
    held = ", ".join(f"`{name}`" for name in names if name not in broken)
    lines = [
        f"Laws that hold for all: {held}.",
        "",
        f"| loss | {' | '.join(laws)} |",
        f"|---|{':-:|' * len(laws)}",
    ]
    for library in libraries:
        lines.append(f"| **{library.name}** ({library.version}) |{' |' * len(laws)}")
        for name, found in library.losses.items():
            marks = " | ".join(mark(x) for x in found if x.law.name in broken)
            lines.append(f"| {name} | {marks} |")
    shifted = [
        f"| {library.name} | {name} | {far:.2g} |"
        for library in libraries
        for name, far in library.shifted.items()
    ]
    if shifted:
        lines += ["", "| library | group advantages | moved by |", "|---|---|---|"]
        lines += shifted
    return "\n".join(lines)


def details(libraries: Sequence[Library]) -> str:
    """What was found where a law is broken that is not the caller's."""
    lines = ["| library | loss | law | found |", "|---|---|---|---|"]
    for library in libraries:
        for name, found in library.losses.items():
            lines += [
                f"| {library.name} | {name} | {x.law.name} | {x.detail} |"
                for x in found
                if x.holds is False and x.law.name not in CALLERS
            ]
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    made.add_argument("--trl", action="store_true", help="the installed TRL")
    for name in ("verl", "openrlhf", "nemo-rl", "roll", "slime"):
        made.add_argument(f"--{name}", type=Path, metavar="PATH", help="a checkout")
    made.add_argument("--page", type=Path, help="where the matrix is put")
    return made


def main(arguments: Sequence[str] | None = None) -> list[Library]:
    """Looks at the libraries that are named."""
    given = parser().parse_args(arguments)
    from experiments.conformance import adapters  # which needs torch

    libraries = []
    if given.trl:
        spec = importlib.util.find_spec("trl")
        if spec is None or spec.origin is None:
            parser().error("--trl needs TRL: pip install 'jaxrl-reason[conformance]'")
        package = Path(spec.origin).parent
        version = importlib.metadata.version("trl")
        libraries.append(look_at("TRL", version, adapters.trl_losses(package)))
    for name, flag, losses, advantages in (
        ("verl", "verl", adapters.verl_losses, adapters.verl_advantages),
        ("OpenRLHF", "openrlhf", adapters.openrlhf_losses, None),
        ("NeMo-RL", "nemo_rl", adapters.nemo_rl_losses, None),
        ("ROLL", "roll", adapters.roll_losses, None),
        ("slime", "slime", adapters.slime_losses, None),
    ):
        checkout = getattr(given, flag)
        if checkout is not None:
            more = advantages(checkout) if advantages else None
            version = version_of(checkout)
            libraries.append(look_at(name, version, losses(checkout), more))
    if given.page is not None and libraries:
        text = given.page.read_text(encoding="utf-8")
        before, rest = text.split(START)
        after = rest.split(END)[1]
        made = f"{START}\n\n{table(libraries)}\n\n{details(libraries)}\n\n{END}"
        given.page.write_text(before + made + after, encoding="utf-8")
    return libraries


if __name__ == "__main__":
    main()
