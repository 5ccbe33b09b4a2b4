"""Checkpoints of the authors' code, of small networks, are written as TensorFlow's own files and imported."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import artifacts_jax
from artifacts_jax.devices import host
from artifacts_jax.exchange import exports, loaders, tf1
from artifacts_jax.models.discriminator import CHANNEL_MEANS
from tests.exchange.tf1_checkpoints import (
    AUTOENCODER,
    KINDS,
    LINEAR,
    TRUNK,
    averages,
    clutter,
    draw,
    small,
    variables,
    write,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config():
    return small()


@pytest.fixture(scope='module')
def imported(tmp_path_factory):
    """{kind: (the networks' variables in a checkpoint file, the export made of it)}."""
    made, folder = {}, tmp_path_factory.mktemp('tf1')
    for kind, layers in KINDS.items():
        arrays = variables(layers)
        checkpoint = write(folder / f'{kind}.ckpt-7', {**arrays, **averages(arrays), **clutter(arrays)})
        tf1.import_file(checkpoint, folder / kind, small())
        made[kind] = arrays, folder / kind
    return made


def test_every_variable_is_converted(config):
    arrays = variables(KINDS['game'])
    converted, head = tf1.convert(arrays, config)
    assert not head
    params, stats = converted['params'], converted['batch_stats']
    for found, name in [
        (params['encoder']['layer1']['conv']['kernel'], 'encoder/conv_0/weights'),
        (params['encoder']['layer3']['norm']['scale'], 'encoder/conv_2/BatchNorm/gamma'),
        (stats['encoder']['layer3']['norm']['mean'], 'encoder/conv_2/BatchNorm/moving_mean'),
        (params['decoder']['layer1']['norm']['bias'], 'decoder/deconv_0/BatchNorm/beta'),
        (params['decoder']['layer2']['conv']['kernel'], 'decoder/deconv_2/weights'),
        (params['decoder']['layer3']['bias'], 'decoder/deconv_3/biases'),
        (params['repair']['layers_2']['conv1']['conv']['kernel'], 'generator/repair_2/conv1/weights'),
        (stats['repair']['layers_0']['conv1']['norm']['var'], 'generator/repair_0/conv1/BatchNorm/moving_variance'),
        (params['repair']['layers_1']['conv2']['bias'], 'generator/repair_1/conv2/biases'),
        (params['discriminator']['trunk']['conv1']['group0']['bias'], 'discriminator/conv_1/biases'),
        (params['discriminator']['trunk']['conv4']['group1']['kernel'], 'discriminator/conv_4/conv_1/weights'),
        (params['discriminator']['mask']['bias'], 'discriminator/drop_pred/biases'),
        (stats['discriminator']['norm1']['mean'], 'discriminator/fc_1/BatchNorm/moving_mean'),
        (params['discriminator']['fc1']['kernel'], 'discriminator/fc_1/weights'),
    ]:
        np.testing.assert_array_equal(found, arrays[name], name)
    np.testing.assert_array_equal(params['discriminator']['fc2']['kernel'], arrays['discriminator/fc_2/weights'][0, 0])
    halves = [arrays[f'discriminator/conv_5/conv_{g}/BatchNorm/moving_variance'] for g in (0, 1)]
    np.testing.assert_array_equal(stats['discriminator']['trunk']['norm5']['var'], np.concatenate(halves))
    # Nothing is used twice or left out: the sums of squares agree.
    total = sum(np.square(x, dtype=np.float64).sum() for x in arrays.values())
    found = sum(np.square(x, dtype=np.float64).sum() for x in jax.tree.leaves(converted))
    np.testing.assert_allclose(found, total)


@pytest.mark.slow
@pytest.mark.parametrize('kind', KINDS)
def test_features_of_an_imported_file(kind, imported, batch):
    arrays, folder = imported[kind]
    maps = artifacts_jax.load_features(folder)(batch['image'])
    if kind == 'autoencoder':
        assert {name: x.shape for name, x in maps.items()} == {
            'layer1': (8, 16, 16, 4),
            'layer2': (8, 8, 8, 8),
            'layer3': (8, 4, 4, 8),
        }
        first, weights = 'layer1', arrays['encoder/conv_0/weights']
        images = batch['image'] / np.float32(127.5) - 1
    else:
        assert list(maps) == ['conv1', 'conv2', 'conv3', 'conv4', 'conv5']
        assert maps['conv5'].shape == (8, 4, 4, 8)
        first, weights = 'conv1', arrays['discriminator/conv_1/weights']
        images = batch['image'] - np.float32(CHANNEL_MEANS).reshape(1, 1, 1, 3)
    # One position, away from the border, by hand.
    x = np.tensordot(images[:, 4:7, 7:10], weights, axes=3)
    if kind == 'autoencoder':
        norm = {name: arrays[f'encoder/conv_0/BatchNorm/{name}'] for name in ('gamma', 'beta', 'moving_mean')}
        deviation = np.sqrt(arrays['encoder/conv_0/BatchNorm/moving_variance'] + 1e-3)
        x = (x - norm['moving_mean'][None]) / deviation[None] * norm['gamma'][None] + norm['beta'][None]
        expected = np.where(x > 0, x, 0.2 * x)
    else:
        expected = np.maximum(x + arrays['discriminator/conv_1/biases'][None], 0)
    np.testing.assert_allclose(maps[first][:, 5, 8], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_classes_of_imported_classifiers(imported, batch):
    arrays, folder = imported['linear']
    conv5 = np.asarray(loaders.load_features(folder)(batch['image'])['conv5'])
    expected = np.tensordot(conv5, arrays['fully_connected/fc1/weights'], axes=3)
    expected += arrays['fully_connected/fc1/biases'][None]
    logits = loaders.load_classifier(folder)(batch['image'])
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)

    arrays, folder = imported['finetune']
    x = np.asarray(loaders.load_features(folder)(batch['image'])['conv5']).reshape(8, -1)
    for layer in ('fully_connected/fc_1', 'fully_connected/fc_2'):
        weights = arrays[f'{layer}/weights']
        norm = {name: arrays[f'{layer}/BatchNorm/{name}'][None] for name in ('beta', 'moving_mean', 'moving_variance')}
        x = x @ weights.reshape(-1, weights.shape[-1])
        x = (x - norm['moving_mean']) / np.sqrt(norm['moving_variance'] + 1e-3) + norm['beta']
        x = np.maximum(x, 0)
    expected = x @ arrays['fully_connected/fc3/weights'][0, 0] + arrays['fully_connected/fc3/biases'][None]
    logits = loaders.load_classifier(folder)(batch['image'])
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-2)


def test_all_networks_of_the_adversarial_training_are_exported(imported, config):
    arrays, folder = imported['game']
    converted, _ = tf1.convert(arrays, config)
    assert json.loads((folder / 'config.json').read_text())['networks'] == sorted(
        ('encoder', 'decoder', 'repair', 'trunk', 'discriminator')
    )
    loaded = exports.load_networks(folder, ('encoder', 'decoder', 'repair', 'discriminator'))
    jax.tree.map(np.testing.assert_array_equal, loaded, converted)
    with pytest.raises(exports.ExportError, match='no classifier'):
        loaders.load_classifier(folder)


def test_averages_are_taken_where_there_are_any(config):
    arrays = variables(KINDS['game'])
    trained = {name: x for name, x in arrays.items() if not name.startswith(('encoder', 'decoder'))}
    stored = {**arrays, **averages(trained)}  # in the game encoder and decoder are frozen
    plain, _ = tf1.convert(arrays, config)
    averaged, _ = tf1.convert(stored, config, averaged=True)
    jax.tree.map(np.testing.assert_array_equal, tf1.convert(stored, config)[0], plain)
    jax.tree.map(np.testing.assert_array_equal, averaged['batch_stats'], plain['batch_stats'])
    for network, tree in averaged['params'].items():
        shift = 0 if network in ('encoder', 'decoder') else 1
        jax.tree.map(lambda a, b, s=shift: np.testing.assert_array_equal(a, b + s), tree, plain['params'][network])
    with pytest.raises(tf1.TensorFlowCheckpointError, match='no moving averages'):
        tf1.convert(arrays, config, averaged=True)


def test_one_error_lists_all_problems(config):
    arrays = variables(KINDS['game'])
    del arrays['encoder/conv_1/weights'], arrays['discriminator/conv_5/conv_1/BatchNorm/beta']
    arrays['decoder/deconv_1/weights'] = draw('more', (3, 3, 8, 8))
    arrays['discriminator/fc_1/weights'] = draw('other', (6, 6, 8, 16))
    with pytest.raises(tf1.TensorFlowCheckpointError) as caught:
        tf1.convert(arrays, config)
    message = str(caught.value)
    for part in (
        'missing',
        'encoder/conv_1/weights',
        'discriminator/conv_5/conv_1/BatchNorm/beta',
        'unknown',
        'decoder/deconv_1/weights',
        'discriminator/fc_1/weights: (6, 6, 8, 16), not (4, 4, 8, 16)',
    ):
        assert part in message
    assert 'gamma' not in message


def test_first_code_without_gamma_is_recognised(config):
    arrays = {name: x for name, x in variables(KINDS['autoencoder']).items() if not name.endswith('gamma')}
    with pytest.raises(tf1.TensorFlowCheckpointError, match='June 2018 has no gamma'):
        tf1.convert(arrays, config)


def test_unknown_scopes_are_an_error(config):
    with pytest.raises(tf1.TensorFlowCheckpointError, match='vgg_16'):
        tf1.convert({'vgg_16/conv1/weights': np.zeros((3, 3, 3, 64))}, config)


@pytest.mark.parametrize('damage', ['absent', 'truncated', 'text'])
def test_unreadable_files_are_one_error(damage, tmp_path):
    path = tmp_path / 'model.ckpt'
    if damage == 'truncated':
        write(path, variables(AUTOENCODER))
        data = tmp_path / 'model.ckpt.data-00000-of-00001'
        data.write_bytes(data.read_bytes()[:100])
    if damage == 'text':
        path.write_text('not a checkpoint')
    with pytest.raises(tf1.TensorFlowCheckpointError, match=r'model\.ckpt cannot be read as a TensorFlow checkpoint'):
        tf1.read_checkpoint(path)


def test_without_tensorflow_the_error_gives_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)  # it cannot be imported
    with pytest.raises(tf1.TensorFlowCheckpointError, match=r'^model\.ckpt: ') as caught:
        tf1.read_checkpoint('model.ckpt')
    assert str(caught.value).endswith(f'install it with: {host.TENSORFLOW}')


