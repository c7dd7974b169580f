"""The tables of recipes in the docs, generated from the recipes.

    python docs/recipe_tables.py

writes the rows of every table that stands under `<!-- recipes: NAME -->`, NAME being
one of `TABLES`. A test compares the pages with what this would write.
"""

import re
from collections.abc import Callable
from pathlib import Path

from jaxrl_reason.rl.recipes import RECIPES
from jaxrl_reason.rl.recipes.recipe import FAMILIES, Recipe

PAGES = ("recipes.md", "losses/methods/index.md")
# The mark, the table's two lines of head, and its rows.
TABLE = re.compile(
    r"(?P<head>^<!-- recipes: (?P<name>\w+) -->\n\n\|.*\n\|.*\n)(?:\|.*\n)*", re.M
)
# Rows of methods that have no recipe of their own; they come first.
WITHOUT_RECIPE = {
    "reinforce": [
        "| [REINFORCE](reinforce.md) | `discounted_returns` minus a baseline "
        "| `policy_gradient` | `token_mean` | | `reinforce_loss` | |",
    ],
    "several": [
        "| [rStar-Math's PPM](ppm.md), arXiv 2501.04519 | | on pairs of steps "
        "| mean of pairs, then of steps | tree search makes the pairs "
        "| `pairwise_ranking_loss` | |",
        "| [Prover-verifier game](prover_verifier.md), arXiv 2407.13692 "
        "| `gae` of `prover_rewards` | `clipped_surrogate`; the verifier's on pairs "
        "| | two roles, rounds | `ppo_loss`, `verifier_loss` | |",
    ],
}
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
    rows = [method_row(r) for r in RECIPES.values() if r.family == name]
    return [*WITHOUT_RECIPE.get(name, []), *rows]


TABLES: dict[str, Callable[[], list[str]]] = {
    "settings": lambda: [settings_row(recipe) for recipe in RECIPES.values()],
    "open": lambda: [open_row(recipe) for recipe in RECIPES.values()],
    **{name: lambda name=name: family(name) for name in FAMILIES},  # type: ignore[misc]
}


def fill_tables(text: str) -> str:
    """The page with the rows of its tables.

    Raises:
      ValueError: it asks for a table that there is not.
    """

    def filled(found: re.Match[str]) -> str:
        name = found["name"]
        if name not in TABLES:
            names = ", ".join(TABLES)
            raise ValueError(f"a table of recipes must be one of {names}, got {name}")
        return found["head"] + "".join(f"{line}\n" for line in TABLES[name]())

    return TABLE.sub(filled, text)


if __name__ == "__main__":
    for page in PAGES:
        path = Path(__file__).parent / page
        path.write_text(fill_tables(path.read_text("utf-8")), "utf-8")
