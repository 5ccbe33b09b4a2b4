import numpy as np
import pytest

from artifacts_jax.transfer.voc import canvas

NONE = np.zeros((0, 4), np.float32)


def test_what_fits_is_kept_as_it_is():
    image, boxes = np.ones((3, 5, 3), np.uint8), np.ones((2, 4), np.float32)
    found = canvas.fit(image, boxes, 5)
    assert found[0] is image
    assert found[1] is boxes
    placed = canvas.place(image, 5)
    np.testing.assert_array_equal(placed[:3], 1)
    np.testing.assert_array_equal(placed[3:], 0)


@pytest.mark.parametrize('tall', [False, True])
def test_larger_images_are_scaled_with_their_boxes(tall):
    image = np.zeros((40, 80, 3), np.uint8)
    image[8:24, 20:64] = 255
    box = np.array([[21, 9, 64, 24], [1, 1, 80, 40]], np.float32)
    image, box = (image.transpose(1, 0, 2), box[:, [1, 0, 3, 2]]) if tall else (image, box)
    found, boxes = canvas.fit(image, box, 20)
    (found, boxes) = (found.transpose(1, 0, 2), boxes[:, [1, 0, 3, 2]]) if tall else (found, boxes)
    assert found.shape == (10, 20, 3)
    np.testing.assert_allclose(boxes, [[6, 3, 16, 6], [1, 1, 20, 10]])
    # Antialiased: a pixel is made of more than the four by four that it covers.
    np.testing.assert_array_equal(found[3:5, 6:15], 255)
    assert 0 < found[2, 5, 0] < 255
    np.testing.assert_array_equal(found[:1], 0)


def test_a_strip_keeps_a_pixel():
    assert canvas.fit(np.zeros((1, 900, 3), np.uint8), NONE, 30)[0].shape == (1, 30, 3)
