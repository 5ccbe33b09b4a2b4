"""README and docs/: their links, that every page can be reached, and that the site builds without a warning."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from artifacts_jax import config as configuration
from artifacts_jax.configs import default, variants

ROOT = Path(__file__).parents[1]
DOCS = ROOT / 'docs'
PAGES = sorted(path for path in DOCS.rglob('*.md') if '_build' not in path.parts)
CONTRACTS = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['importlinter']['contracts']
LAYERS = [name for layer in CONTRACTS[0]['layers'] for name in layer.split(' | ')]
BUILD = 'sphinx -W --keep-going -n -b html'  # as in launch/docs.sh


def links(text):
    """The targets of the links and images of a page in Markdown, without those in code."""
    text = re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r'`[^`\n]*`', '', text)
    return re.findall(r'\]\(([^)\s]+)\)', text) + re.findall(r'<img src="([^"]+)"', text)


def anchors(text):
    """The anchors of a page's headings, as GitHub and MyST make them."""
    headings = re.findall(r'^#+ (.+)$', text, flags=re.MULTILINE)
    return {re.sub(r'[^\w -]', '', heading.lower()).replace(' ', '-') for heading in headings}


def dead_links(path):
    """The relative links of a page that lead to no file, or to no heading of a page."""
    dead = []
    for link in links(path.read_text()):
        if re.match(r'\w+:', link):
            continue
        name, _, anchor = link.partition('#')
        target = path.parent / name if name else path
        if not target.is_file() or (anchor and anchor not in anchors(target.read_text())):
            dead.append(link)
    return dead


def reachable(page):
    """The pages that tables of contents lead to from a page, itself among them."""
    pages = {page}
    for toctree in re.findall(r'^```\{toctree\}\n(.*?)^```', page.read_text(), flags=re.DOTALL | re.MULTILINE):
        for entry in filter(None, toctree.splitlines()):
            if not entry.startswith(':'):
                pages |= reachable(page.parent / f'{entry}.md')
    return pages


def build(source, out):
    """Builds a site as launch/docs.sh does."""
    command = [sys.executable, '-m', *BUILD.split(), source, out]
    environment = {**os.environ, 'JAX_PLATFORMS': 'cpu'}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)


def search_buttons(html):
    """How many search buttons a page shows on a wide screen, in the sidebar, and on a narrow one, above the text."""
    classes = [names.split() for names in re.findall(r'<button class="([^"]*)"', html)]
    shown = {'wide': 'search-button-field', 'narrow': 'search-button'}  # classes that the theme shows there alone
    return {screen: sum(name in names for names in classes) for screen, name in shown.items()}


def read_layers(picture):
    """The names with which the lines of a picture begin."""
    names = []
    for line in picture.splitlines():
        names += itertools.takewhile(LAYERS.__contains__, re.findall(r'\w+', line))
    return names


def test_readme_is_short_and_begins_with_two_commands():
    text = (ROOT / 'README.md').read_text()
    assert len(text.splitlines()) <= 150
    first = re.search(r'^```bash\n(.*?)^```', text, flags=re.DOTALL | re.MULTILINE)[1]
    assert [line.split()[0] for line in first.splitlines()] == ['launch/local.sh', 'launch/test.sh']


@pytest.mark.parametrize('path', [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *PAGES], ids=lambda path: path.stem)
def test_every_relative_link_leads_to_a_file_and_heading(path):
    assert dead_links(path) == []


def test_links_that_lead_nowhere_are_found(tmp_path):
    (tmp_path / 'other.md').write_text("# A title, and `more`\n\n## The authors' code\n")
    page = tmp_path / 'page.md'
    page.write_text(
        '# Page\n[a](other.md) [b](other.md#a-title-and-more) [c](other.md#the-authors-code) [d](#page)\n'
        '[e](https://example.org) `[f](in_code.md)`\n\n```\n[g](in_code.md)\n```\n\n'
        '[h](gone.md) [`i`](other.md#gone) [j](#gone) ![k](gone.png) <img src="lost.png">\n'
    )
    assert dead_links(page) == ['gone.md', 'other.md#gone', '#gone', 'gone.png', 'lost.png']


def test_every_page_is_reachable():
    assert reachable(DOCS / 'index.md') == set(PAGES)


