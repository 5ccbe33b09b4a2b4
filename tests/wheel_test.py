"""What is installed, without a clone: a wheel is unpacked elsewhere and run from another directory."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging import requirements

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """A folder with what the wheel holds."""
    folder = tmp_path_factory.mktemp('wheel')
    for name in ('artifacts_jax', 'configs'):
        shutil.copytree(ROOT / name, folder / 'source' / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, folder / 'source')
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '-w', folder, folder / 'source']
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f'no wheel can be built here: {built.stderr[-300:]}')
    (wheel,) = folder.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / 'site')
    return folder / 'site'


@pytest.mark.nightly
def test_a_wheel_has_what_its_commands_need(installed, tmp_path):
    assert {path.name for path in (ROOT / 'configs').rglob('*.py')} == {
        path.name for path in (installed / 'artifacts_jax' / 'configs').rglob('*.py')
    }
    assert not (installed / 'configs').exists()  # a name that others have, too
    assert (installed / 'artifacts_jax' / 'py.typed').exists()

    def said(module, *arguments):
        command = [sys.executable, '-m', f'artifacts_jax.{module}', *arguments]
        environment = {**os.environ, 'PYTHONPATH': str(installed)}
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        ).stderr

    where = subprocess.run(
        [sys.executable, '-c', 'import artifacts_jax; print(artifacts_jax.__file__)'],
        cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(installed)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert Path(where.stdout.strip()).parent == installed / 'artifacts_jax'
    assert 'seed=-1: must lie in' in said('main', '--config=configs/demo.py', '--workdir=run', '--config.seed=-1')
    assert "no variant 'nope'" in said('study', '--config=configs/study.py', '--workdir=run', '--variants=nope')
    assert 'run is not a work directory' in said('figures', '--workdir=run')
    assert 'nowhere' in said('tf1', '--checkpoint=nowhere', '--out=out')
    assert list(tmp_path.iterdir()) == []


@pytest.mark.nightly
def test_a_wheel_has_the_console_command(installed):
    (entry_points,) = installed.glob('*.dist-info/entry_points.txt')
    assert entry_points.read_text().split('\n')[:2] == ['[console_scripts]', 'artifacts-jax = artifacts_jax.cli:main']


@pytest.mark.nightly
@pytest.mark.parametrize(
    ('machine', 'system', 'name'),
    [
        ('x86_64', 'linux', 'tensorflow-cpu'),
        ('aarch64', 'linux', 'tensorflow'),
        ('arm64', 'darwin', 'tensorflow'),
        ('AMD64', 'win32', 'tensorflow-cpu'),
    ],
)
def test_the_extra_gives_every_machine_the_tensorflow_that_has_a_wheel_for_it(installed, machine, system, name):
    (metadata,) = installed.glob('*.dist-info/METADATA')
    wanted = [
        requirements.Requirement(line.removeprefix('Requires-Dist: '))
        for line in metadata.read_text().splitlines()
        if line.startswith('Requires-Dist: tensorflow')
    ]
    for extra, expected in (('', {'tensorflow-datasets'}), ('tensorflow', {name, 'tensorflow-datasets'})):
        there = {'platform_machine': machine, 'sys_platform': system, 'extra': extra}
        chosen = {each.name for each in wanted if each.marker is None or each.marker.evaluate(there)}
        assert chosen == expected
