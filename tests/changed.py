"""Which tests a change affects: those whose modules import what has changed, directly or through others."""

import functools
import subprocess
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
# {where a file lies that is no module: the only tests that read it}; a file that is none of these affects all.
READERS = {
    'docs/': ['tests.docs_test'],
    'README.md': ['tests.docs_test'],
    'CONTRIBUTING.md': ['tests.docs_test'],
    'CHANGELOG.md': [],
    'CITATION.cff': [],
    '.pre-commit-config.yaml': [],
    '.dockerignore': ['tests.launch_test'],
    'LICENSE': [],
    'launch/': ['tests.launch_test', 'tests.docs_test'],
    'tests/golden.npz': ['tests.golden_test'],
    '.ci/': [],
    '.github/': ['tests.launch_test'],
}
# Fixtures of conftest.py that run the program, whatever their tests import.
RUNS = {'earlier', 'earlier_data', 'finished_run', 'first_game_steps', 'forks', 'runs', 'stage_states'}


def files(revision: str) -> list[str]:
    """Returns the paths of files that differ from a revision, and of those that git does not know yet."""

    def git(*arguments):
        run = subprocess.run(['git', *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        if run.returncode:
            raise pytest.UsageError(f'--changed={revision}: {run.stderr.strip()}')
        return run.stdout.splitlines()

    return sorted({*git('diff', '--name-only', revision), *git('ls-files', '--others', '--exclude-standard')})


@functools.cache
def _graph():
    return grimp.build_graph('artifacts_jax', 'tests', include_external_packages=True, cache_dir=None)


def modules(paths: list[str]) -> set[str] | None:
    """Returns the modules that changed files affect, None for all.

    Args:
      paths: of the files, from the repository's root.
    """
    graph, affected = _graph(), set()
    for path in paths:
        name = path.removesuffix('.py').removesuffix('/__init__').replace('/', '.')
        name = f'artifacts_jax.{name}'.partition('.configs')[0] + '.configs' if path.startswith('configs/') else name
        readers = next((tests for start, tests in READERS.items() if path.startswith(start)), None)
        if readers is not None:
            affected |= {*readers}
        elif path.endswith('.py') and name in graph.modules and name != 'tests.conftest':
            affected |= {name, *graph.find_downstream_modules(name)}
            if name.startswith('artifacts_jax'):  # which processes import that tests start
                affected |= graph.find_modules_that_directly_import('subprocess')
        elif not path.endswith('.py') or (ROOT / path).exists():
            return None
    return affected


def is_affected(item, affected: set[str]) -> bool:
    """Returns whether pytest's item is of an affected module, or uses a fixture that runs what is affected."""
    name = '.'.join(item.path.relative_to(ROOT).with_suffix('').parts)
    runs = RUNS & {*item.fixturenames} and any(module.startswith('artifacts_jax') for module in affected)
    return name in affected or bool(runs)
