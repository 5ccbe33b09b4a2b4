import math

import jax
import jax.numpy as jnp
import numpy as np

from artifacts_jax.models import boxes as geometry


def sample_boxes(seed, count):
    """Returns boxes with integer coordinates in [0, 40); some have one pixel."""
    corners = np.random.default_rng(seed).integers(0, 40, (count, 2, 2))
    corners.sort(axis=1)
    result = corners.reshape(count, 4).astype(np.float32)
    result[::5, 2:] = result[::5, :2]
    return result


def pixels_of(box):
    """Returns the set of pixels of a box with integer coordinates."""
    x1, y1, x2, y2 = map(int, box)
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


def decode_box(box, delta):
    """Applies the deltas to a box, by the formulas of Fast R-CNN."""
    x1, y1, x2, y2, (dx, dy, dw, dh) = *map(float, box), map(float, delta)
    width, height = x2 - x1 + 1e-14, y2 - y1 + 1e-14
    x, y = x1 + 0.5 * width + dx * width, y1 + 0.5 * height + dy * height
    width, height = width * math.exp(dw), height * math.exp(dh)
    return x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height


def encode_box(box, target):
    """Returns the deltas from a box to its target, by the formulas of Fast R-CNN."""
    (x, y, width, height), (target_x, target_y, target_width, target_height) = (
        ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 + 1e-14, y2 - y1 + 1e-14)
        for x1, y1, x2, y2 in (map(float, box), map(float, target))
    )
    return (
        (target_x - x) / width,
        (target_y - y) / height,
        math.log(target_width / width),
        math.log(target_height / height),
    )


def test_iou_equals_the_iou_of_pixel_sets():
    boxes, others = sample_boxes(0, 12), sample_boxes(1, 9)
    expected = [[len(pixels_of(a) & pixels_of(b)) / len(pixels_of(a) | pixels_of(b)) for b in others] for a in boxes]
    result = jax.jit(geometry.iou)(boxes, others)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_array_equal(jnp.diag(geometry.iou(boxes, boxes)), 1)


def test_boxes_without_area_overlap_nothing():
    empty = np.array([[5, 5, 4, 9], [9, 9, 1, 1], [5, 5, 4, 4]], np.float32)
    np.testing.assert_array_equal(geometry.iou(empty, np.concatenate([empty, sample_boxes(0, 4)])), 0)


def test_encode_equals_the_formulas_and_decode_inverts_it():
    boxes, targets = sample_boxes(2, 30), sample_boxes(3, 30)
    wide = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    result = np.asarray(jax.jit(geometry.encode)(boxes, targets))
    np.testing.assert_allclose(result, [encode_box(*pair) for pair in zip(boxes, targets)], rtol=1e-4, atol=1e-5)
    assert not wide.all()
    assert np.isfinite(result).all()
    decoded = jax.jit(geometry.decode)(boxes[wide], result[wide])
    np.testing.assert_allclose(decoded, targets[wide], atol=1e-4)


def test_a_box_can_have_deltas_of_several_classes():
    boxes = sample_boxes(4, 7)
    deltas = np.random.default_rng(5).normal(0, 0.5, (7, 3, 4)).astype(np.float32)
    result = jax.jit(geometry.decode)(boxes[:, None], deltas)
    expected = [[decode_box(box, delta) for delta in per_class] for box, per_class in zip(boxes, deltas)]
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-4)


def test_extreme_predictions_are_clipped_to_the_image():
    boxes = np.array([[0, 0, 9, 9], [3, 3, 3, 3]], np.float32)
    predicted = geometry.decode(boxes[:, None], jnp.array([[[1e9, -1e9, 500, 500], [50, 50, 0, -500]]], jnp.float32))
    result = geometry.clip(predicted, np.array([20, 30]))
    assert ((result >= 0) & (result <= jnp.array([29, 19, 29, 19]).reshape(1, 1, 4))).all()
    assert (result[..., :2] <= result[..., 2:]).all()


def test_clip_examples():
    boxes = np.array([[-5, -1, 99, 99], [1.5, 2, 3, 4], [40, 2, 50, 4]], np.float32)
    result = geometry.clip(boxes, np.array([20, 30], np.int32))
    np.testing.assert_array_equal(result, [[0, 0, 29, 19], [1.5, 2, 3, 4], [29, 2, 29, 4]])


def test_a_flipped_box_covers_the_flipped_pixels():
    boxes = sample_boxes(6, 5)
    result = np.asarray(geometry.flip(boxes, 40))
    for box, other in zip(boxes, result):
        assert pixels_of(other) == {(39 - x, y) for x, y in pixels_of(box)}
    np.testing.assert_array_equal(geometry.flip(result, 40), boxes)


def test_pixels_of_voc_are_counted_from_one():
    whole = np.array([[1, 1, 40, 30]], np.float32)
    np.testing.assert_array_equal(geometry.from_voc(whole), [[0, 0, 39, 29]])


def pixels(box):
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


def test_iou_of_numpy_arrays():
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 8, (count, 4)) for count in (20, 15))
    for boxes in (first, second):
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    expected = [[len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) for b in second] for a in first]
    np.testing.assert_array_equal(geometry.iou(first * 1.0, second * 1.0), expected)


def test_numpy_boxes_without_area_overlap_nothing():
    boxes = np.array([[2, 2, 1, 5], [5, 5, 1, 1], [4, 1, 0, 3]], np.float32)
    assert not geometry.iou(boxes, np.array([[0, 0, 9, 9], [1, 1, 3, 3]], np.float32)).any()
    assert geometry.iou(boxes, np.zeros((0, 4), np.float32)).shape == (3, 0)
