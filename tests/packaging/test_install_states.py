"""Every way of installing the house, proven in fresh environments with no network.

A fresh environment sees the packages of the one that runs the tests through a path
file, so nothing is downloaded; pip and the build tools come from there as well.
"""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

SOURCES = ["jaxrl_reason", "losses", "sharding", "setup.py", "pyproject.toml"]
EXTRAS = ["LICENSE", "MANIFEST.in", "README.md", "CHANGELOG.md", "CONTRIBUTING.md"]

# What a user's first minute looks like, told as JSON.
PROBE = """
import importlib, json
import jaxrl_reason, jaxrl_reason.losses, jaxrl_reason.sharding
bare = {}
for name in ("losses", "sharding"):
    try:
        importlib.import_module(name)
        bare[name] = "imported"
    except ImportError as error:
        bare[name] = f"{type(error).__name__}: {error}"
print(json.dumps({
    "house": jaxrl_reason.__file__,
    "losses": jaxrl_reason.losses.__file__,
    "sharding": jaxrl_reason.sharding.__file__,
    "bare": bare,
}))
"""


def call(*command: str | Path, cwd: Path) -> str:
    """Runs a command without the network and returns what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
            "PIP_NO_INDEX": "1",
            "PIP_NO_INPUT": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


class Environment:
    """A fresh virtual environment that can import what the tests' own can."""

    def __init__(self, folder: Path) -> None:
        call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
        self.python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
        paths = {"base": str(folder), "platbase": str(folder)}
        self.site = Path(sysconfig.get_path("purelib", "venv", paths))
        outer = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        # A path file adds folders without reading the path files in them, so an
        # editable install of the house out there stays out of sight.
        text = "".join(f"{path}\n" for path in sorted(outer))
        (self.site / "outer.pth").write_text(text, encoding="utf-8")

    def install(self, *what: str | Path) -> None:
        """`pip install` of the house alone, with the build tools that are here."""
        options = ["--no-deps", "--no-build-isolation", "--ignore-installed", "--quiet"]
        call(
            *(self.python, "-m", "pip", "install", *options, *what),
            cwd=self.site,
        )

    def probe(self, cwd: Path) -> Any:
        """Imports the house from a folder and tells where it came from."""
        return json.loads(call(self.python, "-c", PROBE, cwd=cwd))

    def installed(self) -> set[str]:
        """What stands at the top of site-packages."""
        return {path.name for path in self.site.iterdir()} - {"outer.pth"}


