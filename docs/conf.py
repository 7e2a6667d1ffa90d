"""Settings of the documentation, which `make docs` builds: Sphinx with MyST and the theme Furo."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))

project = "adbench"
author = "the authors of adbench"
release = version = installed_version("diffusion-adbench")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "docstrings", "cards"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "extensions"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 4
suppress_warnings = ["myst.strikethrough"]

autodoc_inherit_docstrings = False  # torch documents forward() for its own pages
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
add_module_names = False
python_display_short_literal_types = True
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"adbench {release}"
html_show_sourcelink = False
html_copy_source = False
html_search_scorer = str(HERE / "search_scorer.js")
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
