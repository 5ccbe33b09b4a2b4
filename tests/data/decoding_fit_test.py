import numpy as np
import pytest

from artifacts_jax.data import decoding


def test_small_images_are_unchanged():
    image = np.ones((3, 5, 3), np.uint8)
    assert decoding.limit_size(image, 5) is image


@pytest.mark.parametrize('tall', [False, True])
def test_larger_images_are_scaled_down(tall):
    image = np.zeros((40, 80, 3), np.uint8)
    image[8:24, 20:64] = 255
    result = decoding.limit_size(image.transpose(1, 0, 2) if tall else image, 20)
    result = result.transpose(1, 0, 2) if tall else result
    assert result.shape == (10, 20, 3)
    # Antialiased: a pixel is made of more than the four by four that it covers.
    np.testing.assert_array_equal(result[3:5, 6:15], 255)
    assert 0 < result[2, 5, 0] < 255
    np.testing.assert_array_equal(result[:1], 0)


def test_a_strip_keeps_a_pixel():
    assert decoding.limit_size(np.zeros((1, 900, 3), np.uint8), 30).shape == (1, 30, 3)