@pytest.fixture
def checkout(root: Path, tmp_path: Path) -> Path:
    """A copy of the checkout, so that building leaves nothing in the real one."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    for name in SOURCES + EXTRAS:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=skip)
        elif name in SOURCES or (root / name).exists():
            shutil.copy(root / name, copy / name)
    return copy


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path / "environment")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder outside the checkout, where a user works."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def modules_of(checkout: Path) -> set[str]:
    """Every file that an install must hold, by its name in site-packages."""
    files = {"jaxrl_reason/py.typed"}
    for folder, prefix in (
        ("jaxrl_reason", "jaxrl_reason"),
        ("losses", "jaxrl_reason/losses"),
        ("sharding", "jaxrl_reason/sharding"),
    ):
        for path in (checkout / folder).rglob("*.py"):
            files.add(f"{prefix}/{path.relative_to(checkout / folder).as_posix()}")
    return files


def assert_installed_copy(environment: Environment, elsewhere: Path) -> None:
    """The house lives in site-packages, whole, and nothing else does."""
    found = environment.probe(elsewhere)
    house = environment.site / "jaxrl_reason"
    assert Path(found["house"]) == house / "__init__.py"
    assert Path(found["losses"]) == house / "losses" / "__init__.py"
    assert Path(found["sharding"]) == house / "sharding" / "__init__.py"
    assert found["bare"] == {
        name: f"ModuleNotFoundError: No module named '{name}'"
        for name in ("losses", "sharding")
    }
    info = {name for name in environment.installed() if name.endswith(".dist-info")}
    assert len(info) == 1
    assert environment.installed() - info == {"jaxrl_reason"}
    said = call(environment.python.parent / "jaxrl-reason", "--help", cwd=elsewhere)
    assert said.startswith("usage: jaxrl-reason COMMAND")


def assert_runs_from_the_root(environment: Environment, checkout: Path) -> None:
    """The checkout itself is imported, and its two folders refuse their bare names."""
    found = environment.probe(checkout)
    assert Path(found["house"]) == checkout / "jaxrl_reason" / "__init__.py"
    assert Path(found["losses"]) == checkout / "losses" / "__init__.py"
    assert Path(found["sharding"]) == checkout / "sharding" / "__init__.py"
    assert found["bare"] == {
        name: f"ImportError: import this package as jaxrl_reason.{name}, not as {name}"
        for name in ("losses", "sharding")
    }


def test_no_install_from_the_root(environment: Environment, checkout: Path) -> None:
    assert_runs_from_the_root(environment, checkout)
    assert environment.installed() == set()


def test_regular_install(
    environment: Environment, checkout: Path, elsewhere: Path
) -> None:
    environment.install(checkout)
    assert_installed_copy(environment, elsewhere)
    files = {
        path.relative_to(environment.site).as_posix()
        for path in (environment.site / "jaxrl_reason").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert files == modules_of(checkout)
    # In the root the checkout comes first, as everywhere in Python.
    assert_runs_from_the_root(environment, checkout)


def test_editable_install(
    environment: Environment, checkout: Path, elsewhere: Path
) -> None:
    environment.install("--editable", checkout)
    found = environment.probe(elsewhere)
    assert Path(found["house"]) == checkout / "jaxrl_reason" / "__init__.py"
    assert Path(found["losses"]) == checkout / "losses" / "__init__.py"
    assert Path(found["sharding"]) == checkout / "sharding" / "__init__.py"
    assert found["bare"] == {
        name: f"ModuleNotFoundError: No module named '{name}'"
        for name in ("losses", "sharding")
    }
    assert not {"losses", "sharding"} & environment.installed()
    assert_runs_from_the_root(environment, checkout)


def build(kind: str, checkout: Path, folder: Path) -> Path:
    """Builds a distribution with the build tools of this environment."""
    options = ["--no-isolation", "--outdir", folder]
    call(sys.executable, "-m", "build", f"--{kind}", *options, checkout, cwd=folder)
    (made,) = folder.iterdir()
    return made


def test_wheel(
    environment: Environment, checkout: Path, elsewhere: Path, tmp_path: Path
) -> None:
    (tmp_path / "dist").mkdir()
    wheel = build("wheel", checkout, tmp_path / "dist")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    modules = {name for name in names if ".dist-info/" not in name}
    assert modules == modules_of(checkout)
    assert any(name.endswith("/LICENSE") for name in names)
    environment.install(wheel)
    assert_installed_copy(environment, elsewhere)


def test_source_distribution(
    environment: Environment, checkout: Path, elsewhere: Path, tmp_path: Path
) -> None:
    (tmp_path / "dist").mkdir()
    sdist = build("sdist", checkout, tmp_path / "dist")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"losses/__init__.py", "jaxrl_reason/py.typed", "LICENSE"} <= names
    environment.install(sdist)
    assert_installed_copy(environment, elsewhere)


def test_zip_archive_of_the_checkout(
    environment: Environment, checkout: Path, elsewhere: Path, tmp_path: Path
) -> None:
    archive = shutil.make_archive(
        str(tmp_path / "house"), "zip", checkout.parent, checkout.name
    )
    environment.install(archive)
    assert_installed_copy(environment, elsewhere)


def test_the_version_stands_in_one_place(
    environment: Environment, checkout: Path, elsewhere: Path
) -> None:
    house = checkout / "jaxrl_reason" / "__init__.py"
    text = house.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.startswith("__version__"))
    house.write_text(text.replace(line, '__version__ = "7.8.9"'), encoding="utf-8")
    environment.install(checkout)
    print_both = (
        "import jaxrl_reason, importlib.metadata as m;"
        "print(jaxrl_reason.__version__, m.version('jaxrl-reason'))"
    )
    printed = call(environment.python, "-c", print_both, cwd=elsewhere)
    assert printed.split() == ["7.8.9", "7.8.9"]
