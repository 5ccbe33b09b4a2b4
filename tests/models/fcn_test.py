"""FCN-32s on AlexNet: its arithmetic for every size, and its outputs against onnxruntime's and on any canvas."""

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


def drawn(module, images):
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)['params']
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    normal = jax.jit(lambda keys: [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])
    return jax.tree.unflatten(tree, normal(keys))


def kernel(stride):
    """The bilinear kernel of a deconvolution, by its definition."""
    side = 2 * stride - 1
    along = np.array([1 - abs(n - (stride - 1)) / stride for n in range(side)])
    return np.outer(along, along).astype(np.float32)


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


def test_the_geometry_is_that_of_the_source():
    assert fcn.geometry(4) == (100, 0, 0)
    assert fcn.offset(11, 4) == 18
    assert [fcn.count_scores(size) for size in (50, 375, 500)] == [2, 12, 16]


def test_a_window_is_centred_where_its_score_is():
    conv1, stride = 11, 4
    # What a window of fc6 sees reaches from the first pixel of its first entries to the last of its last.
    first = -fcn.PADDING * stride
    field = conv1 + stride * 2 + 2 * stride * 2 + 4 * stride * 2 + 8 * stride * (fcn.WINDOW - 1)
    assert first + (field - 1) / 2 == 13
    # The peak of the deconvolution of entry 0, in pixels of the image.
    assert 2 * 4 * stride - 1 - fcn.offset(conv1, stride) == 13


def test_the_deconvolution_equals_onnxruntimes():
    scores = jax.random.normal(jax.random.key(0), (2, 3, 5, CLASSES))
    graph = Graph()
    deconvolution(graph, CLASSES, 32)
    theirs = graph(np.asarray(scores).transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    assert theirs.shape == (2, 127, 191, CLASSES)
    ours = fcn.upsample(scores, (100, 130))
    np.testing.assert_allclose(ours, theirs[:, 18:118, 18:148], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('size', 'products'), [((75, 102), True), ((120, 51), False)])
def test_the_whole_network_equals_onnxruntimes(size, products):
    module = network(products=products)
    images = jax.random.uniform(jax.random.key(1), (2, *size, 3), minval=-1)
    params, graph = drawn(module, images), Graph()
    graph.trunk(params['trunk'], module.trunk.geometry)
    graph.pool(0)
    for name in ('fc6', 'fc7', 'score'):
        layer = params['head'][name]
        graph.add('Conv', np.transpose(layer['kernel'], (3, 2, 0, 1)), layer['bias'])
        if name != 'score':
            graph.add('Relu')
    deconvolution(graph, CLASSES, 32)
    pixels = np.asarray(images * 127.5 + 127.5 - jnp.array([[[CHANNEL_MEANS]]]))
    theirs = graph(pixels.transpose(0, 3, 1, 2))[:, :, 18 : 18 + size[0], 18 : 18 + size[1]].transpose(0, 2, 3, 1)
    ours = jax.jit(module.apply)({'params': params}, images)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())


@pytest.mark.slow
@pytest.mark.parametrize(('stride', 'conv1'), [(4, 11), (1, 3)])
def test_scores_and_gradients_are_those_without_padding(stride, conv1):
    module = network(stride, conv1)
    sizes = np.array([[33, 41], [30, 52], [52, 34], [31, 45]], np.int32)
    canvas = jax.random.uniform(jax.random.key(1), (4, 56, 56, 3), minval=-1)  # also what surrounds the images
    params = drawn(module, canvas)

    def whole(params):
        return sum(jnp.square(x).sum() for x in pieces(module.apply({'params': params}, canvas, sizes)))

    def pieces(scores):
        return [x[:height, :width] for x, (height, width) in zip(scores, sizes)]

    def alone(params):
        return sum(jnp.square(x).sum() for x in each(params))

    def each(params):
        return [module.apply({'params': params}, x[None])[0] for x in pieces(canvas)]

    seen = jax.jit(module.apply)({'params': params}, canvas, sizes)
    for ours, theirs in zip(pieces(seen), jax.jit(each)(params)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * np.abs(theirs).max())
    for ours, theirs in zip(*(jax.tree.leaves(jax.jit(jax.grad(x))(params)) for x in (whole, alone)), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * np.abs(theirs).max())


def test_it_begins_with_scores_of_zero_and_drops_by_the_images_keys():
    module, images = network(), jnp.ones((2, 60, 60, 3))
    params, apply = jax.jit(module.init)(jax.random.key(0), images), jax.jit(module.apply)
    assert not apply(params, images).any()
    params = {'params': drawn(module, images)}
    keys = jax.random.split(jax.random.key(1), (2, 2))
    dropped = [apply(params, images, None, keys[::order]) for order in (1, -1)]
    assert (dropped[0][0] != dropped[0][1]).any()
    np.testing.assert_allclose(dropped[0], dropped[1][::-1], rtol=1e-5, atol=1e-5 * np.abs(dropped[0]).max())
