"""How the pages are built: MyST for prose, numpydoc for docstrings, a gallery whose pictures come from running code."""

from importlib.metadata import version as installed

project = "thermokernels"
author = "the thermokernels developers"
version = release = installed("thermokernels")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinx_click",
    "sphinx_gallery.gen_gallery",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "gallery/README.txt"]

html_theme = "furo"
html_title = "thermokernels"

autosummary_generate = True
autodoc_typehints = "none"  # they stand in the numpydoc sections
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# Links to other projects need the network; a build without it is a build too.
intersphinx_mapping = {}
suppress_warnings = ["config.cache"]

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "pictures",
    "filename_pattern": r"plot_",
    "plot_gallery": True,
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "show_memory": False,
    "download_all_examples": False,
}
