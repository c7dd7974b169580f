"""The tables of recipes, made from the recipes themselves while the docs are built.

A page holds `<!-- recipes: NAME -->` where a table's rows belong, NAME being one of
`TABLES`. So a recipe has its rows by being written.
"""

import re
from collections.abc import Callable
from typing import Any

from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.recipe import FAMILIES, Recipe

MARK = re.compile(r"^<!-- recipes: (\w+) -->$", re.M)
# Published losses are named by the built method; any limit does.
LIMIT = 4096


def cell(value: object) -> str:
    """A value as it stands in a table: a dash for a setting that no source gives."""
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return " / ".join(cell(one) for one in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(cell(one) for one in cells) + " |"


def sources(recipe: Recipe) -> str:
    """The arXiv ids."""
    return ", ".join(recipe.sources) or "repository"


def settings_row(recipe: Recipe) -> str:
    """The settings that its sources give."""
    s = recipe.settings
    updates, notes = cell(s.updates), s.notes
    if s.critic_updates is not None:
        updates += f" (critic {s.critic_updates})"
    if s.value_pretraining_steps is not None:
        notes += f"; {s.value_pretraining_steps} steps of value pretraining"
    return row(
        *(f"`{recipe.name}`", sources(recipe), s.learning_rate, s.critic_learning_rate),
        *(s.prompts, s.group_size, updates, s.max_new_tokens, s.temperature),
        *(s.clip, s.kl_coef, notes),
    )


def open_row(recipe: Recipe) -> str:
    """What its sources leave open, and what is not built."""
    sides = "; ".join(recipe.not_published), "; ".join(recipe.not_built)
    return row(f"`{recipe.name}`", *(side or "-" for side in sides))


def method_row(recipe: Recipe) -> str:
    """What it is made of, beside its page and its loss."""
    made, page = recipe.made_of, f"{recipe.module}.md"
    assert made is not None  # it has a title
    loss = recipe.build(LIMIT).loss
    link = f"[{recipe.title}]({page}{'#' if recipe.anchor else ''}{recipe.anchor})"
    return row(
        f"{link}, {'arXiv ' if recipe.sources else ''}{sources(recipe)}",
        *(made.advantages, made.objective, made.reduction, made.extras),
        *(f"`{getattr(loss, 'func', loss).__name__}`", f"`{recipe.name}`"),
    )


def family(name: str) -> list[str]:
    """The rows of one table of methods."""
    return [method_row(r) for r in RECIPES.values() if r.family == name]


TABLES: dict[str, Callable[[], list[str]]] = {
    "settings": lambda: [settings_row(recipe) for recipe in RECIPES.values()],
    "open": lambda: [open_row(recipe) for recipe in RECIPES.values()],
    **{name: lambda name=name: family(name) for name in FAMILIES},  # type: ignore[misc]
}


def fill_tables(text: str) -> str:
    """The page with its tables.

    Raises:
      ValueError: it asks for a table that there is not.
    """

    def rows(mark: re.Match[str]) -> str:
        if mark[1] not in TABLES:
            names = ", ".join(TABLES)
            raise ValueError(
                f"a table of recipes must be one of {names}, got {mark[1]}"
            )
        return "\n".join(TABLES[mark[1]]())

    return MARK.sub(rows, text)


def on_source_read(app: Any, docname: str, source: list[str]) -> None:
    """For Sphinx: the page as it is read."""
    source[0] = fill_tables(source[0])
