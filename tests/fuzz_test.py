"""Whatever is asked of main, it runs its steps, or ends with one line and status 1: never a stack trace, never nothing.

Configurations near the defaults, command lines and states of work directories: CASES, some of which once failed, and in
the nightly tests new ones, sampled by hypothesis.
"""

import json
import math
import os
import shutil

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from artifacts_jax.configs import declarations, default

CONFIG = """
from artifacts_jax import config
from artifacts_jax.configs import default

def get_config():
    saved, _ = config.read('old/config.json', default.get_config())
    saved = saved.copy_and_resolve_references()
    saved.stages = ('autoencoder', 'artifacts', 'probe')
    return saved
"""
STEPS = ('autoencoder.steps', 'artifacts.steps')
TEXTS = {  # of keys that name something that is there or not
    'data.name': ['photographs2', '/nowhere', '.', '~', 'images', '..', 'a b', 'x.npz', 'images/train.npz'],
    'data.data_dir': ['', '/nowhere', '.'],
    'data.train': ['train', 'test', 'train[:50%]', 'train[3:4]', 'train[5:5]', 'train+test', '', '[', 'nowhere'],
    'autoencoder.pretrained': ['', '/nowhere', '.', 'old', 'old/export', 'old/autoencoder/export'],
    'stl10.folds': ['', '/nowhere', '.', 'config.py'],
}
TEXTS |= {'data.probe_train': TEXTS['data.train'], 'data.test': TEXTS['data.train']}
TEXTS['artifacts.pretrained'] = TEXTS['pretrained'] = TEXTS['autoencoder.pretrained']


def words(key):
    """Returns what a key's declaration names, and what it does not."""
    return [*key.values.removeprefix('of ').split(', '), '', 'nothing', key.default]


def numbers(default):
    """Returns values near a number's default, and far from all."""
    if isinstance(default, int):
        return [-2, -1, 0, 1, 2, 3, 4, 5, 7, 8, 16, 2**31, 10**20, 0.5, 'x']
    return [-1.0, 0.0, 1e-9, 0.1, 0.5, 1.0, 1.5, 30.0, 1e9, math.nan, math.inf, -math.inf, 1, 'x']


def value(path, key):
    """Returns a strategy for values of a key, as they are written on the command line."""
    default = key.default
    if path in STEPS:
        return st.sampled_from([-1, 0, 1, 6, 7])
    if path in TEXTS:
        return st.sampled_from(TEXTS[path])
    if isinstance(default, bool):
        return st.sampled_from([True, False, 'maybe'])
    if isinstance(default, str):
        return st.sampled_from(words(key))
    if isinstance(default, tuple):
        entry = words(key) if isinstance(default[0], str) else numbers(default[0])
        return st.lists(st.sampled_from(entry), max_size=6).map(tuple) | st.sampled_from([default, default[:1]])
    return st.sampled_from(numbers(default))


def overrides():
    """Returns a strategy for some keys of the command line with values."""
    keys = sorted(declarations.flatten(default.KEYS))
    one = st.sampled_from(keys).flatmap(lambda item: value(*item).map(lambda x: (item[0], x)))
    return st.lists(one, max_size=3, unique_by=lambda item: item[0])


ARGUMENTS = [
    '--config.nothing=1',
    'run',
    '--nothing',
    '--replay',
    '--config=other.py',
    '--config=old/config.json',
    '-h',
]
STATES = ('new', 'empty', 'old', 'a file', 'no steps', 'no rights', 'half', 'garbage', 'no config', 'results', 'export')


@pytest.fixture(scope='session')
def old(unpacked, tmp_path_factory):
    """A folder with data, a configuration, and a finished run 'old' of 6 steps of each stage."""
    folder = shutil.copytree(unpacked, tmp_path_factory.mktemp('fuzz') / 'fuzz')
    (folder / 'pretraining').rename(folder / 'old')
    (folder / 'config.py').write_text(CONFIG)
    return folder


def make(folder, workdir, state):
    """Puts a work directory into a state."""
    if workdir.is_dir():
        shutil.rmtree(workdir)
    workdir.unlink(missing_ok=True)
    if state == 'empty':
        workdir.mkdir()
    elif state == 'a file':
        workdir.write_text('')
    elif state != 'new':
        shutil.copytree(folder / 'old', workdir)
    checkpoints = workdir / 'artifacts' / 'checkpoints'
    if state == 'no steps':
        shutil.rmtree(checkpoints)
    elif state == 'half':
        for path in checkpoints.rglob('*'):
            if path.is_file() and path.stat().st_size > 100:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif state == 'garbage':
        (workdir / 'config.json').write_text('{"seed": ')
    elif state == 'no config':
        (workdir / 'config.json').unlink()
    elif state == 'results':
        (workdir / 'results.json').write_text('[]')
        (workdir / 'artifacts' / 'metrics.jsonl').write_text('{"step": 1, "te')
    elif state == 'export':
        shutil.rmtree(workdir / 'export' / 'trunk')


def check(forks, folder, keys, arguments, state):
    """Asserts of one command what the head of this file says."""
    make(folder, folder / 'run', state)
    given = [f'--config.{path}={x!r}' if isinstance(x, tuple) else f'--config.{path}={x}' for path, x in keys]
    command = ['--config=config.py', '--workdir=run', *given, *arguments]
    status, printed, said = forks.start(*command, cwd=folder)
    case = f'{(keys, arguments, state)!r}\nstatus {status}\n{printed[-500:]}\n{said}'
    lines = [line for line in said.splitlines() if not line.startswith(('warning: ', '  ', 'The run continues'))]
    assert 'Traceback' not in said, case
    if '-h' in arguments:
        assert status in (0, 1), case  # 1 if the configuration is invalid
    elif status == 0:
        assert not lines, case
        assert 'done in' in printed, case
        assert 'nan %' not in printed, case
        assert json.loads((folder / 'run' / 'config.json').read_text()), case
    else:
        assert status in (1, 2), case
        assert lines, case
        assert lines[0].startswith('error: '), case
        assert len(lines) == 1 or lines[-1].startswith('Use another --workdir'), case


CASES = [
    ([], [], 'half'),  # Orbax told more than the error
    ([], [], 'results'),  # that are no results
    ([], [], 'garbage'),
    ([], [], 'export'),
    pytest.param(([('artifacts.steps', 7), ('force', True)], [], 'old'), marks=pytest.mark.nightly),
    ([('autoencoder.steps', 1)], [], 'old'),  # fewer than are done
    ([('data.train', 'train[5:5]')], [], 'new'),
    ([('batch_size', 10**20)], [], 'empty'),
    ([('artifacts.drop_rate', math.nan)], [], 'no rights'),
    ([], ['--config=old/config.json'], 'no config'),
    ([], ['--nothing'], 'a file'),
]


@pytest.mark.parametrize('case', CASES)
def test_each_case_runs_or_ends_in_one_line(forks, old, case):
    check(forks, old, *case)


OPTIONS = {
    'deadline': None,
    'database': None,
    'suppress_health_check': list(HealthCheck),
    'phases': [Phase.generate],  # a smaller case is not worth its minutes
}
COMMANDS = (overrides(), st.lists(st.sampled_from(ARGUMENTS), max_size=1), st.sampled_from(STATES))


@pytest.mark.nightly
@settings(max_examples=int(os.environ.get('FUZZ', '40')), **OPTIONS)
@given(*COMMANDS)
def test_any_command_runs_or_ends_in_one_line(forks, old, keys, arguments, state):
    check(forks, old, keys, arguments, state)
