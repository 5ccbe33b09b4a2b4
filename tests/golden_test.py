"""The authors' code against this one: what their TensorFlow 1 graph printed for known weights, images and mask.

golden.npz holds their numbers, float32. Weights and images are made by name, and imported as a checkpoint's would be.
"""

import zlib
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.configs import stl10
from artifacts_jax.exchange import tf1
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import autoencoder
from tests.compiling import AS_USERS

pytestmark = pytest.mark.slow

# As docs/tf1.md has them: the norm of the difference over the norm.
FORWARD, LOSS, GRADIENT_NORM, GRADIENT, STATISTICS = 2e-5, 1e-5, 2e-4, 3e-3, 1e-6


def generator(name):
    return np.random.default_rng(zlib.crc32(name.encode()))


def make_variable(name, shape):
    """The variable of a TensorFlow name, as the authors' graph was given it."""
    n = generator(name).standard_normal(shape).astype(np.float32)
    kind = name.rpartition('/')[2]
    if kind == 'weights':
        n *= np.sqrt(2 / np.prod(shape[:-1])).astype(np.float32)
    elif kind == 'gamma':
        n = 1 + 0.1 * n
    elif kind == 'moving_variance':
        n = np.exp(0.2 * n)
    else:
        n = 0.1 * n
    return n.astype(np.float32)


def names_and_shapes():
    """{TensorFlow name: shape} of a checkpoint of the game, written out by hand."""
    shapes = {}

    def norm(scope, width, gamma=True):
        for name in ('gamma',) * gamma + ('beta', 'moving_mean', 'moving_variance'):
            shapes[f'{scope}/BatchNorm/{name}'] = (width,)

    def conv(scope, *shape, bias=False):
        shapes[f'{scope}/weights'] = shape
        if bias:
            shapes[f'{scope}/biases'] = shape[-1:]

    for n, (before, width) in enumerate([(3, 32), (32, 64), (64, 128), (128, 256), (256, 512)]):
        size = 2 if n else 3
        conv(f'encoder/conv_{n}', size, size, before, width)
        norm(f'encoder/conv_{n}', width)
    for n, (before, width) in {0: (512, 256), 1: (256, 128), 2: (128, 64), 4: (64, 32)}.items():
        conv(f'decoder/deconv_{n}', 3, 3, before, width)
        norm(f'decoder/deconv_{n}', width)
    conv('decoder/deconv_5', 3, 3, 32, 3, bias=True)
    for n, width in enumerate((512, 256, 128, 64, 32)):
        conv(f'generator/repair_{n}/conv1', 3, 3, width + 1, width)
        norm(f'generator/repair_{n}/conv1', width)
        conv(f'generator/repair_{n}/conv2', 3, 3, width, width, bias=True)
    conv('discriminator/conv_1', 11, 11, 3, 96, bias=True)
    conv('discriminator/conv_3', 3, 3, 256, 384, bias=True)
    for g in (0, 1):
        conv(f'discriminator/conv_2/conv_{g}', 5, 5, 48, 128, bias=True)
        conv(f'discriminator/conv_4/conv_{g}', 3, 3, 192, 192, bias=True)
        conv(f'discriminator/conv_5/conv_{g}', 3, 3, 192, 128)
        norm(f'discriminator/conv_5/conv_{g}', 128, gamma=False)
    conv('discriminator/drop_pred', 3, 3, 256, 1, bias=True)
    conv('discriminator/fc_1', 6, 6, 256, 4096)
    norm('discriminator/fc_1', 4096, gamma=False)
    conv('discriminator/fc_2', 1, 1, 4096, 2, bias=True)
    return shapes


@pytest.fixture(scope='module')
def golden():
    return np.load(Path(__file__).with_name('golden.npz'))


@pytest.fixture(scope='module')
def config():
    return stl10.get_config('reference')


@pytest.fixture(scope='module')
def variables(config):
    checkpoint = {name: make_variable(name, shape) for name, shape in names_and_shapes().items()}
    converted, _ = tf1.convert(checkpoint, config)
    return converted


@pytest.fixture(scope='module')
def images():
    noise = generator('golden/images').uniform(-1, 1, (4, 96, 96, 3)).astype(np.float32)
    low = generator('golden/low').uniform(-1, 1, (4, 12, 12, 3)).astype(np.float32)
    return np.float32(0.3 * noise + 0.7 * low.repeat(8, axis=1).repeat(8, axis=2))


def assert_close(found, expected, tolerance):
    """The norm of the difference over the norm."""
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < tolerance, f'{error:.2g}'


