"""The pages and tables of recipes in the docs."""

import dataclasses
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from jaxrl_reason.rl.recipes import RECIPES

# The page.


@pytest.fixture(scope="module")
def tables(root: Path) -> ModuleType:
    """The script that writes the tables."""
    path = root / "docs" / "recipe_tables.py"
    spec = importlib.util.spec_from_file_location("recipe_tables", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_docs_have_the_rows_of_every_recipe(root: Path, tables: ModuleType) -> None:
    pages = [(root / "docs" / page).read_text("utf-8") for page in tables.PAGES]
    for page in pages:
        assert page == tables.fill_tables(page), "run python docs/recipe_tables.py"
    built = [page.splitlines() for page in pages]
    for recipe in RECIPES.values():
        assert tables.settings_row(recipe) in built[0]
        assert tables.open_row(recipe) in built[0]
        if recipe.title:
            assert tables.method_row(recipe) in built[1]
    wanted = (
        "| `vapo` | 2504.05118 | 1e-06 | 2e-06 | 512 | 16 | 16 | - | 1 | 0.2 / 0.28 |"
    )
    assert any(line.startswith(wanted) for line in built[0])
    with pytest.raises(ValueError, match=r"must be one of settings, .* got nothing"):
        tables.fill_tables("<!-- recipes: nothing -->\n\n| a |\n|---|\n")


def test_every_recipe_has_a_page(root: Path) -> None:
    folder = root / "docs" / "losses" / "methods"
    for recipe in RECIPES.values():
        page = folder / f"{recipe.module}.md"
        said = f"docs/losses/methods/{page.name} must name the recipe {recipe.name!r}"
        assert page.is_file(), said
        text = page.read_text(encoding="utf-8")
        assert f"`{recipe.name}`" in text, said
        # And a curve of its toy run, by `experiments/toy_curves.py --only NAME`.
        picture = f"images/methods/{recipe.name}.png"
        assert (root / "docs" / picture).is_file(), picture
        assert picture in text, f"{said} and show {picture}"


def test_a_row_of_a_table_needs_all_its_columns() -> None:
    with pytest.raises(ValueError, match="must say what it is made_of and have a fam"):
        dataclasses.replace(RECIPES["dapo"], family="mine")
