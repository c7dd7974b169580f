"""Sphinx settings; warnings are errors (see .ci/run)."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jaxrl_reason

project = "jaxrl_reason"
author = "the jaxrl_reason authors"
release = version = jaxrl_reason.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]
# Names in single backticks link where they can and look like code where they cannot.
default_role = "py:obj"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "alabaster"
html_theme_options = {
    "description": "Reinforcement learning of reasoning language models in pure JAX",
    "page_width": "1100px",
    "sidebar_width": "240px",
}
