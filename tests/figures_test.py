import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import figures
from artifacts_jax.data import augment, splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import extraction as layer_features
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import keys, loop

ROOT = Path(__file__).parent.parent


@pytest.fixture
def copy(earlier):
    """The work directory of a run of 6 steps, with checkpoints and configuration alone."""
    workdir = earlier / 'run'
    shutil.copytree(earlier / 'pretraining' / 'artifacts', workdir / 'artifacts')
    shutil.copy(earlier / 'pretraining' / 'config.json', workdir)
    return workdir


def change(workdir, edit):
    values = json.loads((workdir / 'config.json').read_text())
    edit(values)
    (workdir / 'config.json').write_text(json.dumps(values))


def test_layers_are_those_of_the_features():
    assert figures.LAYERS == layer_features.LAYERS


@pytest.mark.slow
def test_every_figure_has_its_panels(copy, tmp_path, read_png, capsys):
    out = tmp_path / 'out'
    figures.write(copy, out, bank=20)
    said = capsys.readouterr().out
    assert 'artifacts at step 6 of 6' in said
    assert 'incomplete' not in said
    shapes = {path.stem: read_png(path).shape[1::-1] for path in out.iterdir()}
    assert set(shapes) == {'artifacts', 'mask_prediction', 'conv1', 'neighbours'}
    # Images of 16 pixels are drawn at 192 (neighbours at 128), 8 pixels apart; the rest is text.
    assert shapes['artifacts'][0] == 8 * 200 + 8
    assert 0 < shapes['artifacts'][1] - 8 * 200 < 150
    assert 8 * 200 < shapes['mask_prediction'][0] < 8 * 200 + 200
    assert shapes['neighbours'][0] == 13 * 136 + 2 * 24 + 8
    assert 8 * (128 + 52) < shapes['neighbours'][1] < 8 * (128 + 52) + 200
    assert shapes['conv1'][0] > 900


@pytest.mark.slow
@pytest.mark.parametrize('mapping', ['jit', 'pmap'])
def test_neighbours_are_the_nearest_by_brute_force_and_no_copies(mapping, config, photograph_folder, stage_states):
    config.data.update(name=str(photograph_folder), probe_train='train')
    devices = Devices(mapping)
    state = stage_states[artifacts]
    variables = artifacts.select_discriminator(state.variables)
    dataset = splits.Datasets(config)['probe_train']
    order = np.array([dataset._row(n) for n in range(35)])
    queries = {name: x[order[:3]] for name, x in (('image', dataset.images), ('label', dataset.labels))}
    queries['index'] = np.arange(3)
    images, labels, found = figures.find_neighbours(
        config, devices, dataset, {'learned': variables}, queries, layer='conv3', k=6, limit=35
    )
    np.testing.assert_array_equal(images, dataset.images[order])
    np.testing.assert_array_equal(labels, dataset.labels[order])

    trunk = {kind: tree['trunk'] for kind, tree in variables.items()}
    maps = jax.jit(architecture.make_trunk(config).apply)(trunk, augment.test_view(config, images))[1]['conv3']
    directions = np.asarray(maps, np.float64).mean(axis=(1, 2))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    indices, similarities = found['learned']
    for n in range(3):
        cosines = directions @ directions[n]
        cosines[[(image == images[n]).all() for image in images]] = -1  # the query itself
        np.testing.assert_allclose(similarities[n], np.sort(cosines)[:-7:-1], atol=1e-5)
        np.testing.assert_allclose(cosines[indices[n]], similarities[n], atol=1e-5)
        assert n not in indices[n]


@pytest.mark.slow
def test_figures_of_an_incomplete_older_run_use_its_newest_checkpoint_and_defaults(copy, tmp_path, capsys):
    shutil.rmtree(copy / 'artifacts' / 'checkpoints' / '6')
    change(copy, lambda values: values['artifacts'].pop('rounds'))
    figures.write(copy, tmp_path / 'out', examples=2, seed=3, layer='conv1', bank=16, data_dir='')
    said = capsys.readouterr().out
    assert 'artifacts at step 3 of 6, incomplete' in said
    assert f'{copy} is older than these keys, which have their defaults: artifacts.rounds' in said
    assert len(list((tmp_path / 'out').iterdir())) == 4


def no_checkpoint(workdir):
    shutil.rmtree(workdir / 'artifacts')


def no_data(workdir):
    change(workdir, lambda values: values['data'].update(name='/no/such/folder'))


def unknown_key(workdir):
    change(workdir, lambda values: values.update(droprate=0.5))


def other_architecture(workdir):
    change(workdir, lambda values: values['model'].update(hidden=24))


def damaged(workdir):
    for path in (workdir / 'artifacts' / 'checkpoints').glob('*/variables/_METADATA'):
        path.write_bytes(path.read_bytes()[:50])


def cut_config(workdir):
    (workdir / 'config.json').write_text('{"seed": ')


@pytest.mark.parametrize(
    ('harm', 'message'),
    [
        (no_checkpoint, 'no checkpoint of the stage artifacts in .*: run it first'),
        (no_data, 'data.name=/no/such/folder: this folder or file does not exist'),
        (unknown_key, 'config.json has keys that .* does not declare: droprate'),
        (other_architecture, 'written by another architecture'),
        (damaged, 'cannot be restored'),
        (cut_config, 'config.json cannot be read'),
    ],
)
def test_user_errors_name_the_problem(harm, message, copy, tmp_path):
    harm(copy)
    with pytest.raises(configuration.UserError, match=message):
        figures.write(copy, tmp_path / 'out', bank=16)
    assert not (tmp_path / 'out').exists()


@pytest.mark.slow
def test_too_small_a_bank_is_an_error(copy, tmp_path):
    with pytest.raises(configuration.UserError, match='5 images are too few for 6 neighbours'):
        figures.write(copy, tmp_path / 'out', examples=1, bank=5)


def run_command(workdir):
    command = [sys.executable, '-m', 'artifacts_jax.figures', f'--workdir={workdir}']
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_command_line_says_that_a_checkpoint_is_damaged(copy):
    for path in (copy / 'artifacts' / 'checkpoints').glob('*/variables/**/d/*'):
        path.write_bytes(path.read_bytes()[:50])
    done = run_command(copy)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert len(errors) == 1
    assert f'checkpoint {copy}/artifacts/checkpoints/3 cannot be restored' in errors[0]


@pytest.mark.slow
def test_a_gan_has_no_mask_to_predict(config, stage_states, photograph_folder, tmp_path, read_png):
    config.data.name, config.artifacts.generator = str(photograph_folder), 'gan'
    devices, datasets = Devices('jit'), splits.Datasets(config)
    state = loop.make_initial_state(artifacts, config, devices, stage_states[autoencoder].variables)
    draw = artifacts.make_plotter(config, devices, datasets, examples=2)
    draw(state, keys.stage_key(0, artifacts.NAME), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {'artifacts.png', 'conv1.png'}
    assert read_png(tmp_path / 'artifacts.png').shape[1] == 3 * 200 + 8
