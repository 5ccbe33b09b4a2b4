"""What the pages list, beside what the program has."""

import itertools
import re
from pathlib import Path

import pytest

import artifacts_jax
from artifacts_jax import benchmark, cli
from artifacts_jax import config as configuration
from artifacts_jax.configs import default
from tests import golden_test
from tests.earlier import workdirs

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / 'docs').glob('*.md')), ROOT / 'README.md', ROOT / 'CONTRIBUTING.md']
COLUMN = 76  # characters of code that a page shows without scrolling


def page(name):
    return (ROOT / 'docs' / name).read_text()


def section(name, heading):
    return re.search(rf'^## {heading}\n(.*?)(?=^## |\Z)', page(name), flags=re.DOTALL | re.MULTILINE)[1]


def undocumented(workdir):
    """The files and folders of a work directory that its page does not name."""
    return sorted(path.name for path in workdir.iterdir() if f'`{path.name}' not in page('workdir.md'))


@pytest.mark.parametrize('workdir', workdirs.STAGES)
def test_what_tasks_leave_in_a_work_directory_is_on_its_page(workdir, unpacked):
    assert undocumented(unpacked / workdir) == []


def test_free_keys_are_those_of_the_page():
    free = {key for key, declared in configuration.get_declarations().items() if declared.free}
    text = section('configuration.md', 'Change the configuration of an existing run')
    assert {key for key in configuration.get_declarations() if f'`{key}`' in text} == free


def test_every_stage_is_on_the_page_of_the_method():
    assert [stage for stage in default.STAGES if f'`{stage}`' not in section('method.md', 'The stages')] == []


def test_every_stage_that_the_benchmark_measures_is_on_the_page_of_speed():
    stages = [*benchmark.TASKS, 'autoencoder', 'artifacts', benchmark.DATA]
    (row,) = [line for line in page('speed.md').splitlines() if line.startswith('| `--stages`')]
    assert sorted(re.findall(r'`(\w+)`', row)) == sorted(stages)


def test_every_command_and_loader_is_in_the_api():
    text = page('api/artifacts_jax.md')
    named = re.findall(r'autofunction:: artifacts_jax\.(\w+)', text)
    assert sorted([*named, '__version__']) == sorted(artifacts_jax.__all__)
    rows = re.findall(r'^\| `artifacts-jax (\w+)` \| `(\w+)` \| (.*) \|$', text, re.MULTILINE)
    assert {name: (module, what) for name, module, what in rows} == cli.COMMANDS


def test_tolerances_are_those_of_the_tests():
    cited = [float(x) for x in re.findall(r'\| (\de-\d) \|', section('tf1.md', 'How closely the networks agree'))]
    enforced = ('FORWARD', 'LOSS', 'GRADIENT_NORM', 'GRADIENT', 'STATISTICS')
    assert cited == [getattr(golden_test, name) for name in enforced]


def test_packages_of_a_machine_without_tensorflow_are_those_that_are_required():
    setup = re.search(r'install_requires=(.*?)extras_require', (ROOT / 'setup.py').read_text(), re.DOTALL)[1]
    required = set(re.findall(r"^        '([\w-]+)", setup, re.MULTILINE))
    without = {'importlib-resources', 'numpy'}  # of tensorflow-datasets; what others bring
    text = section('devices.md', 'A machine without TensorFlow')
    (command,) = re.findall(r'^pip install (.*?)\n[^ ]', text.replace('\\\n', ' '), flags=re.DOTALL | re.MULTILINE)
    named = {re.match(r'[\w-]+', name)[0] for name in command.replace("'", '').split()}
    named |= set(re.findall(r'`([\w-]+)` ?[|,]', text)) - {'prepare', 'tf1'}
    assert required - without == named - {'opencv-contrib-python-headless'}


@pytest.mark.parametrize('path', PAGES, ids=lambda path: path.stem)
def test_code_fits_the_column(path):
    blocks = re.findall(r'^```[a-z]*\n(.*?)^```', path.read_text(), flags=re.DOTALL | re.MULTILINE)
    lines = itertools.chain.from_iterable(block.splitlines() for block in blocks)
    assert [line for line in lines if len(line) > COLUMN] == []
