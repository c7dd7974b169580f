"""A run goes on where its console cannot be written, and keeps what it says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxrl_reason.runs.run_log import run_log

SCRIPT = """
import logging, sys, time
from rich.console import Console
from jaxrl_reason.runs.progress import TrainingProgress
from jaxrl_reason.runs.run_log import run_log, say

# As some libraries do: what is on the console must not be there twice.
logging.basicConfig(format="%(message)s", level=logging.INFO)
with run_log(sys.argv[1]):
    with TrainingProgress(0.0, Console(force_terminal=sys.argv[2] == "bar")) as shown:
        shown.stage("RL", total=3)
        for step in range(1, 4):
            shown.update(step, reward=0.5)
            print("from a function of the user's")
        shown.note("after: 50%")
    say("done")
    logging.getLogger("jaxrl_reason.rl").warning("too long")
open(sys.argv[1] + ".end", "w").close()
"""


def run(path: Path, kind: str, stdout: int, stderr: int) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-c", SCRIPT, str(path), kind]
    return subprocess.Popen(argv, stdout=stdout, stderr=stderr)


def kept(path: Path) -> list[str]:
    """Lines of the file without their times."""
    return [line.split(" ", 2)[2] for line in path.read_text("utf-8").splitlines()]


@pytest.mark.parametrize("kind", ["lines", "bar"])
@pytest.mark.parametrize("gone", ["reader", "space"])
def test_a_run_goes_on_without_its_console(
    tmp_path: Path, kind: str, gone: str
) -> None:
    path = tmp_path / "run.log"
    if gone == "reader":
        end, output = os.pipe()
        os.close(end)
    elif not Path("/dev/full").exists():
        pytest.skip("no /dev/full, a device without space, on this system")
    else:
        output = os.open("/dev/full", os.O_WRONLY)
    process = run(path, kind, output, output)
    os.close(output)
    assert process.wait(60) == 0
    assert path.with_suffix(".log.end").exists()
    lines = kept(path)
    assert sum("cannot be written to any more" in line for line in lines) in (1, 2)
    for said in ("RL", "RL 2/3 | reward 0.50", "after: 50%", "done", "too long"):
        assert any(line.startswith(said) for line in lines), lines


def test_the_console_and_the_file_say_the_same(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    process = run(path, "lines", subprocess.PIPE, subprocess.PIPE)
    out, err = (text.decode().splitlines() for text in process.communicate(timeout=60))
    shown = [line for line in out if not line.startswith("from a function")]
    assert kept(path) == [*shown, "too long"]
    assert err == ["too long"]


@pytest.mark.parametrize("error", [ValueError("rule, got 3"), KeyError("odd")])
def test_the_file_says_what_ended_the_run(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "run.log"
    with pytest.raises(type(error)), run_log(path):
        raise error
    text = path.read_text("utf-8")
    assert f"ended by {type(error).__name__}: {error}" in text
    assert ("Traceback" in text) == isinstance(error, KeyError)
