"""No text is run: the lint's gate catches each way, and this file what it misses.

Ruff's rules see a call by its name (pyproject.toml). A builtin that is passed on, or
numpy's allow_pickle, is found here. Code of models runs only in a sandbox, whose own
file is named below.
"""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDERS = ("jaxrl_reason", "losses", "sharding", "experiments", "docs", "tests")
RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
SUSPECT = re.compile(rf"\b({'|'.join(RUNS_TEXT)}|allow_pickle)\b")  # worth parsing
# file -> what it may do, of its own text
ALLOWED = {
    "experiments/conformance/extract.py": {"exec", "compile"},
    "jaxrl_reason/grading/sandbox_program.py": {"exec", "eval", "compile"},
    "tests/losses/test_as_libraries.py": {"exec", "eval"},
}
# The files of the package with a line that the lint is told to pass over.
SILENCED = {
    "jaxrl_reason/aot/compile_step.py",
    "jaxrl_reason/aot/compile_worker.py",
    "jaxrl_reason/grading/sandbox_program.py",
}

CAUGHT_BY_RUFF = """\
eval(text)
exec(text)
import pickle
from builtins import eval as harmless
import dill, cloudpickle, joblib, marshal, shelve
yaml.load(text)
from yaml import unsafe_load
subprocess.run(text, shell=True)
subprocess.Popen(text, shell=True)
os.system(text)
os.popen(text)
from sympy import sympify
from sympy.parsing.sympy_parser import parse_expr
sympy.sympify(text)
torch.load(text)
"""
CAUGHT_HERE = [
    "run = eval",
    "map(exec, texts)",
    "builtins.eval(text)",
    "getattr(builtins, 'exec')(text)",
    "module = __import__(name)",
    "code = compile(text, 'a', 'exec')",
    "numpy.load(path, allow_pickle=True)",
    "numpy.load(path, allow_pickle=chosen)",
]


def faults(tree: ast.AST) -> set[str]:
    """What a file does that ruff may miss."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            found |= RUNS_TEXT & {node.id}
        elif isinstance(node, ast.Attribute):
            if getattr(node.value, "id", None) in ("builtins", "__builtins__"):
                found |= RUNS_TEXT & {node.attr}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            found |= RUNS_TEXT & {getattr(a, "value", None) for a in node.args}
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            never = isinstance(node.value, ast.Constant) and node.value.value is False
            found |= set() if never else {"allow_pickle"}
    return found


@pytest.mark.parametrize("line", CAUGHT_HERE)
def test_a_way_around_the_lint_is_found(line: str) -> None:
    assert faults(ast.parse(line))


def test_what_is_meant_otherwise_passes() -> None:
    lines = "re.compile(text); model.eval(); numpy.load(path, allow_pickle=False)"
    assert faults(ast.parse(lines)) == set()


def test_nothing_runs_text(root: Path) -> None:
    found = {}
    for path in (path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        text = path.read_text("utf-8")
        ways = faults(ast.parse(text)) if SUSPECT.search(text) else set()
        found |= {str(path.relative_to(root)): ways} if ways else {}
    assert found == ALLOWED


def test_the_lint_catches_every_line(root: Path) -> None:
    ruff = [sys.executable, "-m", "ruff", "check", "--output-format", "json"]
    done = subprocess.run(
        [*ruff, "--stdin-filename", "jaxrl_reason/tasks/new.py", "-"],
        input="import os, subprocess, sympy, torch, yaml\n" + CAUGHT_BY_RUFF,
        capture_output=True,
        text=True,
        cwd=root,
        check=False,
    )
    gate = ("S", "TID251")
    rows = {
        found["location"]["row"] - 1
        for found in json.loads(done.stdout)
        if found["code"].startswith(gate) and not found["code"].startswith("SIM")
    }
    lines = CAUGHT_BY_RUFF.splitlines()
    missed = [line for row, line in enumerate(lines, start=1) if row not in rows]
    assert missed == []


def test_few_lines_are_passed_over(root: Path) -> None:
    package = [
        path
        for folder in ("jaxrl_reason", "losses", "sharding")
        for path in (root / folder).rglob("*.py")
    ]
    mark = re.compile(r"noqa: (S\d|TID)")
    silenced = {
        str(path.relative_to(root))
        for path in package
        if mark.search(path.read_text("utf-8"))
    }
    assert silenced == SILENCED
