import numpy as np
import pytest

from artifacts_jax.data import decoding


def test_what_fits_is_kept_as_it_is():
    image = np.ones((3, 5, 3), np.uint8)
    assert decoding.limit_size(image, 5) is image


@pytest.mark.parametrize('tall', [False, True])
def test_larger_images_are_scaled_down(tall):
    image = np.zeros((40, 80, 3), np.uint8)
    image[8:24, 20:64] = 255
    found = decoding.limit_size(image.transpose(1, 0, 2) if tall else image, 20)
    found = found.transpose(1, 0, 2) if tall else found
    assert found.shape == (10, 20, 3)
    # Antialiased: a pixel is made of more than the four by four that it covers.
    np.testing.assert_array_equal(found[3:5, 6:15], 255)
    assert 0 < found[2, 5, 0] < 255
    np.testing.assert_array_equal(found[:1], 0)


def test_a_strip_keeps_a_pixel():
    assert decoding.limit_size(np.zeros((1, 900, 3), np.uint8), 30).shape == (1, 30, 3)
