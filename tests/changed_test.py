import subprocess
import types

import pytest

from tests import changed


@pytest.mark.parametrize(
    ('path', 'affected', 'others'),
    [
        ('artifacts_jax/drawing/label_maps.py', 'tests.drawing.label_maps_test', 'tests.models.layers_test'),
        ('artifacts_jax/models/layers.py', 'tests.models.layers_test', 'tests.data.npz_test'),
        ('artifacts_jax/models/layers.py', 'tests.pretraining.artifacts_test', 'tests.data.npz_test'),
        ('artifacts_jax/main.py', 'tests.command_test', 'tests.models.layers_test'),  # in a process
        ('configs/tasks.py', 'tests.config_test', 'tests.data.npz_test'),
        ('tests/transfer/voc/trees.py', 'tests.data.voc.devkit_test', 'tests.models.layers_test'),
        ('docs/speed.md', 'tests.docs_test', 'tests.models.layers_test'),
        ('launch/slurm.sh', 'tests.launch_test', 'tests.config_test'),
    ],
)
def test_a_change_affects_what_imports_it(path, affected, others):
    found = changed.modules([path])
    assert affected in found
    assert others not in found


@pytest.mark.parametrize('path', ['setup.py', 'pyproject.toml', 'tests/conftest.py', 'tests/earlier/28cbb7e.tar.xz'])
def test_what_no_module_is_affects_everything(path):
    assert changed.modules(['artifacts_jax/main.py', path]) is None


def item(module, *fixtures):
    return types.SimpleNamespace(path=changed.ROOT / f'{module.replace(".", "/")}.py', fixturenames=fixtures)


def test_tests_that_run_the_program_are_affected_by_all_of_it():
    drawing, docs = (changed.modules([path]) for path in ('artifacts_jax/drawing/plots.py', 'docs/speed.md'))
    assert changed.is_affected(item('tests.drawing.plots_test'), drawing)
    assert not changed.is_affected(item('tests.data.npz_test', 'tmp_path'), drawing)
    assert changed.is_affected(item('tests.data.npz_test', 'forks'), drawing)
    assert not changed.is_affected(item('tests.data.npz_test', 'forks'), docs)


def test_files_are_those_that_differ_and_those_that_are_new(tmp_path, monkeypatch):
    monkeypatch.setattr(changed, 'ROOT', tmp_path)

    def git(*arguments):
        subprocess.run(['git', '-c', 'user.name=a', '-c', 'user.email=a', *arguments], cwd=tmp_path, check=True)

    git('init', '-q')
    for name in ('same', 'edited'):
        (tmp_path / name).write_text('')
    git('add', '.')
    git('commit', '-qm', 'Begin')
    (tmp_path / 'edited').write_text('1')
    (tmp_path / 'new').write_text('')
    assert changed.files('HEAD') == ['edited', 'new']
    with pytest.raises(pytest.UsageError, match=r'--changed=nowhere: .*nowhere'):
        changed.files('nowhere')
