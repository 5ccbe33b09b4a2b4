"""Tests of the console command and of python -m artifacts_jax, started like a user starts them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import artifacts_jax
from artifacts_jax import cli, startup

ROOT = Path(__file__).parents[1]
MODULES = {path.stem for path in (ROOT / 'artifacts_jax').glob('*.py') if 'command.run(' in path.read_text()}


@pytest.fixture(scope='module')
def script(tmp_path_factory):
    """Returns the script of the console command, with the content that an installation writes."""
    path = tmp_path_factory.mktemp('bin') / 'artifacts-jax'
    path.write_text(
        'import sys\nfrom artifacts_jax.cli import main\nif __name__ == "__main__":\n    sys.exit(main())\n'
    )
    return path


@pytest.fixture(params=['console', 'package', 'module'])
def train(request, script):
    """Returns the arguments of Python that start main: by the console command, the package or the module."""
    return {
        'console': [script, 'train'],
        'package': ['-m', 'artifacts_jax', 'train'],
        'module': ['-m', 'artifacts_jax.main'],
    }[request.param]


def environment(**options):
    inherited = {name: x for name, x in os.environ.items() if name not in ('GLIBC_TUNABLES', startup.RESTARTED)}
    return {**inherited, 'PYTHONPATH': str(ROOT), **options}


def test_every_command_is_listed_with_one_line(forks):
    assert {module for module, _ in cli.COMMANDS.values()} == MODULES
    for arguments in ([], ['--help']):
        lines = forks.done(*arguments, module='__main__').splitlines()
        assert [line.split()[0] for line in lines if line.startswith('  ')] == list(cli.COMMANDS)


def test_the_printed_version_is_that_of_the_citation_file(forks):
    assert forks.done('--version', module='__main__') == f'artifacts_jax {artifacts_jax.__version__}\n'
    assert f'\nversion: {artifacts_jax.__version__}\n' in (ROOT / 'CITATION.cff').read_text()


@pytest.mark.parametrize(('name', 'flag'), [('train', '--replay'), ('figures', '--layer'), ('prepare', '--data_dir')])
def test_help_of_a_command_lists_its_flags(forks, name, flag):
    printed = forks.done(name, '--help', module='__main__')
    assert f'  {flag}: ' in printed.replace('--[no]', '--')
    assert f'python -m artifacts_jax.{cli.COMMANDS[name][0]} ' in printed


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['trian'], 'artifacts-jax trian: unknown command; the nearest is train;'),
        (['--config=demo'], 'artifacts-jax --config=demo: the command is missing; expected one of train, prepare,'),
        (['train', '--config=dmo'], '--config=dmo: dmo does not exist; .* nearest is demo$'),
        (['train', '--config=voc07_detection'], 'nearest is transfer/voc07_detection$'),
        (['train', '--config=transfer/voc7_svm'], 'nearest is transfer/voc07_svm$'),
        (['train', '--config=stl10:referense', '--workdir=run'], "no variant 'referense'; the nearest is 'reference'"),
        (['figures', '--workdir='], '--workdir is empty'),
        (['train'], '--config= is missing'),
    ],
)
def test_user_errors_are_one_line(forks, arguments, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(forks.refused(*arguments, module='__main__', cwd=tmp_path).strip())
    assert list(tmp_path.iterdir()) == []


NAMES = [
    'demo',
    'configs/demo.py',
    'stl10:reference',
    'transfer/voc07_detection',
    'configs/transfer/voc07_detection.py',
]


@pytest.mark.parametrize('name', NAMES)
def test_packaged_configurations_are_found_from_anywhere(forks, name, tmp_path):
    for module, first in (('main', ()), ('__main__', ('train',))):
        options = [f'--config={name}', '--workdir=run', '--config.seed=-1']
        assert 'seed=-1: must' in forks.refused(*first, *options, module=module, cwd=tmp_path)


def test_a_local_file_of_a_configuration_s_name_wins(forks, tmp_path):
    (tmp_path / 'demo').write_text('raise OSError("mine")')
    (tmp_path / 'stl10').mkdir()  # a folder is not a configuration
    assert 'mine' in forks.refused('--config=demo', '--workdir=run', cwd=tmp_path)
    assert 'seed=-1' in forks.refused('--config=stl10', '--workdir=run', '--config.seed=-1', cwd=tmp_path)


@pytest.mark.skipif(sys.platform != 'linux', reason='the setting is that of the C library of Linux')
def test_every_entry_point_starts_again_with_the_same_arguments(train, tmp_path):
    (tmp_path / 'mine.py').write_text(
        'import os, sys\nraise OSError(os.environ["GLIBC_TUNABLES"] + str(sys.orig_argv))'
    )
    run = subprocess.run(
        [sys.executable, *train, '--config=mine.py'],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    started = [sys.executable, *map(str, train), '--config=mine.py']
    assert run.stderr.startswith(f'error: the configuration cannot be read: OSError: {startup.MEMORY}{started}')
    assert (run.returncode, run.stderr.count('\n')) == (1, 1)


@contextlib.contextmanager
def ctrl_c_ends_programs():
    """Programs started in this context react to Ctrl-C, which background programs ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


SLOW = pytest.param('jax', marks=pytest.mark.slow)


@pytest.mark.parametrize('imported', ['artifacts_jax', 'absl.flags', SLOW])
def test_ctrl_c_during_imports_is_one_line_and_status_130(train, imported, tmp_path):
    with ctrl_c_ends_programs():
        process = subprocess.Popen(
            [sys.executable, *train, f'--config={ROOT}/configs/demo.py', f'--workdir={tmp_path}/run'],
            env=environment(PYTHONPROFILEIMPORTTIME='1'),
            stderr=subprocess.PIPE,
            text=True,
        )
    with process:
        for line in process.stderr:  # which has a line for each import that has ended
            if re.search(rf'\| +{re.escape(imported)}$', line.rstrip()):
                process.send_signal(signal.SIGINT)
                break
        rest = [line for line in process.stderr if not line.startswith('import time:')]
    assert (process.returncode, rest) == (130, [f'interrupted: {startup.RESUME}\n'])
