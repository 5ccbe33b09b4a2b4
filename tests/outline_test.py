"""What a run prints first and last, for work directories as runs leave them."""

import ast
import json
import shlex
import types

import pytest

from artifacts_jax import outline
from artifacts_jax.features import probe
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.transfer import knn

SMALL = {'train': types.SimpleNamespace(num_examples=2000), 'test': types.SimpleNamespace(num_examples=512)}


def reach(workdir, stage, step, rates=()):
    """Makes a stage's folder that of a run which has come to a step, and logged rates."""
    (workdir / stage.NAME / 'checkpoints' / str(step)).mkdir(parents=True)
    rows = [{'step': n, 'train/images_per_second': rate} for n, rate in enumerate(rates)]
    (workdir / stage.NAME / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.fixture
def recipe(config):
    config.data.name, config.data.train, config.data.test = 'photographs', 'train', 'test'
    config.data.probe_train = 'train'
    config.autoencoder.steps, config.artifacts.steps, config.batch_size, config.log_every = 800, 2800, 16, 50
    return config


def test_outline_of_a_new_run(recipe, tmp_path):
    assert outline.describe(recipe, tmp_path, SMALL, [autoencoder, artifacts], [probe]) == [
        'data: photographs: 2,000 images of train, 512 images of test',
        'autoencoder: 800 steps, 16 images each',
        'artifacts: 2,800 steps, 16 images each',
        'probe: to do',
        'time: each stage prints the minutes left with its metrics, first after 50 steps',
    ]


def test_a_resumed_run_has_its_step_and_the_remaining_time_at_its_last_rate(recipe, tmp_path):
    reach(tmp_path, autoencoder, 800)
    reach(tmp_path, artifacts, 300, [1, 1, 10, 20, 20, 20, 400])  # the median of the last five
    (tmp_path / 'results.json').write_text(json.dumps({'probe': {'random': {'conv1': {'accuracy': 1.0}}}}))
    assert outline.describe(recipe, tmp_path, {}, [autoencoder, artifacts], [probe]) == [
        'data: photographs: train, test',
        'autoencoder: complete, 800 steps',
        'artifacts: 2,500 steps from step 300, 16 images each, about 33 minutes at its last rate, without evaluation'
        ' and figures',
        'probe: to do',  # of another network
    ]


def test_a_stage_whose_base_is_not_complete_restarts(recipe, tmp_path):
    reach(tmp_path, autoencoder, 700)
    reach(tmp_path, artifacts, 2800)
    lines = outline.describe(recipe, tmp_path, {}, [autoencoder, artifacts], [])
    assert 'autoencoder: 100 steps from step 700, 16 images each' in lines
    assert 'artifacts: 2,800 steps, 16 images each' in lines


def test_results_of_a_complete_run_are_checked_again(recipe, tmp_path):
    reach(tmp_path, artifacts, 2800)
    (tmp_path / 'results.json').write_text(json.dumps({'probe': {'random': {'conv1': {'accuracy': 1.0}}}}))
    lines = outline.describe(recipe, tmp_path, {}, [artifacts], [probe, knn])
    assert lines[1:] == [
        'artifacts: complete, 2,800 steps',
        'probe: has results; outdated ones are evaluated again',
        'knn: to do',
    ]
    assert outline.describe(recipe, tmp_path, {}, [artifacts], []) == ['artifacts: complete, 2,800 steps']


@pytest.mark.parametrize(
    ('seconds', 'text'), [(59, 'less than a minute'), (600, 'about 10 minutes'), (7200, 'about 2.0 hours')]
)
def test_durations(seconds, text):
    assert outline._duration(seconds) == text


@pytest.fixture
def commands(recipe, tmp_path, monkeypatch):
    """Returns (workdir, function): the function returns (arguments of each suggested command, lines for Python)."""
    monkeypatch.setattr(outline.shutil, 'which', lambda name: f'/bin/{name}')
    monkeypatch.setattr(outline.sys, 'prefix', '/usr')
    workdir = tmp_path / 'my run'

    def suggest_after(*stages, exports=()):
        recipe.stages = stages
        for export in exports:
            (workdir / export).mkdir(parents=True)
        lines = outline.next_steps(recipe, workdir)
        suggested = [shlex.split(line.removeprefix('next: ')) for line in lines if line.startswith('next: ')]
        assert all(command[0] == 'artifacts-jax' for command in suggested)
        return [command[1:] for command in suggested], [x for x in lines if x.startswith('in Python: ')]

    return workdir, suggest_after


@pytest.mark.parametrize(
    ('stages', 'expected'),
    [
        (['autoencoder'], ('artifacts', 'probe')),
        (['autoencoder', 'artifacts'], ('probe',)),
        (['artifacts'], ('probe',)),
    ],
)
def test_missing_stages_are_suggested_after_pretraining(commands, stages, expected):
    workdir, suggest_after = commands
    (command, *_), _ = suggest_after(*stages)
    assert command[:3] == ['train', f'--config={workdir}/config.json', f'--workdir={workdir}']
    assert ast.literal_eval(command[3].removeprefix('--config.stages=')) == expected


def test_figures_tables_and_features_are_suggested_after_a_whole_run(commands):
    workdir, suggest_after = commands
    suggested, python = suggest_after('autoencoder', 'artifacts', 'probe', exports=['export'])
    assert suggested == [
        ['figures', f'--workdir={workdir}'],
        ['tables', f'--pretrained={workdir}/export', f'--workdir={workdir}_tables', '--voc=FOLDER'],
    ]
    assert python == [f'in Python: artifacts_jax.load_features({str(workdir / "export")!r})']


@pytest.mark.parametrize(
    ('task', 'loader'), [('voc_detection', 'load_detector'), ('voc_segmentation', 'load_segmenter')]
)
def test_predictions_are_suggested_after_a_task_with_an_export(commands, task, loader):
    workdir, suggest_after = commands
    export = workdir / task / 'a' / 'export'
    suggested, python = suggest_after(task, exports=[f'{task}/a/export', f'{task}/b/export'])
    assert suggested == [['predict', f'--export={export}', '--images=FOLDER', '--out=predictions']]
    assert python == [f'in Python: artifacts_jax.{loader}({str(export)!r})']


def test_nothing_is_suggested_after_an_evaluation_of_an_imported_network(commands):
    _, suggest_after = commands
    assert suggest_after('probe') == ([], [])


def test_commands_start_with_python_if_the_console_command_is_missing(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(outline.shutil, 'which', lambda name: None)
    monkeypatch.setattr(outline.sys, 'prefix', '/usr')
    recipe.stages = ('artifacts',)
    (line,) = outline.next_steps(recipe, tmp_path)
    assert line.startswith('next: python -m artifacts_jax train --config=')


def test_commands_work_without_activating_an_environment_in_the_current_directory(recipe, tmp_path, monkeypatch):
    (tmp_path / '.venv' / 'bin').mkdir(parents=True)
    (tmp_path / '.venv' / 'bin' / 'artifacts-jax').touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outline.sys, 'prefix', str(tmp_path / '.venv'))
    recipe.stages = ('artifacts',)
    (line,) = outline.next_steps(recipe, tmp_path)
    assert line.startswith('next: .venv/bin/artifacts-jax train --config=')
