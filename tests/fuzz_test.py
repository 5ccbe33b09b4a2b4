"""Whatever is asked of main, it runs its steps, or ends with one line and status 1: never a stack trace, never nothing.

Configurations near the defaults, command lines and states of work directories are drawn by hypothesis. What it has
once found stands in CASES.
"""

import json
import math
import os
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from artifacts_jax.configs import declarations, default

SMALL = """
from artifacts_jax.configs import default

def get_config():
    config = default.get_config()
    config.batch_size, config.data.size, config.data.name = 4, 16, {folder!r}
    config.model.update(
        image_size=16, encoder_widths=(4, 8, 8), widths=(4, 8, 8, 8, 8), kernels=(3,) * 5, conv1_stride=1, hidden=16
    )
    config.autoencoder.steps = config.artifacts.steps = 2
    config.probe.update(max_values=64, iterations=3, epochs=1, batch_size=8)
    config.monitor.update(bank=16, queries=8, neighbours=3)
    config.transfer.update(epochs=1, batch_size=8, hidden=8, num_folds=2, fold_size=4)
    config.update(log_every=1, eval_every=2, figure_every=2, checkpoint_every=1, eval_examples=8)
    return config
"""
STEPS = ('autoencoder.steps', 'artifacts.steps')
TEXTS = {  # of keys that name something that is there or not
    'data.name': ['photographs2', '/nowhere', '.', '~', 'data', '..', 'a b', 'x.npz', 'data/train.npz'],
    'data.data_dir': ['', '/nowhere', '.'],
    'data.train': ['train', 'test', 'train[:50%]', 'train[3:4]', 'train[5:5]', 'train+test', '', '[', 'nowhere'],
    'autoencoder.pretrained': ['', '/nowhere', '.', 'old', 'old/export', 'old/autoencoder/export'],
    'transfer.folds': ['', '/nowhere', '.', 'config.py'],
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
        return st.sampled_from([-1, 0, 1, 2, 3])
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
def old(forks, tmp_path_factory):
    """A folder with data, a configuration, and a finished run 'old'."""
    folder = tmp_path_factory.mktemp('fuzz')
    images = np.random.default_rng(0).integers(0, 256, (24, 16, 16, 3), np.uint8)
    (folder / 'data').mkdir()
    for split in ('train', 'test'):
        np.savez(folder / 'data' / f'{split}.npz', image=images, label=np.arange(24) % 3)
    (folder / 'config.py').write_text(SMALL.format(folder=str(folder / 'data')))
    forks.done('--config=config.py', '--workdir=old', cwd=folder)
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
    lines = [line for line in said.splitlines() if not line.startswith(('warning: ', '  ', 'It goes on with'))]
    assert 'Traceback' not in said, case
    if status == 0:
        assert not lines, case
        assert 'done in' in printed, case
        assert 'nan %' not in printed, case
        assert json.loads((folder / 'run' / 'config.json').read_text()), case
    elif '-h' in arguments:
        assert status == 1, case
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
    ([('artifacts.steps', 3), ('force', True)], [], 'old'),
]


@pytest.mark.parametrize('case', CASES)
def test_what_was_found_before(forks, old, case):
    check(forks, old, *case)


OPTIONS = {
    'deadline': None,
    'database': None,
    'suppress_health_check': list(HealthCheck),
    'phases': [Phase.generate],  # a smaller case is not worth its minutes
}
COMMANDS = (overrides(), st.lists(st.sampled_from(ARGUMENTS), max_size=1), st.sampled_from(STATES))


@settings(max_examples=20, derandomize=True, **OPTIONS)
@given(*COMMANDS)
def test_any_command_runs_or_ends_in_one_line(forks, old, keys, arguments, state):
    check(forks, old, keys, arguments, state)


@pytest.mark.slow
@pytest.mark.skipif('FUZZ' not in os.environ, reason='set FUZZ=400, the number of commands: half an hour')
@settings(max_examples=int(os.environ.get('FUZZ', 1)), **OPTIONS)
@given(*COMMANDS)
def test_any_of_many_commands_runs_or_ends_in_one_line(forks, old, keys, arguments, state):
    check(forks, old, keys, arguments, state)
