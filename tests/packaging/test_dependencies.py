"""What the house imports, setup.py declares."""

import ast
import importlib.metadata
import re
import sys
from pathlib import Path

FOLDERS = ["jaxrl_reason", "losses", "sharding", "experiments"]
HOUSE = {"jaxrl_reason", "experiments"}
# Whom we are compared with; nobody else may import them.
PEERS = {"datasets", "torch", "transformers", "trl", "tunix"}
COMPARED = ("experiments/benchmarks/", "experiments/conformance/")
# What is there whenever the file is imported: pytest loads its plugin.
HOSTS = {
    ("pytest", "jaxrl_reason/pytest_plugin.py"),
    ("pytest", "experiments/conformance/peer_plugin.py"),
}


def declared(root: Path, keyword: str) -> list[str]:
    """The requirements that setup.py gives under a keyword, without their bounds."""
    tree = ast.parse((root / "setup.py").read_text(encoding="utf-8"))
    values = [
        ast.literal_eval(argument.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for argument in node.keywords
        if argument.arg == keyword
    ]
    return [normal(re.split("[<>=~!]", requirement)[0]) for requirement in values[0]]


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def imported(root: Path) -> set[tuple[str, str]]:
    """Top-level modules from outside, each with the files that import it."""
    found = set()
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module or ""]
                for name in names:
                    found.add((name.partition(".")[0], str(path.relative_to(root))))
    known = sys.stdlib_module_names | HOUSE
    return {(name, file) for name, file in found if name not in known}


def is_peer(name: str, file: str) -> bool:
    compared = name in PEERS and file.startswith(COMPARED)
    return compared or (name, file) in HOSTS


def test_every_import_is_declared(root: Path) -> None:
    requirements = set(declared(root, "install_requires"))
    makers = importlib.metadata.packages_distributions()
    undeclared = [
        f"{file} imports {name}"
        for name, file in imported(root)
        if not is_peer(name, file)
        and not requirements & {normal(maker) for maker in makers.get(name, [])}
    ]
    assert undeclared == []


def test_the_core_is_a_real_dependency(root: Path) -> None:
    core = ["jax", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets"]
    core += ["sentencepiece", "chex"]
    assert set(core) <= set(declared(root, "install_requires"))
