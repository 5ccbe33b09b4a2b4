"""Tests of FCN-32s on AlexNet: its offsets for all sizes, its outputs against onnxruntime, and its padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.models import fcn
from artifacts_jax.models.discriminator import CHANNEL_MEANS, Trunk
from tests.models.graphs import Graph

CLASSES = 5


def network(stride=4, kernel=11, **options):
    trunk = Trunk(
        (4, 8, 4, 4, 8), (kernel, 5, 3, 3, 3), stride, geometry=fcn.geometry(stride), normalise=False, **options
    )
    return fcn.Segmenter(trunk, fcn.Convolved(CLASSES, hidden=16))


def sample_params(module, images):
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)['params']
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    normal = jax.jit(lambda keys: [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])
    return jax.tree.unflatten(tree, normal(keys))


def kernel(stride):
    """Returns the bilinear kernel of a deconvolution, by its definition."""
    side = 2 * stride - 1
    profile = np.array([1 - abs(n - (stride - 1)) / stride for n in range(side)])
    return np.outer(profile, profile).astype(np.float32)


def deconvolution(graph, classes, stride):
    weights = np.tile(kernel(stride), (classes, 1, 1, 1))
    graph.add('ConvTranspose', weights, group=classes, strides=[stride] * 2)


@pytest.mark.parametrize(
    ('conv1', 'stride', 'sizes'),
    [(11, 4, range(50, 601)), (7, 2, range(5, 201)), (5, 1, range(5, 101)), (3, 1, range(5, 101))],
)
def test_scores_cover_images_of_every_size(conv1, stride, sizes):
    for size in sizes:
        count, step = fcn.count_scores(size, conv1, stride), 8 * stride
        assert step * (count - 1) + 2 * step - 1 >= size + fcn.offset(conv1, stride)


def test_padding_and_offset_are_those_of_the_source():
    assert fcn.geometry(4) == (100, 0, 0)
    assert fcn.offset(11, 4) == 18
    assert [fcn.count_scores(size) for size in (50, 375, 500)] == [2, 12, 16]


def test_a_score_is_upsampled_around_the_centre_of_its_window():
    conv1, stride = 11, 4
    # The receptive field of fc6 at position 0, in pixels of the image.
    first = -fcn.PADDING * stride
    field = conv1 + stride * 2 + 2 * stride * 2 + 4 * stride * 2 + 8 * stride * (fcn.WINDOW - 1)
    assert first + (field - 1) / 2 == 13
    # The maximum of the deconvolution kernel at position 0, in pixels of the image.
    assert 2 * 4 * stride - 1 - fcn.offset(conv1, stride) == 13


def test_the_deconvolution_equals_onnxruntime():
    scores = jax.random.normal(jax.random.key(0), (2, 3, 5, CLASSES))
    graph = Graph()
    deconvolution(graph, CLASSES, 32)
    expected = graph(np.asarray(scores).transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert expected.shape == (2, 127, 191, CLASSES)
    result = fcn.upsample(scores, (100, 130))
    np.testing.assert_allclose(result, expected[:, 18:118, 18:148], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('size', 'products'), [((75, 102), True), ((120, 51), False)])
def test_the_whole_network_equals_onnxruntime(size, products):
    module = network(products=products)
    images = jax.random.uniform(jax.random.key(1), (2, *size, 3), minval=-1)
    params, graph = sample_params(module, images), Graph()
    graph.trunk(params['trunk'], module.trunk.geometry)
    graph.pool(0)
    for name in ('fc6', 'fc7', 'score'):
        layer = params['head'][name]
        graph.add('Conv', np.transpose(layer['kernel'], (3, 2, 0, 1)), layer['bias'])
        if name != 'score':
            graph.add('Relu')
    deconvolution(graph, CLASSES, 32)
    pixels = np.asarray(images * 127.5 + 127.5 - jnp.array([[[CHANNEL_MEANS]]]))
    expected = graph(pixels.transpose(0, 3, 1, 2))[:, :, 18 : 18 + size[0], 18 : 18 + size[1]].transpose(0, 2, 3, 1)
    result = jax.jit(module.apply)({'params': params}, images)
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
@pytest.mark.parametrize(('stride', 'conv1'), [(4, 11), (1, 3)])
def test_scores_and_gradients_are_those_without_padding(stride, conv1):
    module = network(stride, conv1)
    sizes = np.array([[33, 41], [30, 52], [52, 34], [31, 45]], np.int32)
    padded = jax.random.uniform(jax.random.key(1), (4, 56, 56, 3), minval=-1)  # the padding is random, too
    params = sample_params(module, padded)

    def padded_loss(params):
        return sum(jnp.square(x).sum() for x in crop(module.apply({'params': params}, padded, sizes)))

    def crop(scores):
        return [x[:height, :width] for x, (height, width) in zip(scores, sizes)]

    def unpadded_loss(params):
        return sum(jnp.square(x).sum() for x in unpadded_scores(params))

    def unpadded_scores(params):
        return [module.apply({'params': params}, x[None])[0] for x in crop(padded)]

    scores = jax.jit(module.apply)({'params': params}, padded, sizes)
    for result, expected in zip(crop(scores), jax.jit(unpadded_scores)(params)):
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    gradients = [jax.tree.leaves(jax.jit(jax.grad(x))(params)) for x in (padded_loss, unpadded_loss)]
    for result, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_initial_scores_are_zero_and_dropout_uses_the_keys_of_the_images():
    module, images = network(), jnp.ones((2, 60, 60, 3))
    params, apply = jax.jit(module.init)(jax.random.key(0), images), jax.jit(module.apply)
    assert not apply(params, images).any()
    params = {'params': sample_params(module, images)}
    keys = jax.random.split(jax.random.key(1), (2, 2))
    dropped = [apply(params, images, None, keys[::order]) for order in (1, -1)]
    assert (dropped[0][0] != dropped[0][1]).any()
    np.testing.assert_allclose(dropped[0], dropped[1][::-1], rtol=1e-5, atol=1e-5 * np.abs(dropped[0]).max())
