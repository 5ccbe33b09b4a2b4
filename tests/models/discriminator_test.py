from functools import partial

import jax
import numpy as np

from artifacts_jax.models import architecture, discriminator


def test_slices_of_a_batch_give_the_outputs_of_the_whole_batch(config):
    discriminator = architecture.make_discriminator(config)
    images = jax.random.uniform(jax.random.key(0), (6, 16, 16, 3), minval=-1)
    variables = jax.jit(discriminator.init)(jax.random.key(1), images)
    apply = jax.jit(lambda images: discriminator.apply(variables, images, train=True, mutable=['batch_stats']))
    whole, sliced = apply(images), apply((images[:2], images[2:]))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), whole, sliced)


def test_pixels_are_scaled_to_the_input_range_and_back():
    pixels = np.arange(0, 256, 15, np.uint8).reshape(1, 2, 3, 3)
    images = discriminator.scale_pixels(pixels)
    assert (images.min(), images.max()) == (-1, 1)
    np.testing.assert_array_equal(images, discriminator.scale_pixels(pixels.astype(np.float32)))
    np.testing.assert_allclose(
        discriminator.preprocess(images) + np.array([[[discriminator.CHANNEL_MEANS]]]), pixels, atol=1e-4
    )
