"""Imports go one way only; every other arrow is a fault (docs/design.md)."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# From the ground up. A package imports itself, lower levels, and EXTRA_ARROWS.
LEVELS = [
    {"losses", "sharding"},
    {"models", "text", "grading", "runs", "testing"},
    {"weights", "sampler", "tasks", "data"},
    {"serving", "pretrained", "learner", "judges"},
    {"evaluation", "rl", "claims"},
    {"offline"},
    {"reward_models"},
    {"game"},
    {"train"},
    {"aot"},
    {"cli"},
    {"experiments"},
]
# The arrow inside a level: a data set holds the problems that a task makes.
EXTRA_ARROWS = {("data", "tasks")}
# What the ground imports from outside, besides the standard library.
GROUND_IMPORTS = {"losses": {"jax", "chex"}, "sharding": {"jax"}}

LEVEL = {package: level for level, names in enumerate(LEVELS) for package in names}
BARE = {"losses", "sharding"}  # folders of the checkout that install elsewhere


def package_folders(root: Path) -> dict[str, Path]:
    """Every package of the house that this checkout holds, with its folder."""
    inside = [path for path in (root / "jaxrl_reason").iterdir() if path.is_dir()]
    outside = [root / "losses", root / "sharding", root / "experiments"]
    folders = {path.name: path for path in inside + outside if path.is_dir()}
    return {name: path for name, path in folders.items() if any(path.rglob("*.py"))}


def imported_modules(tree: ast.AST) -> Iterator[str]:
    """Every module that a file imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            elif node.module == "jaxrl_reason":
                yield from (f"jaxrl_reason.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def fault(package: str, module: str) -> str | None:
    """Why `package` must not import `module`, or None where it may."""
    top, *rest = module.split(".")
    if not top:
        return "imports relatively; write the whole name"
    if top in BARE:
        return f"imports {module}; write jaxrl_reason.{module}"
    if top == "jaxrl_reason":
        target = rest[0] if rest else ""
    elif top == "experiments":
        target = top
    else:
        return outside_fault(package, top)
    if target not in LEVEL:
        return None  # jaxrl_reason itself, or a name that it holds
    if target == package or (package, target) in EXTRA_ARROWS:
        return None
    if LEVEL[target] < LEVEL[package]:
        return None
    return f"imports {module}, which does not lie below {package}"


def outside_fault(package: str, top: str) -> str | None:
    allowed = GROUND_IMPORTS.get(package)
    if allowed is None or top in allowed or top in sys.stdlib_module_names:
        return None
    return f"imports {top}; {package} imports only {', '.join(sorted(allowed))}"


def find_faults(root: Path) -> list[str]:
    """Every forbidden import of the checkout, as `file: what is wrong`."""
    faults = []
    for package, folder in sorted(package_folders(root).items()):
        if package not in LEVEL:
            faults.append(
                f"{package}: has no level; give it one in {Path(__file__).name}"
            )
            continue
        for path in sorted(folder.rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            for module in imported_modules(tree):
                problem = fault(package, module)
                if problem:
                    faults.append(f"{path.relative_to(root)}: {problem}")
    return faults


def test_imports_go_one_way(root: Path) -> None:
    assert find_faults(root) == []


def same_names(root: Path) -> dict[str, list[str]]:
    """Names of modules that stand for several things, with their files.

    Recipes have the names of their methods, as losses do; a module of `cli` has the
    name of its command.
    """
    found: dict[str, list[str]] = {}
    for folder in package_folders(root).values():
        for path in folder.rglob("*.py"):
            named = path.parent.name not in ("recipes", "cli")
            if named and path.name != "__init__.py":
                found.setdefault(path.name, []).append(str(path.relative_to(root)))
    return {name: files for name, files in found.items() if len(files) > 1}


def test_a_name_stands_for_one_module(root: Path, tmp_path: Path) -> None:
    assert same_names(root) == {}
    for package in ("a", "b"):
        (tmp_path / "jaxrl_reason" / package).mkdir(parents=True)
        (tmp_path / "jaxrl_reason" / package / "x.py").touch()
    assert set(same_names(tmp_path)) == {"x.py"}


def test_the_top_of_the_package_imports_nothing_of_the_house(root: Path) -> None:
    source = (root / "jaxrl_reason" / "__init__.py").read_text(encoding="utf-8")
    assert set(imported_modules(ast.parse(source))) <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("file", "line", "expected"),
    [
        (
            "losses/a.py",
            "from jaxrl_reason.models import x",
            "not lie below losses",
        ),
        (
            "losses/a.py",
            "from jaxrl_reason import sharding",
            "not lie below losses",
        ),
        ("losses/a.py", "import flax", "losses imports only chex, jax"),
        ("losses/a/b.py", "from . import x", "imports relatively"),
        ("losses/a.py", "from losses import x", "write jaxrl_reason.losses"),
        ("sharding/a.py", "import chex", "sharding imports only jax"),
        ("jaxrl_reason/models/a.py", "import jaxrl_reason.text.b", "below models"),
        ("jaxrl_reason/text/a.py", "import jaxrl_reason.tasks as t", "below text"),
        ("jaxrl_reason/tasks/a.py", "import jaxrl_reason.data", "below tasks"),
        ("jaxrl_reason/sampler/a.py", "import jaxrl_reason.tasks", "below sampler"),
        ("jaxrl_reason/data/a.py", "import jaxrl_reason.rl", "below data"),
        ("jaxrl_reason/weights/a.py", "import jaxrl_reason.serving", "below weights"),
        ("jaxrl_reason/rl/a.py", "import experiments.run", "below rl"),
        ("jaxrl_reason/agents/a.py", "import jax", "agents: has no level"),
        (
            "jaxrl_reason/rl/a.py",
            "def late():\n    from experiments import run",
            "below rl",
        ),
    ],
)
def test_a_faulty_tree_is_found(
    tmp_path: Path, file: str, line: str, expected: str
) -> None:
    (tmp_path / "jaxrl_reason").mkdir()
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n", encoding="utf-8")
    faults = find_faults(tmp_path)
    assert len(faults) == 1
    assert expected in faults[0]


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("losses/a.py", "import math\nimport jax.numpy\nfrom chex import x"),
        ("losses/a.py", "from jaxrl_reason.losses.reductions import x"),
        (
            "jaxrl_reason/models/a.py",
            "from jaxrl_reason.losses import x\nimport flax",
        ),
        ("jaxrl_reason/data/a.py", "from jaxrl_reason.tasks.countdown import x"),
        ("jaxrl_reason/rl/a.py", "from jaxrl_reason import __version__, losses"),
        ("experiments/a.py", "from jaxrl_reason.rl import x"),
    ],
)
def test_a_good_tree_passes(tmp_path: Path, file: str, line: str) -> None:
    (tmp_path / "jaxrl_reason").mkdir()
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(line + "\n", encoding="utf-8")
    assert find_faults(tmp_path) == []


def test_one_module_knows_of_processes(root: Path) -> None:
    """What crosses between hosts goes through one door, so that all do it alike."""
    names = re.compile(r"process_(index|count)\(|multihost_utils|import distributed")
    packages = package_folders(root)
    del packages["experiments"]
    found = {
        str(path.relative_to(root))
        for folder in packages.values()
        for path in folder.rglob("*.py")
        if names.search(path.read_text("utf-8"))
    }
    assert found == {"sharding/processes.py"}
