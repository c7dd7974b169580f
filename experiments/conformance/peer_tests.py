"""Runs other libraries' own unit tests with the functions of `jaxrl_reason.losses`.

    python experiments/conformance/peer_tests.py --verl PATH --skyrl PATH --nemo-rl PATH

A path is a checkout. Each library runs in a process of its own, once as it is and once
with the adapters of `peer_tests_NAME.py` in the place of its functions; a test counts
as passed if it passes and has called a function of this library. `--page
docs/conformance.md` writes the table there. It needs torch, pytest, omegaconf,
hydra-core, tensordict, pydantic, jaxtyping and cachetools; heavier packages are stood
in for where they are missing.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from experiments.conformance.extract import version_of

ROOT = Path(__file__).parents[2]
START, END = "<!-- tests: begin -->", "<!-- tests: end -->"
LIBRARIES = {"verl": "verl", "skyrl": "SkyRL", "nemo_rl": "NeMo-RL"}
Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Library:
    """What became of the tests of a library.

    Attributes:
      name: of the library.
      version: its commit and date.
      passed: tests that pass and have called a function of this library.
      others: tests without mathematics, by what they are of.
      missing: tests of mathematics that this library does not have, by what it is.
      theirs: tests that fail with either's functions in this environment.
      failed: tests that pass with theirs and not with ours, and the message.
    """

    name: str
    version: str
    passed: list[str]
    others: dict[str, list[str]]
    missing: dict[str, list[str]]
    theirs: list[str]
    failed: dict[str, str]

    @property
    def number(self) -> int:
        """Of all tests."""
        lists = [*self.others.values(), *self.missing.values()]
        return sum(map(len, (self.passed, self.theirs, self.failed, *lists)))


def run(module: str, checkout: Path, own: bool) -> Results:
    """The outcomes by test, in a process of its own; `module` holds the adapters."""
    files = importlib.import_module(module).TESTS
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, "-m", "pytest", "-q", "-W", "ignore"]
        # Neither our settings nor theirs, which start clusters.
        command += ["--noconftest", "-c", os.devnull, "-p", "no:cacheprovider"]
        command += ["--rootdir", str(checkout)]
        command += ["-p", "experiments.conformance.peer_plugin", "--peer", module]
        command += ["--peer-results", str(path), *["--peer-own"] * own, *files]
        before = os.environ.get("PYTHONPATH", "")
        python_path = os.pathsep.join([str(checkout), str(ROOT), before])
        environment = {**os.environ, "PYTHONPATH": python_path}
        done = subprocess.run(
            command, cwd=checkout, env=environment, capture_output=True, text=True
        )
        if not path.is_file() or not (found := json.loads(path.read_text())):
            raise SystemExit(f"{module}: no test ran\n{done.stdout}{done.stderr}")
    return found


def sort(
    name: str,
    version: str,
    results: Results,
    own: Results,
    others: dict[str, str],
    missing: dict[str, str],
) -> Library:
    """What each outcome means; `others` and `missing` say why, by a part of a name."""
    made = Library(name, version, [], {}, {}, [], {})
    for test, result in results.items():
        known = [
            (table, reason)
            for table, reasons in ((made.others, others), (made.missing, missing))
            for part, reason in reasons.items()
            if part in test
        ]
        if known:
            table, reason = known[0]
            table.setdefault(reason, []).append(test)
        elif result["outcome"] == "passed" and result["called"]:
            made.passed.append(test)
        elif own[test]["outcome"] != "passed":
            made.theirs.append(test)
        elif result["outcome"] == "passed":
            made.failed[test] = "calls nothing of this library"
        else:
            made.failed[test] = result["message"].partition("\n")[0]
    return made


def table(libraries: Sequence[Library]) -> str:
    """The numbers, and what the tests are that are not passed."""
    lines = [
        "| library | tests | passed | not mathematics | not here | "
        "fail with either | fail |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for x in libraries:
        others, missing = (
            sum(map(len, table.values())) for table in (x.others, x.missing)
        )
        numbers = [x.number, len(x.passed), others, missing, len(x.theirs)]
        cells = " | ".join(map(str, [*numbers, len(x.failed)]))
        lines.append(f"| **{x.name}** ({x.version}) | {cells} |")
    lines += ["", "| library | tests | are of |", "|---|--:|---|"]
    for x in libraries:
        for reason, tests in {**x.others, **x.missing}.items():
            lines.append(f"| {x.name} | {len(tests)} | {reason} |")
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    made = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for peer in LIBRARIES:
        name = peer.replace("_", "-")
        made.add_argument(f"--{name}", type=Path, metavar="PATH", help="a checkout")
    made.add_argument("--page", type=Path, help="where the table is put")
    return made


def main(arguments: Sequence[str] | None = None) -> list[Library]:
    """Runs the tests of the libraries that are named."""
    given, libraries = parser().parse_args(arguments), []
    for peer, name in LIBRARIES.items():
        checkout = getattr(given, peer)
        if checkout is None:
            continue
        checkout = checkout.resolve()
        module = f"experiments.conformance.peer_tests_{peer}"
        adapters = importlib.import_module(module)
        own, ours = (run(module, checkout, own) for own in (True, False))
        reasons = adapters.OTHERS, adapters.MISSING
        library = sort(name, version_of(checkout), ours, own, *reasons)
        libraries.append(library)
        print(f"{name}: {len(library.passed)} of {library.number} passed", flush=True)
        for test in library.theirs:
            print(f"  fails with their functions as well: {test}")
        for test, message in library.failed.items():
            print(f"  {test}: {message}")
    if given.page is not None and libraries:
        text = given.page.read_text(encoding="utf-8")
        before, rest = text.split(START)
        made = f"{START}\n\n{table(libraries)}\n\n{END}"
        given.page.write_text(before + made + rest.split(END)[1], encoding="utf-8")
    return libraries


if __name__ == "__main__":
    main()