def test_every_page_but_those_of_the_api_is_named_in_the_readme():
    named = {(ROOT / link.partition('#')[0]).resolve() for link in links((ROOT / 'README.md').read_text())}
    assert {path for path in PAGES if path.parent == DOCS and path.stem != 'index'} <= named


def test_every_test_cited_for_a_guarantee_exists():
    rows = [line for line in (DOCS / 'promises.md').read_text().splitlines() if '`tests/' in line]
    assert len(rows) > 20
    for row in rows:
        path, *names = re.findall(r'`((?:tests/|test_)[^`]+)`', row)
        text = (ROOT / path).read_text()
        assert all(f'def {name}(' in text for name in names), row
        nightly = re.findall(r'^@pytest\.mark\.nightly\n(?:@.*\n| .*\n|\)\n)*def (\w+)\(', text, flags=re.MULTILINE)
        assert not {*names} & {*nightly}, row


def test_every_room_has_a_page_in_the_api():
    subpackages = {path.parent.name for path in (ROOT / 'artifacts_jax').glob('*/__init__.py')}
    assert {path.stem for path in PAGES if path.parent == DOCS / 'api'} == {*subpackages, 'index', 'artifacts_jax'}


def test_the_launch_script_builds_as_the_tests_do():
    assert f'python -m {BUILD} docs ' in (ROOT / 'launch' / 'docs.sh').read_text()


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_has_what_it_reads_from_the_source(tmp_path):
    run = build(DOCS, tmp_path)
    assert run.returncode == 0, run.stderr
    keys, names = (re.sub(r'<[^>]+>', '', (tmp_path / f'{n}.html').read_text()) for n in ('configuration', 'study'))
    assert [key for key in configuration.flatten(default.get_config().to_dict()) if key not in keys] == []
    assert [name for name in variants.VARIANTS if name not in names] == []
    for path in (ROOT / 'artifacts_jax').glob('*/**/*.py'):
        if path.name != '__init__.py':
            module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
            assert f'id="module-{module}"' in (tmp_path / 'api' / f'{module.split(".")[1]}.html').read_text()
    for page in PAGES:
        name = page.relative_to(DOCS).with_suffix('.html')
        assert search_buttons((tmp_path / name).read_text()) == {'wide': 1, 'narrow': 1}, name


FAULTS = {  # {what is wrong in a page: what the build prints}
    '[a](gone.md)': 'gone.md',
    '[a](../gone.py)': 'gone.py',
    '[a](#gone_heading)': 'gone_heading',
    '![a](gone.png)': 'gone.png',
    '```{modules} artifacts_jax.gone\n```': 'there are no modules in',
    '```{eval-rst}\n:py:func:`gone_function`\n```': 'reference target not found: gone_function',
}


@pytest.mark.slow
def test_faults_in_pages_end_the_build_and_each_is_reported(tmp_path):
    site = tmp_path / 'docs'
    (site / '_static').mkdir(parents=True)
    (tmp_path / 'artifacts_jax').mkdir()
    shutil.copy(ROOT / 'artifacts_jax' / 'version.py', tmp_path / 'artifacts_jax')
    shutil.copy(ROOT / 'docs' / '_static' / 'site.css', site / '_static')
    for name in ('conf.py', 'directives.py'):
        shutil.copy(DOCS / name, site)
    (site / 'index.md').write_text('# Page\n\n' + '\n\n'.join(FAULTS) + '\n')
    (site / 'other.md').write_text('# Page\n')
    run = build(site, tmp_path / 'html')
    assert run.returncode != 0
    warnings = [line for line in run.stderr.splitlines() if re.search('WARNING|ERROR', line)]
    for expected in (*FAULTS.values(), "document isn't included in any toctree"):
        assert len([line for line in warnings if expected in line]) == 1, (expected, run.stderr)
    assert len(warnings) == len(FAULTS) + 1, run.stderr


@pytest.mark.parametrize('page', ['CONTRIBUTING.md', 'docs/development.md'])
def test_the_diagram_of_subpackages_has_the_checked_order(page):
    picture = re.search(r'^```text\n(.*?)^```', (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)[1]
    assert read_layers(picture) == LAYERS
    folders = {path.name for path in (ROOT / 'artifacts_jax').iterdir() if (path / '__init__.py').exists()}
    assert folders <= set(LAYERS)
