import colorsys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from artifacts_jax.data import augment

OFF = {
    'size': 24,
    'crop_area': (1.0, 1.0),
    'crop_aspect': (1.0, 1.0),
    'flip': False,
    'brightness': 0.0,
    'saturation': (1.0, 1.0),
}
RECIPE = {
    'size': 16,
    'crop_area': (1 / 3, 1.0),
    'crop_aspect': (3 / 4, 4 / 3),
    'flip': True,
    'brightness': 32 / 255,
    'saturation': (0.5, 1.5),
}
BATCH = 200
TOLERANCE = 1e-5  # of images in [-1, 1]; a grey level is 8e-3

# Options that need not be static are not, so that most tests share two compilations.
train = jax.jit(augment.train, static_argnames=('size', 'flip'))


def make_images(batch=BATCH, height=24, width=24):
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def make_mild_images(batch=BATCH, height=24, width=24):
    """Images with low contrast, so that the cubic kernel does not exceed [0, 1] and nothing is clipped."""
    return make_images(batch, height, width) // 4 + 96


def fill_images(color):
    return np.full((BATCH, 24, 24, 3), color, np.uint8)


def make_keys(batch=BATCH, seed=0):
    return jax.random.split(jax.random.key(seed), batch)


def triangle(x):
    return max(0.0, 1 - abs(x))


def keys_cubic(x):
    x = abs(x)
    if x < 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resize_slowly(image, size, kernel):
    """Resizes [H, W, 3], pixel by pixel."""
    height, width = image.shape[:2]
    out = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            y = (i + 0.5) * height / size - 0.5
            x = (j + 0.5) * width / size - 0.5
            total = 0.0
            for p in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
                for q in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                    if 0 <= p < height and 0 <= q < width:
                        weight = kernel(y - p) * kernel(x - q)
                        out[i, j] += weight * image[p, q]
                        total += weight
            out[i, j] /= total
    return out


def saturate_slowly(image, factor):
    """Scales the saturation of [H, W, 3] in [0, 1], pixel by pixel."""
    out = np.zeros_like(image)
    for index in np.ndindex(image.shape[:2]):
        h, s, v = colorsys.rgb_to_hsv(*image[index])
        out[index] = colorsys.hsv_to_rgb(h, min(1.0, s * factor), v)
    return out


@jax.jit
def crop_and_resize(image, top, left, height, width, cubic):
    rows = augment.resize_matrix(top, height, length=image.shape[0], size=16, cubic=cubic)
    columns = augment.resize_matrix(left, width, length=image.shape[1], size=16, cubic=cubic)
    return augment.resample(image, rows, columns)


@pytest.mark.parametrize('cubic', [False, True])
@pytest.mark.parametrize('box', [(3, 5, 11, 14), (0, 0, 24, 20), (7, 2, 1, 3), (14, 11, 10, 9)])
def test_crop_and_resize_equal_the_slow_reference(box, cubic):
    image = make_images(1, 24, 20)[0]
    top, left, height, width = box
    crop = image[top : top + height, left : left + width] / 255
    expected = resize_slowly(crop, 16, keys_cubic if cubic else triangle)
    np.testing.assert_allclose(crop_and_resize(image, *box, cubic), expected, atol=TOLERANCE)


@pytest.mark.parametrize('cubic', [False, True])
def test_resize_matrix_of_the_whole_axis_is_the_identity(cubic):
    matrix = augment.resize_matrix(0, 32, length=32, size=32, cubic=cubic)
    np.testing.assert_array_equal(matrix, np.eye(32))


def test_train_without_options_is_the_identity():
    images = make_images()
    out = train(make_keys(), images, **OFF)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, images / 127.5 - 1, atol=TOLERANCE)


def test_train_keeps_the_whole_of_an_image_in_which_no_crop_fits():
    images = make_mild_images(batch=4, height=16, width=24)
    out = train(make_keys(4), images, **OFF | {'size': 10})
    for image, got in zip(images, out):
        linear, cubic = (resize_slowly(image / 127.5 - 1, 10, kernel) for kernel in (triangle, keys_cubic))
        assert min(np.abs(linear - got).max(), np.abs(cubic - got).max()) < TOLERANCE


def test_train_resizes_with_both_kernels_and_flips_at_even_odds():
    image = make_mild_images(1)
    images = np.repeat(image, BATCH, axis=0)
    out = np.asarray(train(make_keys(), images, **OFF | {'size': 16, 'flip': True}))
    counts = []
    for kernel in (triangle, keys_cubic):
        expected = resize_slowly(image[0] / 127.5 - 1, 16, kernel)
        for wanted in (expected, expected[:, ::-1]):
            counts.append((np.abs(out - wanted[None]).max(axis=(1, 2, 3)) < TOLERANCE).sum())
    assert sum(counts) == BATCH
    assert min(counts) > 25  # 4 standard deviations below 50


