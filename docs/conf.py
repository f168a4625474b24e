"""Sphinx configuration; ``make docs`` builds the pages in ``docs/_build/html``.

The build needs no network. With ``SKFDAN_DOCS_ONLINE=1``, as for publishing, names of other
packages (``sklearn``, ``torch``, ...) become links to their documentation.
"""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "skfdan"
author = "The skfdan developers"
copyright = author
version = release = installed_version("skfdan")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_nb",
    "sphinx_copybutton",
    "sphinx_design",
    "reference",
    "mathml",
    "repository",
    "typography",
]
exclude_patterns = ["_build", "_ext", "_static", "_templates"]
templates_path = ["_templates"]

# ---------------------------------------------------------------------------- references

nitpicky = True
nitpick_ignore_regex = [
    # Resolved by intersphinx, which offline builds leave out.
    (r"py:.*", r"(sklearn|numpy|pandas|scipy|torch|torchvision|skorch|matplotlib|gradio)\..*"),
]
# Terms of scikit-learn's glossary, in what is inherited from it.
suppress_warnings = ["ref.term"]
ONLINE = {
    "matplotlib": "https://matplotlib.org/stable/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "python": "https://docs.python.org/3/",
    "scipy": "https://docs.scipy.org/doc/scipy/",
    "sklearn": "https://scikit-learn.org/stable/",
    "skorch": "https://skorch.readthedocs.io/en/stable/",
    "torch": "https://docs.pytorch.org/docs/stable/",
}
if os.environ.get("SKFDAN_DOCS_ONLINE") == "1":
    intersphinx_mapping = {name: (url, None) for name, url in ONLINE.items()}

# ---------------------------------------------------------------------------- API reference

# The types stand in the docstrings, in words.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
autosummary_generate = True
numpydoc_show_class_members = False  # the templates do, and _ext/reference.py says which
add_module_names = False
toc_object_entries_show_parents = "hide"

# ---------------------------------------------------------------------------- pages

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"
nb_merge_streams = True
smartquotes = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "pydata_sphinx_theme"
html_title = "skfdan"
html_static_path = ["_static"]
html_css_files = ["skfdan.css"]
html_favicon = "_static/logo.svg"
html_math_renderer = "mathml"
html_sidebars = {"*": []}  # pages of no section have nothing to show there
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "logo": {"text": "skfdan", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "header_links_before_dropdown": 5,
    "navbar_align": "left",
    "navbar_persistent": ["search-button"],
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}
