from functools import partial

import jax
import numpy as np

from artifacts_jax.models import architecture, discriminator


def test_parts_of_a_batch_are_judged_as_the_whole(config):
    discriminator = architecture.make_discriminator(config)
    images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3), minval=-1)
    variables = jax.jit(discriminator.init)(jax.random.key(1), images)
    judge = jax.jit(lambda images: discriminator.apply(variables, images, train=True, mutable=['batch_stats']))
    whole, parts = judge(images), judge((images[:2], images[2:]))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), whole, parts)


def test_pixels_are_scaled_to_the_networks_range_and_back():
    pixels = np.arange(0, 256, 15, np.uint8).reshape(1, 2, 3, 3)
    images = discriminator.scale_pixels(pixels)
    assert (images.min(), images.max()) == (-1, 1)
    np.testing.assert_array_equal(images, discriminator.scale_pixels(pixels.astype(np.float32)))
    np.testing.assert_allclose(
        discriminator.preprocess(images) + np.array([[[discriminator.CHANNEL_MEANS]]]), pixels, atol=1e-4
    )
