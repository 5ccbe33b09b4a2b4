"""Sphinx's settings for the site that launch/docs.sh builds from these pages, with any warning as an error."""

import re
import runpy
import sys
import typing
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # this tree's package and configs, whatever is installed; directives.py

project = 'artifacts_jax'
typing.GENERATING_DOCUMENTATION = project  # for which jaxtyping writes its types by their names
author = copyright = 'the authors of artifacts_jax'
release = runpy.run_path(str(HERE.parent / 'artifacts_jax' / 'version.py'))['__version__']
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.viewcode',
    'sphinx_copybutton',
    'directives',
]
exclude_patterns = ['_build']
default_role = 'code'  # `name` in a docstring, as in Markdown
smartquotes = False  # would turn the two hyphens of an option into a dash

myst_heading_anchors = 3
myst_enable_extensions = ['html_image']

html_theme = 'sphinx_book_theme'
html_title = f'{project} {release}'
html_static_path = ['_static']
html_css_files = ['site.css']
html_theme_options = {
    'use_download_button': False,
    'navbar_persistent': [],  # pydata_sphinx_theme puts a second search box there, above the sidebar's
}

autodoc_default_options = {
    'members': True,
    'member-order': 'bysource',
    'ignore-module-all': True,  # what a module imports is described where it is written
    'special-members': '__call__',
}
autodoc_preserve_defaults = True
napoleon_custom_sections = ['Returns', 'Yields']  # as text: a shape before a colon is no type

nitpick_ignore_regex = [
    # Types of other projects, whose inventories would have to be fetched.
    ('py:.*', r'(collections|contextlib|pathlib|types|numpy|jax|jaxlib|jaxtyping|flax|optax|ml_collections)\..*'),
    ('py:.*', r'(orbax|tensorflow_datasets|zipfile)\..*'),
    ('py:class', r'Array|ArrayLike|ndarray|PyTree|(Bool|Float|Int(eger)?|Key|Num|Real|Shaped|UInt)\d*'),  # of jaxtyping
]
# Words of docstrings whose 'Raises' names no single error, and what has no entry of its own.
nitpick_ignore = [
    *[('py:exc', words) for words in ('one of its kinds', 'with a message for the user.')],
    *[('py:exc', words) for words in ('its error', 'there; in the others ConfigError.')],
    ('py:class', 'artifacts_jax.models.layers.Length'),  # a type variable
]


def escape(app, what, name, obj, options, lines):
    """Keeps docstrings, which are text with names in `backticks`, from being read as other markup."""
    for n, line in enumerate(lines):
        parts = line.split('`')
        parts[::2] = [re.sub(r'[*|\\]|(?<=\w)_(?!\w)', r'\\\g<0>', text) for text in parts[::2]]
        lines[n] = '`'.join(parts)


def shorten(app, what, name, obj, options, signature, returns):
    """Leaves out of signatures what Flax adds to all its modules, and writes types by their names."""
    if signature is None:
        return None
    signature = re.sub(r', parent: .* = <flax.*', ')', signature)
    signature = re.sub(r"<class '([\w.]+)'>", r'\1', signature)
    return tuple(text and text.replace('jaxlib._jax.Array', 'Array') for text in (signature, returns))


def setup(app):
    """Reads docstrings and signatures before napoleon does."""
    app.connect('autodoc-process-docstring', escape, priority=100)
    app.connect('autodoc-process-signature', shorten)
