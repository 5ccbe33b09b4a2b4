"""Compares AlexNet with onnxruntime, an independent implementation of its operations."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.config import ConfigError
from artifacts_jax.configs import default
from artifacts_jax.models import alexnet, architecture, fast_rcnn, layers
from artifacts_jax.models.discriminator import CHANNEL_MEANS, Trunk
from tests import conftest
from tests.models.graphs import Graph

WIDTHS = (8, 12, 8, 12, 8)
GRIDS = {
    'caffe': (227, 55, 27, 13),
    'torch': (224, 55, 27, 13),
    'same': (227, 57, 29, 15),
    'centred': (227, 57, 29, 15),
}


def sample_params(key, shapes):
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(tree, [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves)])


def network(geometry, *, normalise=False, **options):
    trunk = Trunk(WIDTHS, geometry=alexnet.GEOMETRIES[geometry], normalise=normalise, **options)
    return alexnet.AlexNet(trunk, alexnet.Connected(5, hidden=16))


def as_onnx(params, geometry):
    """Returns the network as an ONNX graph; its input are images minus the channel means."""
    graph = Graph()
    graph.trunk(params['trunk'], geometry)
    graph.pool(0)
    graph.add('Transpose', perm=[0, 2, 3, 1])
    graph.add('Flatten')
    for n in (6, 7, 8):
        graph.add('Gemm', params['head'][f'fc{n}']['kernel'], params['head'][f'fc{n}']['bias'])
        if n < 8:
            graph.add('Relu')
    return graph


@pytest.mark.parametrize(
    ('geometry', 'size', 'products'),
    [
        ('caffe', (227, 227), False),
        ('torch', (224, 224), True),
        ('centred', (150, 203), True),
        pytest.param('centred', (188, 160), False, marks=pytest.mark.slow),
    ],
)
def test_the_whole_network_equals_onnxruntime(geometry, size, products):
    module = network(geometry, products=products)
    images = jax.random.uniform(jax.random.key(1), (2, *size, 3), minval=-1)
    params = sample_params(jax.random.key(0), jax.eval_shape(module.init, jax.random.key(0), images)['params'])
    result = jax.jit(module.apply)({'params': params}, images)
    pixels = np.asarray(images * 127.5 + 127.5 - jnp.array([[[CHANNEL_MEANS]]]))
    expected = as_onnx(params, alexnet.GEOMETRIES[geometry])(pixels.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize('geometry', GRIDS)
def test_feature_map_sizes_of_each_geometry(geometry):
    size, *expected = GRIDS[geometry]
    trunk = Trunk(WIDTHS, geometry=alexnet.GEOMETRIES[geometry], normalise=False)
    (_, maps), _ = jax.eval_shape(trunk.init_with_output, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    assert [maps[f'conv{n}'].shape[1:3] for n in (1, 2, 3, 5)] == [(n, n) for n in (*expected, expected[-1])]


@pytest.mark.parametrize(('size', 'padding'), [*itertools.product(range(3, 9), (0, 1))])
def test_pooling_rounds_up_like_onnxruntime(size, padding):
    x = jax.random.normal(jax.random.key(0), (1, size, 7, 2))
    graph = Graph()
    graph.pool(padding)
    expected = graph(np.asarray(x).transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(layers.max_pool(x, padding), expected.transpose(0, 2, 3, 1))
    assert len(expected[0, 0]) == layers.pool_output_size(size, padding)


@pytest.mark.parametrize('connected', [False, True])
@pytest.mark.parametrize('geometry', [*GRIDS, 'detection'])
@pytest.mark.parametrize('module', [default, conftest])
def test_min_size_leaves_no_map_empty_and_smaller_sizes_are_errors(module, geometry, connected):
    config = module.get_config() if module is default else module.tiny()
    padding = alexnet.GEOMETRIES.get(geometry, fast_rcnn.geometry(config.model.kernels[0]))
    min_size = architecture.compute_min_size(config, padding, connected=connected)
    trunk = architecture.make_trunk(config, geometry=padding, normalise=False)

    def maps(size):
        images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
        (conv5, features), _ = jax.eval_shape(trunk.init_with_output, jax.random.key(0), images)
        pool5 = [jax.eval_shape(lambda x: layers.max_pool(x, alexnet.pool5(padding)), conv5)] if connected else []
        return [*features.values(), *pool5]

    sizes = alexnet.compute_map_sizes(min_size, trunk.kernels[0], trunk.conv1_stride, padding)
    assert [x.shape[1] for x in maps(min_size)] == [*sizes[:2], *(sizes[2],) * 3, *sizes[3 : 3 + connected]]
    architecture.check_size('key', min_size, config, padding, connected=connected)
    assert min(sizes[: 3 + connected]) > 0
    message = f'key={min_size - 1}: too small for the trunk; expected {min_size} pixels or more'
    with pytest.raises(ConfigError, match=message):
        architecture.check_size('key', min_size - 1, config, padding, connected=connected)
    if min_size > max(trunk.kernels[0], 4 * trunk.conv1_stride):  # then a map would be empty
        smaller = alexnet.compute_map_sizes(min_size - 1, trunk.kernels[0], trunk.conv1_stride, padding)
        assert min(smaller[: 3 + connected]) < 1


def test_folded_batch_norm_computes_the_same_features():
    images = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3), minval=-1)
    trunk = Trunk(WIDTHS)
    variables = sample_params(jax.random.key(0), jax.eval_shape(trunk.init, jax.random.key(0), images))
    variables['batch_stats'] = jax.tree.map(jnp.abs, variables['batch_stats'])
    folded = alexnet.fold_batch_norm(variables)
    assert set(folded) == {'params'}
    assert 'norm5' in variables['params']  # unchanged
    _, expected = jax.jit(trunk.apply)(variables, images)
    _, maps = jax.jit(trunk.clone(normalise=False).apply)(folded, images)
    for name, x in expected.items():
        np.testing.assert_allclose(maps[name], x, rtol=1e-4, atol=1e-5 * np.abs(x).max())


def test_dropout_applies_only_to_the_fully_connected_layers():
    module, images = network('same'), jnp.ones((2, 64, 64, 3))
    variables = jax.jit(module.init)(jax.random.key(0), images)
    keys = jax.random.split(jax.random.key(1), (2, 2))
    dropped = [jax.jit(module.apply)(variables, images, keys[::order]) for order in (1, -1)]
    assert (dropped[0][0] != dropped[0][1]).any()
    np.testing.assert_allclose(dropped[0], dropped[1][::-1], rtol=1e-5)  # each example uses its own keys
    plain = module.apply(variables, images)
    np.testing.assert_array_equal(plain[0], plain[1])
