import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.data import crops

MEAN = np.array([123.0, 117.0, 104.0], np.float32)
PADDED_SIZE = 60


@pytest.fixture(scope='module')
def images():
    """Padded images; the padding is noise, so a crop that reads it gives a wrong result."""
    return np.random.default_rng(0).integers(0, 256, (6, PADDED_SIZE, PADDED_SIZE, 3), dtype=np.uint8)


SIZES = np.array([[60, 60], [60, 23], [24, 60], [9, 13], [11, 11], [1, 40]], np.int32)


def crop_slowly(image, size, crop, side):
    """Computes a crop pixel by pixel, by the formula."""
    height, width = map(int, size)
    scale, top, left, flip = (float(x) for x in crop)
    # The offset between the centres of the crop and of the image.
    shift_y, shift_x = top - (height - side * scale) / 2, left - (width - side * scale) / 2
    out, near = np.zeros((side, side, 3)), np.zeros((side, side), bool)
    for y in range(side):
        for x in range(side):
            v = scale * (y - side / 2) + height / 2 + shift_y
            u = (-scale if flip else scale) * (x - side / 2) + width / 2 + shift_x
            near[y, x] = min(abs(u - width), abs(v - height)) < 1e-4  # pixels whose result depends on rounding
            if 0 <= u < width and 0 <= v < height:
                y0, x0 = math.floor(v), math.floor(u)
                y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
                for c in range(3):
                    upper = image[y0, x0, c] * (1 - (u - x0)) + image[y0, x1, c] * (u - x0)
                    lower = image[y1, x0, c] * (1 - (u - x0)) + image[y1, x1, c] * (u - x0)
                    out[y, x, c] = upper * (1 - (v - y0)) + lower * (v - y0) - MEAN[c]
    return out, near


@partial(jax.jit, static_argnums=3)
def draw_and_sample(keys, images, sizes, side):
    return crops.sample_boxes(keys, sizes, side=side), crops.random_crops(keys, images, sizes, mean=MEAN, side=side)


def compare(result, image, size, crop, side):
    expected, near = crop_slowly(image.astype(float), size, crop, side)
    assert not near[1:, 1:].any()
    np.testing.assert_allclose(result[~near], expected[~near], atol=0.01)
    assert np.abs(result - expected).max() < 256


@pytest.mark.parametrize('seed', range(3))
def test_crops_equal_the_slow_reference(images, seed):
    side = 23  # so that some images are smaller than the crop, and some than half of it
    keys = jax.random.split(jax.random.key(seed), len(images))
    boxes, result = draw_and_sample(keys, images, SIZES, side)
    result = np.asarray(result)
    assert result.dtype == np.float32
    for n, size in enumerate(SIZES):
        compare(result[n], images[n], size, [x[n] for x in boxes], side)


def test_a_crop_of_the_protocol(images):
    image = np.random.default_rng(1).integers(0, 256, (1, 300, 300, 3), dtype=np.uint8)
    size = np.array([[250, 290]], np.int32)
    keys = jax.random.split(jax.random.key(3), 1)
    boxes, result = map(jax.device_get, draw_and_sample(keys, image, size, crops.SIDE))
    assert result.shape == (1, 227, 227, 3)
    compare(result[0], image[0], size[0], [x[0] for x in boxes], 227)


def test_edges_worked_out_by_hand():
    ramp = np.zeros((4, 8, 8, 3), np.uint8)
    ramp[:, :4, :4] = 10 * np.arange(1, 5)[:, None] + np.array([0, 100, 200])  # each column its own
    size = np.full((4, 2), 4, np.int32)
    which = crops.Crops(
        scale=jnp.array([1.0, 1.0, 1.0, 0.5]),
        top=jnp.zeros(4),
        left=jnp.array([0.0, 0.0, -1.5, 2.0]),
        flip=jnp.array([False, True, False, False]),
    )
    result = np.asarray(crops.extract_crops(ramp, size, which, mean=np.float32([1, 1, 1]), side=4))[..., 0, :, 0]
    np.testing.assert_allclose(
        result,
        [
            [9, 19, 29, 39],
            [0, 39, 29, 19],  # mirrored about the centre, which is 2, not 1.5: the first column is outside
            [0, 0, 14, 24],  # what is outside is 0 once the means are off
            [29, 34, 39, 39],  # after the last pixel it goes on
        ],
    )


def test_boxes_are_uniform_and_fit():
    count, side = 4000, 227
    for size in ([375, 500], [500, 300], [227, 400], [150, 140], [100, 300]):
        sizes = np.broadcast_to(np.array(size, np.int32), (count, 2))
        boxes = crops.sample_boxes(jax.random.split(jax.random.key(1), count), sizes)
        scale, top, left, flip = (np.asarray(x, np.float64) for x in boxes)
        most = min(2, min(size) / side)
        least = min(0.5, most)
        assert scale.min() >= least - 1e-6
        assert scale.max() <= most + 1e-6
        for value, low, high in (
            (scale, least, most),
            (top / np.maximum(size[0] - side * scale, 1e-3), 0, 1 if most > least or size[0] > size[1] else 0),
            (left / np.maximum(size[1] - side * scale, 1e-3), 0, 1 if most > least or size[1] > size[0] else 0),
        ):
            quantiles = np.quantile(value, [0, 0.25, 0.5, 0.75, 1])
            np.testing.assert_allclose(quantiles, np.linspace(low, high, 5), atol=0.03 * (high - low) + 1e-3)
        assert abs(flip.mean() - 0.5) < 0.03
        assert (top + side * scale <= size[0] + 1e-3).all()
        assert (left + side * scale <= size[1] + 1e-3).all()


def test_the_crop_of_an_image_does_not_depend_on_its_batch(images):
    keys = jax.random.split(jax.random.key(0), len(images))
    sample = jax.jit(lambda keys, images, sizes: crops.random_crops(keys, images, sizes, mean=MEAN, side=8))
    whole = sample(keys, images, SIZES)
    for n in (0, 3):
        alone = sample(keys[n : n + 1], images[n : n + 1], SIZES[n : n + 1])
        np.testing.assert_array_equal(alone[0], whole[n])
    assert not np.array_equal(sample(keys[::-1], images, SIZES)[0], whole[0])
