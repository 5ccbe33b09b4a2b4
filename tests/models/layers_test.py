import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.models import layers
from artifacts_jax.training import keys


def normal(*shape, key=0):
    return jax.random.normal(jax.random.key(key), shape)


def test_upsampling_equals_half_pixel_resize():
    x = normal(2, 5, 6, 3)
    expected = jax.image.resize(x, (2, 10, 12, 3), 'bilinear')
    np.testing.assert_allclose(layers.upsample_bilinear(x), expected, atol=1e-6)


def test_legacy_upsampling_keeps_entries_and_puts_means_between():
    x = normal(1, 1, 3, 2)
    upsampled = layers.upsample_bilinear(x, 'legacy')
    columns = [x[0, 0, 0], (x[0, 0, 0] + x[0, 0, 1]) / 2, x[0, 0, 1], (x[0, 0, 1] + x[0, 0, 2]) / 2, x[0, 0, 2]]
    for row in (0, 1):  # the only row is repeated, because there is no next row
        np.testing.assert_allclose(upsampled[0, row], jnp.stack([*columns, x[0, 0, 2]]), atol=1e-6)


def test_batch_norm_equals_flax_but_for_the_unbiased_running_variance():
    x = normal(2, 3, 3, 4) * 3 + 1
    ours, flax = layers.BatchNorm(), nn.BatchNorm(use_running_average=False, momentum=0.975, epsilon=1e-3)
    variables = ours.init(jax.random.key(0), x, train=True)
    assert (variables['batch_stats']['var'] == 1).all()
    y, updates = ours.apply(variables, x, train=True, mutable=['batch_stats'])
    expected, flax_updates = flax.apply(variables, x, mutable=['batch_stats'])
    np.testing.assert_allclose(y, expected, atol=1e-5)
    stats, flax_stats = updates['batch_stats'], flax_updates['batch_stats']
    np.testing.assert_allclose(stats['mean'], flax_stats['mean'], rtol=1e-5)
    np.testing.assert_allclose((stats['var'] - 0.975) / (flax_stats['var'] - 0.975), 18 / 17, rtol=1e-4)
    np.testing.assert_allclose(stats['var'], 0.975 + 0.025 * jnp.var(x, axis=(0, 1, 2), ddof=1), rtol=1e-5)
    y = ours.apply({**variables, 'batch_stats': stats}, x, train=False)
    expected = (x - stats['mean'].reshape(1, 1, 1, 4)) / jnp.sqrt(stats['var'].reshape(1, 1, 1, 4) + 1e-3)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_batch_norm_of_constant_input_is_finite():
    norm = layers.BatchNorm()

    @jax.jit
    def normalise(x):
        variables = norm.init(jax.random.key(0), x, train=True)
        return norm.apply(variables, x, train=True, mutable=['batch_stats'])

    for x in (jnp.full((1, 2), 5.0), jnp.full((64, 2), 1000.3)):  # the mean of squares may round below the square
        y, updates = normalise(x)
        np.testing.assert_allclose(y, 0, atol=2e-2)
        assert (updates['batch_stats']['var'] >= 0.975).all()
        assert (updates['batch_stats']['var'] < 2).all()