@pytest.mark.parametrize('factor', [0.0, 0.5, 1.0, 1.5, 4.0])
def test_saturation_equals_colorsys(factor):
    image = make_images(1, 8, 8)[0] / 255
    image[0, 0] = 0.0
    image[0, 1] = 0.4
    image[0, 2] = (1.0, 0.0, 0.5)
    got = augment.adjust_saturation(jnp.asarray(image), factor)
    np.testing.assert_allclose(got, saturate_slowly(image, factor), atol=TOLERANCE)


def test_saturation_beyond_the_range_follows_the_formula_of_hsv():
    # Value 0.5, saturation 1.2: a factor of 2 clips it to 1. A value below 0 has saturation 0.
    image = jnp.array([[0.5, 0.2, -0.1], [-0.1, -0.2, -0.3]])
    got = augment.adjust_saturation(image, 2.0)
    np.testing.assert_allclose(got, [[0.5, 0.25, 0.0], [-0.1, -0.1, -0.1]], atol=1e-6)


def test_brightness_shifts_every_pixel_of_an_image_alike():
    out = np.asarray(train(make_keys(), fill_images(128), **OFF | {'brightness': 0.2}))
    shift = (out - (128 / 127.5 - 1)) / 2
    assert np.ptp(shift, axis=(1, 2, 3)).max() < TOLERANCE
    shift = shift[:, 0, 0, 0]
    assert -0.2 <= shift.min() < -0.18
    assert 0.18 < shift.max() <= 0.2
    assert abs(shift.mean()) < 0.03


def test_brightness_and_saturation_come_in_both_orders():
    # A factor that fills the saturation tells the orders apart: a shift that comes after it lifts zeros, too.
    options = OFF | {'brightness': 0.1, 'saturation': (4.0, 4.0)}
    pixel = np.array([200, 100, 100])
    out = np.asarray(train(make_keys(), fill_images(pixel), **options))[:, 0, 0] / 2 + 0.5
    pixel = pixel / 255
    shift = out[:, 0] - pixel[0]
    after = np.stack([saturate_slowly(pixel[None, None], 4.0)[0, 0] + s for s in shift])
    before = np.stack([saturate_slowly((pixel + s)[None, None], 4.0)[0, 0] for s in shift])
    is_after = np.abs(out - np.clip(after, 0, 1)).max(axis=1) < TOLERANCE
    is_before = np.abs(out - before).max(axis=1) < TOLERANCE
    assert (is_after | is_before).all()
    lifted = shift > 1e-3
    share = is_after[lifted].mean()
    assert 0.3 < share < 0.7


@partial(jax.jit, static_argnames='shape')
def sample_crops(keys, *, shape, area, aspect):
    boxes = jax.vmap(partial(augment.sample_crop, shape=shape, area=area, aspect=aspect))(keys)
    return jnp.stack(boxes)


@pytest.mark.parametrize('shape', [(96, 96), (60, 90)])
def test_crops_lie_inside_the_image_and_have_the_configured_area_and_aspect(shape):
    boxes = sample_crops(make_keys(2000), shape=shape, area=(1 / 3, 1), aspect=(3 / 4, 4 / 3))
    top, left, height, width = np.asarray(boxes)
    assert min(top.min(), left.min()) == 0
    assert (top + height).max() == shape[0]
    assert (left + width).max() <= shape[1]
    area = height * width / (shape[0] * shape[1])
    aspect = width / height
    slack = 1.05  # boxes are whole pixels
    assert 1 / 3 / slack <= area.min() < 0.36
    assert area.max() <= 1
    assert 3 / 4 / slack <= aspect.min() < 0.78
    assert 1.28 < aspect.max() <= 4 / 3 * slack
    assert abs((top - (shape[0] - height) / 2).mean()) < 1.5
    assert abs((left - (shape[1] - width) / 2).mean()) < 1.5


@pytest.mark.parametrize(('area', 'side'), [(0.25, 48), (0.5, 68), (1.0, 96)])
def test_crops_with_fixed_area_and_aspect_have_them(area, side):
    top, left, height, width = np.asarray(sample_crops(make_keys(), shape=(96, 96), area=(area, area), aspect=(1, 1)))
    np.testing.assert_array_equal(height, side)
    np.testing.assert_array_equal(width, side)
    assert (top.min(), top.max()) == (left.min(), left.max()) or side < 96
    assert (len(set(top)) > 1) == (len(set(left)) > 1) == (side < 96)  # they lie anywhere


def test_crops_have_every_size_in_the_range_and_lie_at_every_place():
    # A quarter of a square of 12 pixels is one of 6, the least; the most is the whole.
    top, left, height, width = np.asarray(sample_crops(make_keys(4000), shape=(12, 12), area=(0.25, 1), aspect=(1, 1)))
    np.testing.assert_array_equal(height, width)
    assert set(height) == set(range(6, 13))
    for side in range(6, 13):
        everywhere = set(range(12 - side + 1))
        assert set(top[height == side]) == set(left[height == side]) == everywhere


