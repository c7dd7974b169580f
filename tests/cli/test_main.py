"""The command: what is said, and with which status it ends."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest

from jaxrl_reason.cli import export
from jaxrl_reason.cli import main as main_module
from jaxrl_reason.cli.main import COMMANDS, main

ENTRY = "from jaxrl_reason.cli.main import main; main()"


def raising(error: BaseException) -> Callable[[Sequence[str]], NoReturn]:
    def command(argv: Sequence[str]) -> NoReturn:
        raise error

    return command


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(arguments: list[str], capsys: Any) -> None:
    main(arguments)
    shown = capsys.readouterr().out
    assert [name for name in COMMANDS if f"\n  {name} " not in shown] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: jaxrl-reason {name}" in capsys.readouterr().out


def test_another_name_is_refused(capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["evalute"])
    assert ended.value.code == 2
    assert "no command is called 'evalute'" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ValueError, ImportError, OSError])
def test_what_is_expected_is_one_sentence(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "main", raising(error("a rule, got 7")))
    with pytest.raises(SystemExit) as ended:
        main(["export"])
    # A text as the status: Python prints it and ends with 1.
    assert ended.value.code == "error: a rule, got 7"


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "main", raising(TypeError("ours")))
    with pytest.raises(TypeError, match="ours"):
        main(["export"])


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(export, "main", raising(KeyboardInterrupt()))
    monkeypatch.setattr(os, "_exit", ended)
    with pytest.raises(SystemExit) as caught:
        main(["export"])
    assert caught.value.code == 130


def test_a_reader_that_left_is_no_fault(root: Path) -> None:
    script = (
        "import sys; from jaxrl_reason.cli import export, main\n"
        "export.main = lambda argv: print('x' * 2**20)\n"
        "main.main(['export'])\n"
    )
    done = subprocess.run(
        [
            "bash",
            "-c",
            f'{sys.executable} -c "$0" | true; echo "${{PIPESTATUS[0]}}"',
            script,
        ],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize("start", [["-m", "jaxrl_reason"], ["-c", ENTRY]])
def test_help_is_quick_and_light(root: Path, start: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *start, "--help"],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.startswith("usage: jaxrl-reason COMMAND")
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert loaded & {"jax", "numpy", "tyro", "rich"} == set()
    assert main_module.__name__ in loaded
