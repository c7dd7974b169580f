"""Sphinx settings; warnings are errors (see .ci/run), and nothing needs a network."""

import os
import sys
from pathlib import Path
from typing import Any

import jax.typing
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.domains.python import PyObject
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import stringify_annotation

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from api_pages import escape_markup, variable_names, write_api_pages

import jaxrl_reason

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api"

project = "jaxrl_reason"
author = "the jaxrl_reason authors"
release = version = jaxrl_reason.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "jupyter_execute"]
suppress_warnings = ["ref.python"]  # two modules may use one name; it is then no link
# Names in single backticks link where they can and look like code where they cannot.
default_role = "py:obj"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# The notebooks are run by the build; one that fails fails the build. Their outputs are
# kept between builds, until a notebook changes.
nb_execution_mode = "cache"
nb_execution_cache_path = str(ROOT / "docs" / "_build" / ".jupyter_cache")
nb_execution_raise_on_error = True
nb_execution_timeout = 600
os.environ["PYTHONPATH"] = str(ROOT)  # their kernels import this checkout

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
add_module_names = False  # the page's title is the module
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 72
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_attr_annotations = True
napoleon_use_ivar = True
napoleon_use_param = False  # arguments that share a line stay together
napoleon_use_rtype = False

copybutton_exclude = ".linenos, .gp, .go"  # no prompts, no output

html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_theme = "sphinx_book_theme"
html_title = "jaxrl_reason"
html_show_sphinx = False
html_copy_source = False
html_split_index = True
html_theme_options = {
    "collapse_navbar": True,
    "home_page_in_toc": True,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "use_fullscreen_button": False,
}

# What a class documents under "Attributes:" is headed so here too.
for field in PyObject.doc_field_types:
    if field.name == "variable":
        field.label = "Attributes"


def escape_docstring(_app: Sphinx, _what: str, _name: str, *rest: Any) -> None:
    """Escapes the formulas of a docstring, its examples apart."""
    lines: list[str] = rest[-1]
    in_example = False
    for number, line in enumerate(lines):
        in_example = line.lstrip().startswith(">>>") or (in_example and bool(line))
        if not in_example:
            lines[number] = escape_markup(line)


# Unions are spelled out by autodoc; this one reads better by its name.
ARRAY_LIKE = stringify_annotation(jax.typing.ArrayLike, mode="smart")


def shorten_signature(_app: Sphinx, *event: Any) -> tuple[str | None, str | None]:
    """Says ArrayLike, not its eight types, and "..." where a default is made."""
    signature, returns = event[-2:]
    if signature:
        signature = signature.replace(ARRAY_LIKE, "ArrayLike")
        # Sphinx would not parse it and would break the lines at every comma.
        signature = signature.replace("<factory>", "...")
    return signature, returns


VARIABLES = variable_names(ROOT)


def link_name(
    app: Sphinx, env: BuildEnvironment, node: Any, content: nodes.TextElement
) -> nodes.reference | None:
    """Links `dapo_loss` wherever it stands, if only one thing has that name."""
    if node.get("refdomain") != "py":
        return None
    name = node["reftarget"].lstrip(".~")
    if name in VARIABLES:
        return None
    objects = env.domains.python_domain.objects
    found = [full for full in objects if full == name or full.endswith("." + name)]
    if len(found) != 1:
        return None
    entry = objects[found[0]]
    uri = app.builder.get_relative_uri(node["refdoc"], entry.docname)
    return nodes.reference(
        "",
        "",
        content,
        internal=True,
        refuri=f"{uri}#{entry.node_id}",
        reftitle=found[0],
    )


def setup(app: Sphinx) -> None:
    """Writes the API's pages before anything is read."""
    app.connect(
        "builder-inited", lambda _: write_api_pages(ROOT, ROOT / "docs" / "api")
    )
    # Before napoleon, which has the priority 500, turns sections into markup.
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("missing-reference", link_name)