def test_leaky_relu_and_its_gradient_equal_flax():
    x = jnp.array([-2.0, -1e-3, 0.0, 1e-3, 2.0])
    np.testing.assert_array_equal(layers.leaky_relu(x), nn.leaky_relu(x, 0.2))
    gradients = [jax.grad(lambda x, f=f: f(x).sum())(x) for f in (layers.leaky_relu, lambda x: nn.leaky_relu(x, 0.2))]
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize('size', [1, 2, 5, 6, 7, 12])
def test_max_pool_and_its_gradient_equal_flax(size):
    random = np.random.default_rng(0)
    distinct = random.permutation(2 * size * size * 3)  # no ties, whose gradient may be shared
    x = distinct.reshape(2, size, size, 3).astype(np.float32)
    weights = random.normal(size=(2, -(-size // 2), -(-size // 2), 3)).astype(np.float32)

    def plain(x):
        return nn.max_pool(x, (3, 3), (2, 2), 'SAME')

    @jax.jit
    def pooled_and_gradients(x):
        return [(f(x), jax.grad(lambda x, f=f: (f(x) * weights).sum())(x)) for f in (layers.max_pool, plain)]

    (ours, gradient), (theirs, expected) = pooled_and_gradients(x)
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_grouped_convolution_equals_feature_groups():
    x = normal(2, 6, 6, 8)
    module = layers.GroupedConv(12, 3, groups=2)
    params = module.init(jax.random.key(1), x)['params']
    kernel = jnp.concatenate([params[f'group{n}']['kernel'] for n in (0, 1)], axis=-1)
    expected = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'), feature_group_count=2
    )
    assert all((params[f'group{n}']['bias'] == 0.1).all() for n in (0, 1))
    np.testing.assert_allclose(module.apply({'params': params}, x), expected + 0.1, atol=1e-5)


def test_local_response_norm_equals_a_loop():
    x = np.asarray(normal(2, 3, 3, 7) * 100)
    expected = np.empty_like(x)
    for c in range(7):
        window = x[..., max(0, c - 2) : c + 3]
        expected[..., c] = x[..., c] / (1 + 2e-5 * (window**2).sum(-1)) ** 0.75
    np.testing.assert_allclose(layers.local_response_norm(jnp.asarray(x)), expected, rtol=1e-5)


def test_uniform_filter_averages_inside_the_grid_only():
    phi = np.asarray(normal(1, 4, 5, 2))
    filtered = layers.uniform_filter(jnp.asarray(phi), 3)
    for y in range(4):
        for x in range(5):
            window = phi[0, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            np.testing.assert_allclose(filtered[0, y, x], window.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(layers.uniform_filter(jnp.asarray(phi), 0)[0, 2, 3], phi.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(layers.uniform_filter(jnp.asarray(phi), 1), phi, atol=1e-6)


def test_damage_replaces_dropped_entries_only():
    phi = normal(2, 4, 4, 3)
    mask = layers.spatial_mask(jax.random.split(jax.random.key(1), 2), (4, 4), 0.5)
    damaged = layers.damage(phi, mask, 3)
    np.testing.assert_array_equal(jnp.where(mask > 0, damaged - phi, 0), 0)
    np.testing.assert_allclose(
        jnp.where(mask > 0, 0, damaged), jnp.where(mask > 0, 0, layers.uniform_filter(phi, 3)), atol=1e-6
    )


def test_mask_is_per_example_reproducible_and_drops_at_the_rate():
    (example_keys,) = keys.example_keys(jax.random.key(0), 7, jnp.arange(512), 1)
    mask = layers.spatial_mask(example_keys, (6, 6), 0.7)
    assert set(np.unique(mask)) == {0.0, 1.0}
    assert abs(float(mask.mean()) - 0.3) < 0.01  # 18,432 entries: the standard deviation is 0.003
    assert len(np.unique(mask.reshape(512, -1), axis=0)) > 500
    np.testing.assert_array_equal(layers.spatial_mask(example_keys[100:101], (6, 6), 0.7), mask[100:101])
    (later,) = keys.example_keys(jax.random.key(0), 8, jnp.arange(512), 1)
    assert (layers.spatial_mask(later, (6, 6), 0.7) != mask).any()


def test_nearest_upsampling_repeats_entries():
    mask = jnp.array([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 2, 1)
    expected = jnp.kron(mask[0, :, :, 0], jnp.ones((3, 3)))
    np.testing.assert_array_equal(layers.upsample_nearest(mask, (6, 6))[0, :, :, 0], expected)


def test_dropout_is_per_example_and_keeps_the_mean():
    example_keys = jax.random.split(jax.random.key(0), 8)
    x = layers.dropout(example_keys, jnp.ones((8, 4000)), 0.25)
    assert abs(float(x.mean()) - 1) < 0.02
    np.testing.assert_array_equal(layers.dropout(example_keys[3:4], jnp.ones((1, 4000)), 0.25), x[3:4])


def test_dropout_at_rate_zero_changes_nothing():
    x = normal(4, 100)
    np.testing.assert_array_equal(layers.dropout(jax.random.split(jax.random.key(0), 4), x, 0.0), x)
