from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax import layers as blocks
from artifacts_jax import models
from configs import default, demo, imagenet


def count(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def test_full_size_parameter_counts_are_the_references():
    params = models.template(default.get_config())['params']
    counts = {network: count(tree) for network, tree in params.items()}
    expected = {'encoder': 699_168, 'decoder': 1_568_547, 'repair': 6_297_216, 'discriminator': 40_097_411}
    assert counts == expected


@pytest.mark.parametrize('module', [default, demo, imagenet])
def test_conv5_has_the_grid_of_the_mask(module):
    config = module.get_config()
    size = config.model.image_size
    discriminator = models.make_discriminator(config)

    def judge(key):
        images = jnp.zeros((2, size, size, 3))
        return discriminator.apply(discriminator.init(key, images), images)

    (logits, mask_logits), features = jax.eval_shape(judge, jax.random.key(0))
    assert logits.shape == (2, 2)
    assert mask_logits.shape == (2, *models.mask_grid(config), 1)
    assert features['conv5'].shape == (2, *models.mask_grid(config), config.model.widths[-1])
    assert list(features) == ['conv1', 'conv2', 'conv3', 'conv4', 'conv5']


def test_parts_of_a_batch_are_judged_as_the_whole(config):
    discriminator = models.make_discriminator(config)
    images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3), minval=-1)
    variables = discriminator.init(jax.random.key(1), images)
    judge = jax.jit(lambda images: discriminator.apply(variables, images, train=True, mutable=['batch_stats']))
    whole, parts = judge(images), judge((images[:2], images[2:]))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), whole, parts)


def test_parameters_stay_float32_in_bfloat16(config):
    config.dtype = 'bfloat16'
    variables = models.template(config)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    generator = models.make_generator(config)
    images = jnp.zeros((1, 16, 16, 3))
    phi = jax.eval_shape(
        lambda k: generator.apply(generator.init(k, images, method='reconstruct'), images, method='encode'),
        jax.random.key(0),
    )
    assert phi.dtype == jnp.bfloat16


def test_repair_layer_changes_only_dropped_positions():
    h = jax.random.normal(jax.random.key(0), (2, 6, 6, 8))
    mask = blocks.spatial_mask(jax.random.split(jax.random.key(1), 2), (6, 6), 0.5)
    repair = models.RepairLayer()
    variables = repair.init(jax.random.key(2), h, mask, train=False)
    repaired = repair.apply(variables, h, mask, train=False)
    changed = jnp.abs(repaired - h).max(axis=-1, keepdims=True) > 0
    np.testing.assert_array_equal(changed, mask == 0)
    everywhere = repair.apply(variables, h, mask, train=False, gated=False)
    assert (jnp.abs(everywhere - h).max(axis=-1) > 0).all()


def test_nothing_dropped_is_nothing_changed(config):
    generator = models.make_generator(config)
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 3), minval=-1)
    mask = jnp.ones((2, 4, 4, 1))
    variables = generator.init(jax.random.key(1), images, method='reconstruct')
    phi = generator.apply(variables, images, method='encode')
    repair = generator.init(jax.random.key(2), phi, mask, method='corrupt')
    merged = {kind: {**variables[kind], 'repair': repair[kind]['repair']} for kind in variables}
    real = generator.apply(merged, phi, method='decode')
    np.testing.assert_allclose(generator.apply(merged, phi, mask, method='corrupt'), real, atol=1e-6)
    np.testing.assert_allclose(generator.apply(merged, images, method='reconstruct'), real, atol=1e-6)
    assert jnp.abs(generator.apply(merged, phi, 0 * mask, method='corrupt') - real).max() > 1e-3
