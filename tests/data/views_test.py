import jax
import numpy as np
import pytest

from artifacts_jax.data import views

IMAGES = np.random.default_rng(0).integers(0, 256, (100, 9, 12, 3), np.uint8)
KEYS = jax.random.split(jax.random.key(0), 100)


def pixels(view):
    return np.round((np.asarray(view) + 1) * 127.5).astype(np.uint8)


def squares(image, size):
    places = ((y, x) for y in range(image.shape[0] - size + 1) for x in range(image.shape[1] - size + 1))
    return {place: image[place[0] :][:size, place[1] :][:, :size] for place in places}


def test_random_crops_are_uniform_and_flipped_half_of_the_time():
    result, mirrored = set(), 0
    random = jax.jit(views.random_crop, static_argnums=2)
    for image, crop in zip(IMAGES, pixels(random(KEYS, IMAGES, 8))):
        for place, square in squares(image, 8).items():
            for flip in (False, True):
                if (crop == (square[:, ::-1] if flip else square)).all():
                    result.add(place)
                    mirrored += flip
    assert len(result) == 2 * 5  # all places
    assert 30 < mirrored < 70
    again = random(KEYS[3:4], IMAGES[3:4], 8)  # an example's key alone decides
    np.testing.assert_array_equal(again[0], random(KEYS, IMAGES, 8)[3])


def test_centre_crops_and_their_flips():
    middle = IMAGES[:, 1:8, 2:9]  # half pixels are rounded to even numbers, as torchvision's
    np.testing.assert_array_equal(pixels(views.centre_crop(IMAGES, 7)), middle)
    crops = pixels(views.centre_crop_flipped(KEYS, IMAGES, 7))
    flipped = [(crop == m[:, ::-1]).all() for crop, m in zip(crops, middle)]
    plain = [(crop == m).all() for crop, m in zip(crops, middle)]
    assert all(a != b for a, b in zip(flipped, plain))
    assert 30 < sum(flipped) < 70


def test_ten_crops_are_the_corners_the_centre_and_their_flips():
    ten = [pixels(view) for view in views.ten_crops(IMAGES, 8)]
    expected = [IMAGES[:, :8, :8], IMAGES[:, :8, 4:], IMAGES[:, 1:, :8], IMAGES[:, 1:, 4:], IMAGES[:, :8, 2:10]]
    for crop, square in zip(ten, [*expected, *(x[:, :, ::-1] for x in expected)], strict=True):
        np.testing.assert_array_equal(crop, square)


def test_resized_crops_are_boxes_of_the_image():
    ramp = np.broadcast_to(np.arange(0, 240, 8, dtype=np.uint8)[None, None, :, None], (100, 30, 30, 3))
    crops = (np.asarray(jax.jit(views.random_resized_crop, static_argnums=2)(KEYS, ramp, 8)) + 1) * 127.5
    steps = np.diff(crops[:, 0, :, 0], axis=1)
    assert (crops.std(axis=1) < 0.01).all()  # rows are alike
    inner = steps[:, 2:-2]
    np.testing.assert_allclose(inner, np.broadcast_to(inner[:, :1], inner.shape), atol=0.01)  # columns rise evenly
    assert 0 < (inner[:, 0] < 0).sum() < 100  # some fall
    widths = np.abs(inner[:, 0])  # of a box, in pixels of the image
    assert widths.min() < 15 < widths.max() <= 30.01


def test_boxes_are_sampled_as_in_torchvision():
    keys, shape = jax.random.split(jax.random.key(1), 4000), (60, 80)
    top, left, height, width = map(np.asarray, jax.jit(jax.vmap(lambda key: views.sample_box(key, shape)))(keys))
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 60).all()
    assert (left + width <= 80).all()
    drawn, random = [], np.random.default_rng(0)
    while len(drawn) < 4000:  # an image that is so wide has no room for the whole of its area
        area, ratio = random.uniform(0.08, 1) * 4800, np.exp(random.uniform(np.log(3 / 4), np.log(4 / 3)))
        if round((area / ratio) ** 0.5) <= 60 and round((area * ratio) ** 0.5) <= 80:
            drawn.append((area / 4800, np.log(ratio)))
    result = np.stack([height * width / 4800, np.log(width / height)], axis=1)
    np.testing.assert_allclose(
        np.quantile(result, [0.1, 0.5, 0.9], 0), np.quantile(drawn, [0.1, 0.5, 0.9], 0), atol=0.03
    )
    for place, room in ((top, 60 - height), (left, 80 - width)):
        assert abs((place / np.maximum(room, 1)).mean() - 0.5) < 0.03


@pytest.mark.parametrize('name', ['random_crop', 'centre_crop_flipped', 'random_resized_crop'])
def test_views_are_in_the_input_range_of_the_networks(name):
    crops = np.asarray(jax.jit(getattr(views, name), static_argnums=2)(KEYS, IMAGES, 6))
    assert crops.shape == (100, 6, 6, 3)
    assert crops.dtype == np.float32
    assert -1 <= crops.min() < -0.9 < 0.9 < crops.max() <= 1.0001