@pytest.mark.parametrize('kind', ['file', 'folder', 'run'])
def test_other_files_are_never_overwritten(kind, tmp_path, config):
    out = tmp_path / 'out'
    if kind == 'file':
        out.write_text('mine')
    else:
        out.mkdir()
        (out / 'config.json' if kind == 'run' else out / 'notes').write_text(config.to_json_best_effort())
    before = {path: path.read_text() for path in tmp_path.rglob('*') if path.is_file()}
    with pytest.raises(exports.ExportError, match='not empty and not an export'):
        tf1.import_file(tmp_path / 'model.ckpt', out, config)
    assert {path: path.read_text() for path in tmp_path.rglob('*') if path.is_file()} == before


def test_an_export_is_replaced_by_another(imported, config, tmp_path):
    folder, extra = imported['game'][1].parent, len(clutter(variables(TRUNK)))
    for kind, networks in {'game': 'decoder, discriminator, encoder, repair', 'linear': 'head, trunk'}.items():
        said = tf1.import_file(folder / f'{kind}.ckpt-7', tmp_path / 'out', config, averaged=True)
        read, used = variables(KINDS[kind]), variables({**TRUNK, **LINEAR} if kind == 'linear' else KINDS[kind])
        ignored = len(read) - len(used) + len(averages(read)) + extra
        assert said == f'{tmp_path}/out: {networks}; {len(used)} variables imported, {ignored} ignored'
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['config.json', 'head', 'trunk']


@pytest.mark.nightly
def test_command_line(imported, tmp_path):
    arrays, export_folder = imported['autoencoder']
    (tmp_path / 'small.py').write_text('from tests.exchange.tf1_checkpoints import small as get_config')

    def run(name):
        checkpoint = export_folder.with_name(name)
        flags = [f'--config={tmp_path}/small.py', f'--checkpoint={checkpoint}', f'--out={tmp_path}/out', '--averaged']
        command = [sys.executable, '-m', 'artifacts_jax.tf1', *flags]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    done = run('autoencoder.ckpt-7')
    assert done.returncode == 0, done.stderr
    assert f'out: decoder, encoder; {len(arrays)} variables imported' in done.stdout
    weights = exports.load_networks(tmp_path / 'out', ['encoder'])['params']['encoder']['layer2']['conv']['kernel']
    np.testing.assert_array_equal(weights, arrays['encoder/conv_1/weights'] + 1)
