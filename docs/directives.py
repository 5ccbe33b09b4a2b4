"""Directives that read tables and sections from the source when the site is built, so that none can be out of date."""

from pathlib import Path

from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[1]


class Keys(SphinxDirective):
    """`keys`: a section for each group of keys in configs/default.py and tasks.py, with their values and comments."""

    def run(self):
        """Returns the sections."""
        from artifacts_jax.configs import declarations, default

        sources = ((ROOT / 'configs' / name).read_text() for name in declarations.FILES)
        comments = declarations.parse_comments(''.join(sources))
        rows = {}
        for path, key in declarations.flatten(default.KEYS):
            group = path.rpartition('.')[0]
            row = f'`{path}`', f'`{key.default!r}`', key.values, comments[path]
            rows.setdefault(group or 'The run', []).append(row)
        names = 'key', 'default', 'may be', 'meaning'
        text = ''.join(f'### {group}\n\n{table(names, rows[group])}' for group in rows)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


class Variants(SphinxDirective):
    """`variants`: a table of the variants in configs/variants.py."""

    def run(self):
        """Returns the table."""
        from artifacts_jax.configs.variants import VARIANTS

        def keys(overrides):
            return '<br>'.join(f'`{key}={value!r}`' for key, value in overrides.items())

        rows = [(f'`{name}`', variant.why, keys(variant.overrides)) for name, variant in VARIANTS.items()]
        return self.parse_text_to_nodes(table(('variant', 'why', 'keys'), rows))


class Modules(SphinxDirective):
    """`modules` PACKAGE: a section for each module in a package's folder, and in the folders in it, by autodoc."""

    required_arguments = 1

    def run(self):
        """Returns the sections."""
        (package,) = self.arguments
        folder = ROOT / package.replace('.', '/')
        paths = sorted(path.relative_to(folder) for path in folder.rglob('*.py') if path.name != '__init__.py')
        if not paths:
            raise self.error(f'there are no modules in {folder}')
        names = ['.'.join(path.with_suffix('').parts) for path in paths]
        text = ''.join(f'## {name}\n\n```{{eval-rst}}\n.. automodule:: {package}.{name}\n```\n\n' for name in names)
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def table(names, rows) -> str:
    """Returns a table in Markdown."""
    cells = [names, ['---'] * len(names), *rows]
    return ''.join('| ' + ' | '.join(cell.replace('|', r'\|') for cell in row) + ' |\n' for row in cells) + '\n'


def setup(app):
    """Adds the directives."""
    app.add_directive('keys', Keys)
    app.add_directive('variants', Variants)
    app.add_directive('modules', Modules)
    return {'parallel_read_safe': True}
