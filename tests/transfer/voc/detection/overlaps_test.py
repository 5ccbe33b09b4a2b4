import numpy as np

from artifacts_jax.transfer.voc.detection import overlaps


def pixels(box):
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


def test_pixels_are_counted():
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 8, (count, 4)) for count in (20, 15))
    for boxes in (first, second):
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    expected = [[len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) for b in second] for a in first]
    np.testing.assert_array_equal(overlaps.pairs(first * 1.0, second * 1.0), expected)


def test_what_is_no_pixel_wide_overlaps_nothing():
    boxes = np.array([[2, 2, 1, 5], [5, 5, 1, 1], [4, 1, 0, 3]], np.float32)
    assert not overlaps.pairs(boxes, np.array([[0, 0, 9, 9], [1, 1, 3, 3]], np.float32)).any()
    assert overlaps.pairs(boxes, np.zeros((0, 4), np.float32)).shape == (3, 0)
