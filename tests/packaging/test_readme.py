"""The README's commands are the ones that work here."""

import re
from pathlib import Path

MARKED_COMMAND = re.compile(r"<!-- test-command -->\s*```\w*\n(.+)\n```")


def test_the_test_command_is_marked_for_continuous_integration(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    commands = MARKED_COMMAND.findall(readme)
    assert len(commands) == 1
    steps = commands[0].split(" && ")
    assert steps[0] == "python -m venv .venv"
    assert steps[-1] == ".venv/bin/python -m pytest"


def test_scripts_that_the_readme_names_exist(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bexperiments/[\w/]+\.py\b", readme))
    assert "experiments/dapo_countdown.py" in named
    assert [script for script in sorted(named) if not (root / script).exists()] == []


def test_continuous_integration_reads_the_readme(root: Path) -> None:
    script = (root / ".ci" / "run").read_text(encoding="utf-8")
    assert "test-command" in script
    assert "-m pytest\n" not in script  # no second copy that could drift
