"""A claim of a paper as data, and the key under which its runs are kept."""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxrl_reason.claims.claim_verdict import FAMILY
from jaxrl_reason.claims.measures import Measure
from jaxrl_reason.grading.load_function import load_module
from jaxrl_reason.runs.metrics_log import Row

# run_arm(arm, seed, steps) -> the rows of the steps. It may ask for `folder` too.
RunArm = Callable[..., list[Row]]
# Where a claim that is named without a path is looked for.
FOLDER = Path("experiments/claims")
# The name that a claim has in its file.
NAME = "CLAIM"
# Fields that a mended sentence may change without making it another claim.
WORDING = ("title", "sentence", "refuted_if", "notes")


@dataclass(frozen=True)
class Comparison:
    """Two arms and the difference that is taken: treatment minus baseline.

    Attributes:
      treatment: name of an arm.
      baseline: name of an arm.
    """

    treatment: str
    baseline: str

    def __str__(self) -> str:
        return f"{self.treatment} − {self.baseline}"


@dataclass(frozen=True)
class Panel:
    """A metric over a run, in the claim's picture.

    Attributes:
      metric: name in the rows.
      title: above the panel.
      unit: beside the axis.
      x: metric of the horizontal axis, "step" or a running total.
    """

    metric: str
    title: str
    unit: str = ""
    x: str = "step"


@dataclass(frozen=True)
class Claim:
    """What is asked and how it is decided, written before the final seeds are run.

    Attributes:
      title: a few words.
      sentence: what the paper says.
      source: arXiv id and section.
      arms: name of an arm -> the one switch in which it differs from another.
      comparison: the two arms that the claim is about.
      measure: what is compared.
      direction: 1 if the treatment should have more of it, -1 if less.
      smallest: the smallest effect that counts, > 0, in the measure's unit.
      controls: comparisons that must not show the effect, in the same measure.
      others: further comparisons, for which there is no verdict.
      seeds: of the final runs, at least 3.
      tuned_on: seeds on which the settings were chosen; none of `seeds`.
      steps: of a run.
      run_arm: f(arm, seed, steps) -> the rows of a run's steps. With a parameter
        `folder` it gets the claim's folder of runs, where the arms of a seed can keep
        what they share, such as a model that all of them start from.
      refuted_if: what refutes the claim, in words.
      panels: of the picture.
      more_measures: further columns of the table.
      notes: what a reader must know of the setting, as Markdown.
    """

    title: str
    sentence: str
    source: str
    arms: Mapping[str, str]
    comparison: Comparison
    measure: Measure
    direction: int
    smallest: float
    controls: Sequence[Comparison]
    seeds: Sequence[int]
    tuned_on: Sequence[int]
    steps: int
    run_arm: RunArm
    refuted_if: str
    others: Sequence[Comparison] = ()
    panels: Sequence[Panel] = ()
    more_measures: Sequence[Measure] = ()
    notes: str = ""

    def __post_init__(self) -> None:
        for c in (self.comparison, *self.controls, *self.others):
            unknown = sorted({c.treatment, c.baseline} - set(self.arms))
            if unknown:
                raise ValueError(f"a comparison must name arms, got {unknown[0]!r}")
        if self.direction not in (1, -1):
            raise ValueError(f"direction must be 1 or -1, got {self.direction}")
        if not self.smallest > 0:
            raise ValueError(f"smallest must be > 0, got {self.smallest}")
        if not self.controls:
            raise ValueError("controls must hold at least one comparison, got none")
        if len(set(self.seeds)) < max(3, len(self.seeds)):
            raise ValueError(
                f"seeds must be at least 3 different ones, got {tuple(self.seeds)}"
            )
        both = sorted({*self.seeds} & {*self.tuned_on})
        if both:
            raise ValueError(f"tuned_on must hold none of the seeds, got {both[0]}")


@dataclass(frozen=True)
class FoundClaim:
    """A claim with the file that it was read from.

    Attributes:
      name: of the file, without .py.
      path: of the file.
      claim: its `CLAIM`.
      key: of the file; a change of anything but wording gives another.
      code_key: of the file and of everything that it imports beside the library.
    """

    name: str
    path: Path
    claim: Claim
    key: str
    code_key: str

    @property
    def asked_for(self) -> str:
        """What the command takes: the name if it is of `FOLDER`, else the path."""
        return self.name if self.path.parent == FOLDER else self.path.as_posix()


def claim_paths(folder: Path = FOLDER) -> list[Path]:
    """The files of all claims.

    Args:
      folder: where they are.

    Raises:
      ValueError: there is none, or more than the level is divided by.
    """
    paths = sorted(folder.glob("[!_]*.py"))
    if not 0 < len(paths) <= FAMILY:
        raise ValueError(
            f"there must be 1 to {FAMILY} claims in {folder}, the number that the "
            f"level is divided by, got {len(paths)}"
        )
    return paths


def load_claim(name: str) -> FoundClaim:
    """Reads a claim.

    Args:
      name: of a file of `experiments/claims` in the current folder, without .py, or
        `path/to/my_claim.py`.

    Raises:
      ValueError: there is no such file, or no `CLAIM` in it.
    """
    path = Path(name if name.endswith(".py") else FOLDER / f"{name}.py")
    if not path.is_file():
        there = sorted(p.stem for p in FOLDER.glob("[!_]*.py"))
        raise ValueError(
            f"a claim must be a file my_claim.py or one of {FOLDER} in the current "
            f"folder ({', '.join(there) or 'it has none'}), got {name}"
        )
    if (here := str(Path.cwd())) not in sys.path:  # a claim imports `experiments`
        sys.path.insert(0, here)
    claim = getattr(load_module(str(path)), NAME, None)
    if not isinstance(claim, Claim):
        raise ValueError(f"there must be a Claim called {NAME} in {path}, got none")
    sources = [bare_source(path), *map(bare_source, local_imports(path))]
    return FoundClaim(path.stem, path, claim, _digest(sources[:1]), _digest(sources))


def bare_source(path: Path) -> str:
    """A file's code without comments, docstrings and a claim's wording.

    What is left decides what is run and how it is judged.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == Claim.__name__:
            node.keywords = [k for k in node.keywords if k.arg not in WORDING]
    return ast.unparse(tree)


def local_imports(path: Path) -> list[Path]:
    """The files that a file imports, and those that they import, beside packages.

    Neither installed packages nor this library: their changes make no other claim.
    """
    found, waiting = dict[Path, None](), [path]
    while waiting:
        tree = ast.parse(waiting.pop().read_text(encoding="utf-8"))
        for module in _imported(tree):
            file = _local_file(module)
            if file is not None and file not in found:
                found[file] = None
                waiting.append(file)
    return sorted(found)


def _imported(tree: ast.AST) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
    ours = (__name__.partition(".")[0], *sys.stdlib_module_names)
    return {name for name in names if name.partition(".")[0] not in ours}


def _local_file(module: str) -> Path | None:
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):  # a name inside a module
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    installed = {"site-packages", "dist-packages"} & set(Path(spec.origin).parts)
    return None if installed else Path(spec.origin)


def _digest(sources: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()[:12]