@pytest.mark.parametrize('aspect', [0.5, 1, 2])
def test_crops_of_less_than_a_pixel_are_a_pixel(aspect):
    _, _, height, width = np.asarray(
        sample_crops(make_keys(), shape=(8, 8), area=(1e-4, 1e-4), aspect=(aspect, aspect))
    )
    assert set(height) == set(width) == {1}


def test_options_that_are_one_value_change_every_image_alike():
    images = make_images()
    still = {'crop_area': (1.0, 1.0), 'crop_aspect': (1.0, 1.0), 'brightness': 0.0, 'flip': False}
    grey = np.asarray(train(make_keys(), images, **RECIPE | still | {'saturation': (0.0, 0.0)}))
    np.testing.assert_allclose(grey.max(axis=-1), grey.min(axis=-1), atol=1e-5)
    same = np.asarray(train(make_keys(), images, **RECIPE | still | {'saturation': (1.0, 1.0), 'size': 24}))
    np.testing.assert_allclose(same, images / 127.5 - 1, atol=1e-5)


def test_crops_are_sampled_again_until_one_fits():
    # No box of four fifths of a square is twice as wide as high: most draws fail.
    boxes = sample_crops(make_keys(2000), shape=(96, 96), area=(0.8, 1), aspect=(0.5, 2))
    _, _, height, width = np.asarray(boxes)
    assert (height * width / 96**2).min() > 0.78
    assert ((height == 96) & (width == 96)).mean() < 0.05


def test_train_is_in_range_for_extreme_options():
    images = make_images()
    images[0], images[1] = 0, 255
    out = np.asarray(train(make_keys(), images, **RECIPE | {'brightness': 0.9, 'saturation': (0.0, 9.0)}))
    assert out.shape == (BATCH, 16, 16, 3)
    assert np.isfinite(out).all()
    assert out.min() == -1
    assert out.max() == 1


def test_train_depends_on_key_and_image_only():
    images, keys = make_images(), make_keys()
    together = np.asarray(train(keys, images, **RECIPE))
    for i in (0, 1, 123):
        raw_key = jax.random.key_data(keys[i : i + 1])
        alone = train(raw_key, images[i : i + 1], **RECIPE)
        np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-6)
    order = np.random.default_rng(1).permutation(BATCH)
    np.testing.assert_allclose(train(keys[order], images[order], **RECIPE), together[order], atol=1e-6)


def test_train_is_reproducible_and_differs_between_keys():
    images = np.repeat(make_images(1), BATCH, axis=0)
    first = np.asarray(train(make_keys(), images, **RECIPE))
    np.testing.assert_array_equal(first, train(make_keys(), images, **RECIPE))
    other = np.asarray(train(make_keys(seed=1), images, **RECIPE))
    everything = np.concatenate([first, other]).reshape(2 * BATCH, -1)
    assert len(np.unique(everything, axis=0)) == 2 * BATCH


def test_test_crops_the_centre():
    images = make_images(2, 40, 30)
    out = jax.jit(partial(augment.test, size=16, test_crop=0.85))(images)
    for image, got in zip(images, out):
        expected = resize_slowly(image[3:37, 2:28] / 127.5 - 1, 16, triangle)  # 34 and 26 pixels
        np.testing.assert_allclose(got, expected, atol=TOLERANCE)


def test_the_test_crop_is_rounded_up():
    images = make_images(2, 36, 36)
    out = augment.test(images, size=16, test_crop=0.8)  # 28.8 pixels, which leaves 3.6 pixels at each side
    for image, got in zip(images, out):
        np.testing.assert_allclose(got, resize_slowly(image[3:33, 3:33] / 127.5 - 1, 16, triangle), atol=TOLERANCE)


def test_test_enlarges_as_pillow_does():
    image = make_images(1, 20, 20)[0]
    expected = np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR))
    got = augment.test(image[None], size=32, test_crop=1.0)[0]
    np.testing.assert_allclose((got + 1) * 127.5, expected, atol=1.0)  # Pillow rounds to whole levels


def test_test_of_the_whole_image_is_the_identity():
    images = make_images(2)
    out = augment.test(images, size=24, test_crop=1.0)
    np.testing.assert_allclose(out, images / 127.5 - 1, atol=TOLERANCE)


@pytest.mark.parametrize('images', [np.zeros((2, 8, 8, 3), np.float32), np.zeros((8, 8, 3), np.uint8)])
def test_other_images_are_refused(unchecked, images):
    with pytest.raises(ValueError, match='expected uint8'):
        augment.test(images, size=8, test_crop=1.0)
    with pytest.raises(ValueError, match='expected uint8'):
        augment.train(make_keys(len(images)), images, **RECIPE)
