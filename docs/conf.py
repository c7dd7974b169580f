"""Sphinx settings; warnings are errors (see .ci/run)."""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import jaxrl_reason

project = "jaxrl_reason"
author = "the jaxrl_reason authors"
release = version = jaxrl_reason.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
# Names in single backticks link where they can and look like code where they cannot.
default_role = "py:obj"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # docstrings state shapes, which types do not
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = "alabaster"
html_theme_options = {
    "description": "Reinforcement learning of reasoning language models in pure JAX",
    "page_width": "1100px",
    "sidebar_width": "240px",
}


MARKUP = re.compile(r"[*|]|(?<=\w)_(?!\w)")


def escape_markup(_app: Any, _what: str, _name: str, *rest: Any) -> None:
    """Keeps `*`, `|` and a final `_` of formulas from being read as markup."""
    lines: list[str] = rest[-1]
    in_example = False
    for number, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line))
        if not in_example:
            parts = re.split("(`+[^`]*`+)", line)  # every second part is code
            parts[::2] = [MARKUP.sub(r"\\\g<0>", part) for part in parts[::2]]
            lines[number] = "".join(parts)


def setup(app: Any) -> None:
    # Before napoleon, which has the priority 500, turns sections into markup.
    app.connect("autodoc-process-docstring", escape_markup, priority=400)
