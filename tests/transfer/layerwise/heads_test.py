import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.transfer.layerwise import heads
from artifacts_jax.transfer.layerwise.presets import GRIDS, LAYERS, MAPS, PRESETS

CHANNELS = (96, 256, 384, 384, 256)


@pytest.mark.parametrize('name', PRESETS)
def test_maps_keep_about_9000_values(name):
    for n, (side, channels) in enumerate(zip(MAPS, CHANNELS)):
        x = jax.ShapeDtypeStruct((1, side, side, channels), jnp.float32)
        small = jax.eval_shape(lambda x, n=n: heads.downsample(x, PRESETS[name], n), x)
        assert small.shape[1:3] == (GRIDS[n],) * 2
        assert small.size in (9600, 9216)


def slow_pool(x, window, kind):
    """Pools one channel of one image, window by window."""
    padded = np.pad(x, window.padding, constant_values=0 if kind == 'average' else -np.inf)
    starts = range(0, len(padded) - window.size + 1, window.stride)
    reduce = np.mean if kind == 'average' else np.max
    return np.array([[reduce(padded[y : y + window.size, z : z + window.size]) for z in starts] for y in starts])


@pytest.mark.parametrize('name', ['vissl', 'deepcluster', 'asano'])
@pytest.mark.parametrize('layer', range(5))
def test_windows_equal_a_slow_loop(name, layer):
    x = np.random.default_rng(0).normal(size=(MAPS[layer],) * 2).astype(np.float32)
    small = heads.downsample(jnp.asarray(x)[None, :, :, None], PRESETS[name], layer)
    expected = slow_pool(x, PRESETS[name].windows[layer], PRESETS[name].pooling)
    np.testing.assert_allclose(small[0, ..., 0], expected, atol=1e-5)


@pytest.mark.parametrize('shape', [(55, 55), (13, 27), (12, 7)])
def test_resizing_equals_jax_image(shape):
    x = jax.random.normal(jax.random.key(0), (2, *shape, 3))
    small = heads.downsample(x, PRESETS['zhang2016'], 0)
    expected = jax.image.resize(x, (2, 10, 10, 3), 'linear', antialias=False)
    np.testing.assert_allclose(small, expected, atol=1e-5)


@pytest.mark.parametrize('name', ['vissl', 'asano', 'zhang2016'])
def test_maps_of_other_sizes_are_covered(name):
    x = jnp.ones((1, 32, 32, 2)).at[0, 28:, 28:].set(100)
    small = heads.downsample(x, PRESETS[name], 0)
    assert small.shape == (1, 10, 10, 2)
    assert small[0, -1, -1, 0] > small[0, 0, 0, 0]
    few = jnp.ones((1, 4, 4, 2))
    np.testing.assert_array_equal(heads.downsample(few, PRESETS[name], 0), few)


def test_batch_norm_statistics_are_those_of_groups_of_images():
    x = jax.random.normal(jax.random.key(0), (8, 2, 2, 3)) * 2 + 3
    module = heads.Norm(0.9, 4)
    variables = module.init(jax.random.key(0), x, train=True)
    variables['batch_stats']['count'] = jnp.array(50.0)
    y, updates = module.apply(variables, x, train=True, mutable=['batch_stats'])
    halves = np.asarray(x).reshape(2, 16, 3)
    expected = (halves - halves.mean(1, keepdims=True)) / np.sqrt(halves.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected.reshape(x.shape), atol=1e-5)
    averages = jax.tree.map(np.asarray, updates['batch_stats'])
    np.testing.assert_allclose(averages['mean'], 0.1 * halves.mean(1).mean(0), rtol=1e-5)
    np.testing.assert_allclose(averages['var'], 0.9 + 0.1 * halves.var(1, ddof=1).mean(0), rtol=1e-5)
    tested = module.apply({'batch_stats': averages}, x, train=False)
    np.testing.assert_allclose(
        tested, (np.asarray(x) - averages['mean']) / np.sqrt(averages['var'] + 1e-5), rtol=1e-4, atol=1e-5
    )
    variables['batch_stats']['count'] = jnp.array(0.0)
    _, updates = module.apply(variables, x, train=True, mutable=['batch_stats'])
    np.testing.assert_allclose(updates['batch_stats']['mean'], halves.mean(1).mean(0), rtol=1e-5)
    whole = heads.Norm(0.9, 5).apply(variables, x, train=True, mutable=['batch_stats'])[0]
    assert np.abs(np.asarray(whole).reshape(-1, 3).mean(0)).max() < 1e-5  # no half of eight has five


@pytest.mark.parametrize(
    ('name', 'deviation'),
    [('zhang2016', 0), ('fair', 0.01), ('vissl', (1 / 16 / 3) ** 0.5), ('asano', (6 / (16 + 50 * 4) / 3) ** 0.5)],
)
def test_initial_weights_are_those_of_the_protocols(name, deviation):
    maps = {layer: jnp.ones((2, 2, 2, 4)) for layer in LAYERS}  # 16 values, 50 classes
    params = heads.Heads(name, 50, rates=2).init(jax.random.key(0), maps, train=False)['params']
    assert float(jnp.std(params['conv3_kernel'])) == pytest.approx(deviation, rel=0.05)
    np.testing.assert_array_equal(*params['conv3_kernel'])  # every rate starts from the same
    assert (params['conv3_bias'] != 0).any() == (name == 'vissl')
    assert ('conv3_scale' in params) == (name == 'vissl')


def test_logits_are_of_normalised_features_by_the_parameters_of_each_rate():
    maps = {layer: jax.random.normal(jax.random.key(1), (4, 2, 2, 3)) for layer in LAYERS}
    module = heads.Heads('vissl', 5, rates=2)
    variables = module.init(jax.random.key(0), maps, train=False)
    variables = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(2), x.shape), variables)
    variables['batch_stats'] = jax.tree.map(jnp.abs, variables['batch_stats'])
    logits = module.apply(variables, maps, train=False)['conv2']
    params, averages = variables['params'], variables['batch_stats']['conv2_norm']
    mean, var = np.asarray(averages['mean']), np.asarray(averages['var'])
    x = (np.asarray(maps['conv2']) - mean) / np.sqrt(var + 1e-5)
    for rate in (0, 1):
        scaled = x * np.asarray(params['conv2_scale'][rate]) + np.asarray(params['conv2_offset'][rate])
        expected = scaled.reshape(4, -1) @ np.asarray(params['conv2_kernel'][rate]).T
        np.testing.assert_allclose(
            logits[rate], expected + np.asarray(params['conv2_bias'][rate]), rtol=1e-4, atol=1e-4
        )
