import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.configs import default, demo, imagenet
from artifacts_jax.models import architecture


def count(tree):
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(tree))


def test_parameter_counts_equal_the_reference():
    params = architecture.template(default.get_config())['params']
    counts = {network: count(tree) for network, tree in params.items()}
    expected = {'encoder': 699_168, 'decoder': 1_568_547, 'repair': 6_297_216, 'discriminator': 40_097_411}
    assert counts == expected


@pytest.mark.parametrize('module', [default, demo, imagenet])
def test_conv5_has_the_grid_of_the_mask(module):
    config = module.get_config()
    size = config.model.image_size
    discriminator = architecture.make_discriminator(config)

    def judge(key):
        images = jnp.zeros((2, size, size, 3))
        return discriminator.apply(discriminator.init(key, images), images)

    (logits, mask_logits), features = jax.eval_shape(judge, jax.random.key(0))
    assert logits.shape == (2, 2)
    assert mask_logits.shape == (2, *architecture.mask_grid(config), 1)
    assert features['conv5'].shape == (2, *architecture.mask_grid(config), config.model.widths[-1])
    assert list(features) == ['conv1', 'conv2', 'conv3', 'conv4', 'conv5']


def test_parameters_stay_float32_in_bfloat16(config):
    config.dtype = 'bfloat16'
    variables = architecture.template(config)
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    generator = architecture.make_generator(config)
    images = jnp.zeros((1, 16, 16, 3))
    phi = jax.eval_shape(
        lambda k: generator.apply(generator.init(k, images, method='reconstruct'), images, method='encode'),
        jax.random.key(0),
    )
    assert phi.dtype == jnp.bfloat16
