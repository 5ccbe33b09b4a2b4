import sys

import jax
import numpy as np
import pytest

import artifacts_jax
from artifacts_jax import export, models, tf1
from tests.conftest import tiny


def conv(scope, *shape, bias=False, norm=''):
    """{name: shape} of a convolution in the authors' code; norm lists the first letters of gamma and beta."""
    shapes = {f'{scope}/weights': shape}
    if bias:
        shapes[f'{scope}/biases'] = shape[-1:]
    names = {'g': ('gamma',), 'b': ('beta', 'moving_mean', 'moving_variance')}
    return shapes | {f'{scope}/BatchNorm/{name}': shape[-1:] for letter in norm for name in names[letter]}


def variables(kind, random):
    """A checkpoint of the tiny network, of encoder layers 4-8-8, as the authors' code names its variables."""
    autoencoder = {
        **conv('encoder/conv_0', 3, 3, 3, 4, norm='gb'),
        **conv('encoder/conv_1', 2, 2, 4, 8, norm='gb'),
        **conv('encoder/conv_2', 2, 2, 8, 8, norm='gb'),
        **conv('decoder/deconv_0', 3, 3, 8, 8, norm='gb'),
        **conv('decoder/deconv_2', 3, 3, 8, 4, norm='gb'),
        **conv('decoder/deconv_3', 3, 3, 4, 3, bias=True),
    }
    repair = {}
    for n, width in enumerate((8, 8, 4)):
        repair |= conv(f'generator/repair_{n}/conv1', 3, 3, width + 1, width, norm='gb')
        repair |= conv(f'generator/repair_{n}/conv2', 3, 3, width, width, bias=True)
    trunk = {
        **conv('discriminator/conv_1', 3, 3, 3, 4, bias=True),
        **conv('discriminator/conv_3', 3, 3, 8, 8, bias=True),
    }
    for g in (0, 1):
        trunk |= conv(f'discriminator/conv_2/conv_{g}', 3, 3, 2, 4, bias=True)
        trunk |= conv(f'discriminator/conv_4/conv_{g}', 3, 3, 4, 4, bias=True)
        trunk |= conv(f'discriminator/conv_5/conv_{g}', 3, 3, 4, 4, norm='b')
    judge = {
        **conv('discriminator/drop_pred', 3, 3, 8, 1, bias=True),
        **conv('discriminator/fc_1', 4, 4, 8, 16, norm='b'),
        **conv('discriminator/fc_2', 1, 1, 16, 2, bias=True),
    }
    shapes = {
        'autoencoder': autoencoder,
        'game': {**autoencoder, **repair, **trunk, **judge},
        'linear': {**trunk, **judge, **conv('fully_connected/fc1', 4, 4, 8, 5, bias=True)},
        'finetune': {
            **trunk,
            **conv('fully_connected/fc_1', 4, 4, 8, 6, norm='b'),
            **conv('fully_connected/fc_2', 1, 1, 6, 6, norm='b'),
            **conv('fully_connected/fc3', 1, 1, 6, 5, bias=True),
        },
    }[kind]
    return {name: random.uniform(0.1, 1, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def stored(request):
    return variables(getattr(request, 'param', 'game'), np.random.default_rng(0))


@pytest.fixture
def config():
    config = tiny()
    config.transfer.hidden = 6
    config.model.upsampling = 'legacy'
    return config


def with_training_state(stored):
    """What a saver of all global variables adds to a checkpoint."""
    extra = {'global_step': np.int64(5), 'beta1_power': np.float32(0.5), 'beta2_power_1': np.float32(0.9)}
    for name, x in stored.items():
        if not name.rpartition('/')[2].startswith('moving') and not name.startswith('encoder'):  # as if frozen
            extra |= {f'{name}/Adam': x, f'{name}/Adam_1': x, f'{name}/ExponentialMovingAverage': x + 1}
    return {**stored, **extra}


def write_checkpoint(path, stored):
    """Writes a TensorFlow checkpoint file with exactly these names."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        values = [tf.compat.v1.get_variable(name, initializer=value) for name, value in stored.items()]
        session.run(tf.compat.v1.global_variables_initializer())
        tf.compat.v1.train.Saver(values).save(session, str(path), write_meta_graph=False)


@pytest.mark.parametrize('stored', ['autoencoder', 'game', 'linear', 'finetune'], indirect=True)
def test_every_variable_arrives_in_its_place(stored, config):
    converted, head = tf1.convert(with_training_state(stored), config)
    arrays = jax.tree.leaves(converted)
    untrained = sum(x.size for name, x in stored.items() if head and tf1.UNTRAINED_HEADS.match(name))
    assert sum(x.size for x in arrays) == sum(x.size for x in stored.values()) - untrained
    assert all((x > 0).all() for x in arrays)  # nothing is left of the zeros for what is missing
    params, stats = converted['params'], converted['batch_stats']
    if 'decoder' in params:
        np.testing.assert_array_equal(params['decoder']['layer2']['conv']['kernel'], stored['decoder/deconv_2/weights'])
        np.testing.assert_array_equal(params['decoder']['layer3']['bias'], stored['decoder/deconv_3/biases'])
        mean = stored['encoder/conv_1/BatchNorm/moving_mean']
        np.testing.assert_array_equal(stats['encoder']['layer2']['norm']['mean'], mean)
    trunk = params.get('trunk') or params.get('discriminator', {}).get('trunk')
    if trunk:
        beta = [stored[f'discriminator/conv_5/conv_{g}/BatchNorm/beta'] for g in (0, 1)]
        np.testing.assert_array_equal(trunk['norm5']['bias'], np.concatenate(beta))
        kernel = stored['discriminator/conv_4/conv_1/weights']
        np.testing.assert_array_equal(trunk['conv4']['group1']['kernel'], kernel)


def test_averaged_weights_are_taken_where_there_are_any(stored, config):
    plain, _ = tf1.convert(with_training_state(stored), config)
    averaged, _ = tf1.convert(with_training_state(stored), config, averaged=True)
    differences = jax.tree.map(lambda a, b: float((b - a).mean().round(3)), plain, averaged)
    assert set(jax.tree.leaves(differences['params']['encoder'])) == {0.0}
    assert set(jax.tree.leaves(differences['batch_stats'])) == {0.0}
    for network in ('decoder', 'repair', 'discriminator'):
        assert set(jax.tree.leaves(differences['params'][network])) == {1.0}
    with pytest.raises(tf1.TensorFlowCheckpointError, match='no moving averages'):
        tf1.convert(stored, config, averaged=True)


def test_all_that_is_wrong_is_one_error(stored, config):
    del stored['decoder/deconv_2/weights'], stored['discriminator/fc_2/biases']
    stored['generator/repair_9/conv1/weights'] = np.zeros(3)
    stored['encoder/conv_0/weights'] = np.zeros((5, 5, 3, 4), np.float32)
    with pytest.raises(tf1.TensorFlowCheckpointError) as error:
        tf1.convert(stored, config)
    message = str(error.value)
    assert 'missing:\n    decoder/deconv_2/weights\n    discriminator/fc_2/biases\n' in message
    assert 'unknown:\n    generator/repair_9/conv1/weights\n' in message
    assert 'encoder/conv_0/weights: (5, 5, 3, 4), not (3, 3, 3, 4)' in message
    assert 'June 2018' not in message


def test_the_first_code_is_told_by_its_missing_gammas(stored, config):
    without = {name: x for name, x in stored.items() if not name.endswith('/gamma')}
    with pytest.raises(tf1.TensorFlowCheckpointError, match='code of June 2018 has no gamma'):
        tf1.convert(without, config)


def test_foreign_checkpoint_says_what_it_holds(config):
    with pytest.raises(tf1.TensorFlowCheckpointError, match=r'none of encoder, .* but: resnet'):
        tf1.convert({'resnet/conv1/weights': np.zeros(3)}, config)


@pytest.fixture
def command(monkeypatch, config):
    """Runs the command line with the tiny architecture."""
    from absl import flags

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['tf1', *arguments])
        flags.FLAGS(sys.argv)
        monkeypatch.setattr(tf1, 'CONFIG', type('Flag', (), {'value': config}))
        tf1.main([])

    yield run
    flags.FLAGS.unparse_flags()


@pytest.mark.parametrize('stored', ['autoencoder', 'game', 'linear', 'finetune'], indirect=True)
def test_checkpoint_file_becomes_an_export(stored, config, command, tmp_path):
    write_checkpoint(tmp_path / 'model.ckpt', with_training_state(stored))
    command(f'--checkpoint={tmp_path / "model.ckpt"}', f'--out={tmp_path / "out"}', '--noaveraged')
    images = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    maps = artifacts_jax.load_features(tmp_path / 'out')(images)
    converted, head = tf1.convert(stored, config)
    if 'encoder' in converted['params'] and 'discriminator' not in converted['params']:
        assert list(maps) == ['layer1', 'layer2', 'layer3']
        phi = models.make_generator(config).apply(converted, images / np.float32(127.5) - 1, method='encode')
        np.testing.assert_allclose(maps['layer3'], phi, rtol=1e-4, atol=1e-4)
    else:
        assert list(maps) == ['conv1', 'conv2', 'conv3', 'conv4', 'conv5']
    for network in converted['params']:
        loaded = export.load(tmp_path / 'out', [network])
        expected = {kind: {network: tree[network]} for kind, tree in converted.items() if network in tree}
        jax.tree.map(np.testing.assert_array_equal, {kind: loaded[kind] for kind in expected}, expected)
    if head:
        assert export.load_classifier(tmp_path / 'out')(images).shape == (2, 5)
    else:
        with pytest.raises(export.ExportError, match='has no classifier; it holds: decoder'):
            export.load_classifier(tmp_path / 'out')


def test_what_cannot_be_read_or_written_is_one_line(stored, command, tmp_path):
    with pytest.raises(SystemExit, match=r'error: .*nothing cannot be read as a TensorFlow checkpoint'):
        command(f'--checkpoint={tmp_path / "nothing"}', f'--out={tmp_path / "out"}', '--noaveraged')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'thesis.txt').write_text('do not lose this')
    with pytest.raises(SystemExit, match='is not empty and not an export'):
        command(f'--checkpoint={tmp_path / "nothing"}', f'--out={tmp_path / "mine"}', '--noaveraged')