@pytest.fixture(scope='module')
def forward(config, variables, images, golden):
    model, discriminator = architecture.make_generator(config), architecture.make_discriminator(config)
    judge = {kind: tree['discriminator'] for kind, tree in variables.items()}

    @partial(jax.jit, compiler_options=AS_USERS)
    def run(variables, judge, images, mask):
        phi = model.apply(variables, images, method='encode')
        real = model.apply(variables, phi, method='decode')
        fake = model.apply(variables, phi, mask, method='fake')
        outputs, features = discriminator.apply(judge, jnp.concatenate([real, fake]))
        return phi, real, fake, outputs, features

    return run(variables, judge, images, golden['mask'])


def test_autoencoder_and_repair_agree(forward, golden):
    phi, real, fake, _, _ = forward
    assert_close(phi[:2, :, :, ::4], golden['eval/encoder'], FORWARD)
    assert_close(real[:2, ::3, ::3], golden['eval/decoded'], FORWARD)
    assert_close(fake[:1, ::3, ::3], golden['eval/repaired'], FORWARD)


def test_discriminator_agrees_at_every_layer(forward, golden):
    _, _, _, (logits, mask_logits), features = forward
    for n in range(1, 6):
        assert_close(features[f'conv{n}'][:1, :, :, ::8], golden[f'eval/disc/conv_{n}'], FORWARD)
    assert_close(logits[:4], golden['eval/real_logits'], FORWARD)
    assert_close(mask_logits[:4].reshape(4, 36), golden['eval/mask_logits'], FORWARD)


@pytest.fixture(scope='module')
def autoencoder_update(config, variables, images):
    """(the state after the autoencoder's first update, metrics, what it decoded in training mode)."""
    model = architecture.make_generator(config)

    @partial(jax.jit, compiler_options=AS_USERS)
    def run(state):
        decoded, _ = model.apply(state.variables, images, train=True, method='reconstruct', mutable=['batch_stats'])
        return *autoencoder.update(state, images, config=config), decoded

    return run(autoencoder.create_state(variables, config=config))


def test_autoencoders_output_and_loss_agree(autoencoder_update, golden):
    _, values, decoded = autoencoder_update
    assert_close(decoded[:2, ::3, ::3], golden['ae/decoded'], FORWARD)
    assert_close(values['loss/pixel'], golden['ae/mse'], LOSS)
    assert_close(values['loss/pixel'] + values['loss/l2'], golden['ae/total'], LOSS)


def by_tensorflow_name(tree):
    """{TensorFlow name: array} of the autoencoder's parameters or statistics."""
    scopes, named = tf1._map_scopes(5, 2), {}
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        *module, kind = (key.key for key in path)
        (scope,) = scopes['/'.join(module)]
        named[f'{scope}/{(tf1.NORM if module[-1] == "norm" else tf1.WEIGHTS)[kind]}'] = x
    return named


def test_autoencoders_gradients_agree(autoencoder_update, golden):
    new, _, _ = autoencoder_update
    (adam,) = (s for s in jax.tree.leaves(new.opt_state, is_leaf=lambda s: hasattr(s, 'mu')) if hasattr(s, 'mu'))
    moments = by_tensorflow_name(adam.mu)
    names = [key.removeprefix('ae/grad_norm/') for key in golden.files if key.startswith('ae/grad_norm/')]
    assert sorted(names) == sorted(moments)
    for name in names:  # after one step the first moment is (1 - b1) times the gradient, that of biases doubled
        gradient = moments[name] / (0.5 * (2 if name.endswith('/biases') else 1))
        assert_close(np.linalg.norm(gradient), golden[f'ae/grad_norm/{name}'], GRADIENT_NORM)
        # Theirs are rounded: computed in float64 here, the first values differ as much, by up to 2.2e-3.
        assert_close(np.ravel(gradient)[:8], golden[f'ae/grad_head/{name}'], GRADIENT)


def test_autoencoders_statistics_agree_after_one_update(autoencoder_update, golden):
    new, _, _ = autoencoder_update
    stats = by_tensorflow_name(new.batch_stats)
    names = [key.removeprefix('ae/step/') for key in golden.files if key.startswith('ae/step/')]
    assert sorted(names) == sorted(stats)
    for name in names:
        # The running variance is the unbiased one: with the biased one, conv_4's would be 2e-4 off.
        assert_close(stats[name][:8], golden[f'ae/step/{name}'], STATISTICS)
