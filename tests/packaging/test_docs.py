"""The docs: every module has a page of the API, every page has a place in the menu."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import jaxrl_reason.losses

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OWN = sorted(DOCS.glob("own_*.md"))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def api_pages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("api_pages", DOCS / "api_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["api_pages"] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def test_every_public_module_has_a_page(api_pages: ModuleType, tmp_path: Path) -> None:
    api_pages.write_api_pages(ROOT, tmp_path)
    files = [
        *(ROOT / "jaxrl_reason").rglob("*.py"),
        *(ROOT / "losses").rglob("*.py"),
        *(ROOT / "sharding").rglob("*.py"),
    ]
    inside = [file.relative_to(ROOT).with_suffix("").parts for file in files]
    names = {
        ".".join(("jaxrl_reason", *parts) if parts[0] != "jaxrl_reason" else parts)
        for parts in inside
    }
    names = {name.removesuffix(".__init__") for name in names}
    public = {name for name in names if "._" not in name}
    assert {path.stem for path in tmp_path.iterdir()} == public


def test_pages_of_modules_that_are_gone_go(
    api_pages: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "jaxrl_reason.gone.rst").write_text("old")
    api_pages.write_api_pages(ROOT, tmp_path)
    assert not (tmp_path / "jaxrl_reason.gone.rst").exists()


def test_the_page_of_the_losses_links_all_of_them(api_pages: ModuleType) -> None:
    modules = api_pages.package_modules(ROOT)
    linked = api_pages.exports(modules["jaxrl_reason.losses"], modules)
    assert set(jaxrl_reason.losses.__all__) - linked.keys() == set()


def test_every_page_has_a_place_in_the_menu() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    menus = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    entries = [line for menu in menus for line in menu.split() if line[0] != ":"]
    listed = {
        path.relative_to(DOCS).with_suffix("").as_posix()
        for entry in entries
        for path in DOCS.glob(f"{entry}.md")
    }
    pages = {
        path.relative_to(DOCS).with_suffix("").as_posix()
        for path in DOCS.rglob("*.md")
        if path.relative_to(DOCS).parts[0] not in ("_build", "jupyter_execute")
    }
    assert pages - listed == {"index"}


@pytest.mark.parametrize("page", OWN, ids=lambda page: page.stem)
def test_a_stranger_s_steps_work(page: Path, tmp_path: Path) -> None:
    """The blocks of a page in their order, in a folder of their own.

    A Python block that begins with the name of a file is that file; the commands of the
    library have a test of their own.
    """
    program = []
    for kind, block in BLOCK.findall(page.read_text(encoding="utf-8")):
        file = re.match(r"# (\w+\.py)\n", block)
        if file is not None:
            (tmp_path / file[1]).write_text(block, encoding="utf-8")
        elif kind == "python":
            program.append(block)
        elif block.startswith("python "):
            script = block.split()[1]
            subprocess.run([sys.executable, script], cwd=tmp_path, check=True)
    main = tmp_path / "stranger.py"
    main.write_text("\n".join(program), encoding="utf-8")
    path = {"PYTHONPATH": f"{ROOT}:{tmp_path}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, str(main)],
        cwd=tmp_path,
        env=path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
