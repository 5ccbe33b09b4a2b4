import math

import jax
import jax.numpy as jnp
import numpy as np

from artifacts_jax.models import boxes as geometry


def drawn(seed, count):
    """Boxes of whole pixels in [0, 40), some of one pixel."""
    corners = np.random.default_rng(seed).integers(0, 40, (count, 2, 2))
    corners.sort(axis=1)
    found = corners.reshape(count, 4).astype(np.float32)
    found[::5, 2:] = found[::5, :2]
    return found


def covered(box):
    """The pixels of a box of whole pixels."""
    x1, y1, x2, y2 = map(int, box)
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


def moved(box, move):
    """A box moved, as Fast R-CNN reads."""
    x1, y1, x2, y2, (dx, dy, dw, dh) = *map(float, box), map(float, move)
    width, height = x2 - x1 + 1e-14, y2 - y1 + 1e-14
    x, y = x1 + 0.5 * width + dx * width, y1 + 0.5 * height + dy * height
    width, height = width * math.exp(dw), height * math.exp(dh)
    return x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height


def move(box, goal):
    """What moves a box to its goal, as Fast R-CNN reads."""
    (x, y, width, height), (goal_x, goal_y, goal_width, goal_height) = (
        ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1 + 1e-14, y2 - y1 + 1e-14)
        for x1, y1, x2, y2 in (map(float, box), map(float, goal))
    )
    return (goal_x - x) / width, (goal_y - y) / height, math.log(goal_width / width), math.log(goal_height / height)


def test_overlap_is_that_of_the_pixels():
    boxes, others = drawn(0, 12), drawn(1, 9)
    expected = [[len(covered(a) & covered(b)) / len(covered(a) | covered(b)) for b in others] for a in boxes]
    found = jax.jit(geometry.iou)(boxes, others)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(jnp.diag(geometry.iou(boxes, boxes)), 1)


def test_boxes_without_area_overlap_nothing():
    odd = np.array([[5, 5, 4, 9], [9, 9, 1, 1], [5, 5, 4, 4]], np.float32)
    np.testing.assert_array_equal(geometry.iou(odd, np.concatenate([odd, drawn(0, 4)])), 0)


def test_moves_are_those_of_the_formulas():
    boxes, goals = drawn(2, 30), drawn(3, 30)
    wide = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    found = np.asarray(jax.jit(geometry.encode)(boxes, goals))
    np.testing.assert_allclose(found, [move(*pair) for pair in zip(boxes, goals)], rtol=1e-4, atol=1e-5)
    assert not wide.all()
    assert np.isfinite(found).all()
    back = jax.jit(geometry.decode)(boxes[wide], found[wide])
    np.testing.assert_allclose(back, goals[wide], atol=1e-4)


def test_a_box_may_have_moves_of_several_classes():
    boxes = drawn(4, 7)
    moves = np.random.default_rng(5).normal(0, 0.5, (7, 3, 4)).astype(np.float32)
    found = jax.jit(geometry.decode)(boxes[:, None], moves)
    expected = [[moved(box, move) for move in each] for box, each in zip(boxes, moves)]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_whatever_a_network_says_a_clipped_box_is_in_the_image():
    boxes = np.array([[0, 0, 9, 9], [3, 3, 3, 3]], np.float32)
    wild = geometry.decode(boxes[:, None], jnp.array([[[1e9, -1e9, 500, 500], [50, 50, 0, -500]]], jnp.float32))
    found = geometry.clip(wild, np.array([20, 30]))
    assert ((found >= 0) & (found <= jnp.array([29, 19, 29, 19]).reshape(1, 1, 4))).all()
    assert (found[..., :2] <= found[..., 2:]).all()


def test_clipping_by_hand():
    boxes = np.array([[-5, -1, 99, 99], [1.5, 2, 3, 4], [40, 2, 50, 4]], np.float32)
    found = geometry.clip(boxes, np.array([20, 30], np.int32))
    np.testing.assert_array_equal(found, [[0, 0, 29, 19], [1.5, 2, 3, 4], [29, 2, 29, 4]])


def test_a_mirrored_box_covers_the_mirrored_pixels():
    boxes = drawn(6, 5)
    found = np.asarray(geometry.flip(boxes, 40))
    for box, other in zip(boxes, found):
        assert covered(other) == {(39 - x, y) for x, y in covered(box)}
    np.testing.assert_array_equal(geometry.flip(found, 40), boxes)


def test_pixels_of_voc_are_counted_from_one():
    whole = np.array([[1, 1, 40, 30]], np.float32)
    np.testing.assert_array_equal(geometry.from_voc(whole), [[0, 0, 39, 29]])


def pixels(box):
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2 + 1) for y in range(y1, y2 + 1)}


def test_pixels_are_counted_on_the_host():
    random = np.random.default_rng(0)
    first, second = (random.integers(0, 8, (count, 4)) for count in (20, 15))
    for boxes in (first, second):
        boxes[:, 2:] = np.maximum(boxes[:, :2], boxes[:, 2:])
    expected = [[len(pixels(a) & pixels(b)) / len(pixels(a) | pixels(b)) for b in second] for a in first]
    np.testing.assert_array_equal(geometry.iou(first * 1.0, second * 1.0), expected)


def test_what_is_no_pixel_wide_overlaps_nothing():
    boxes = np.array([[2, 2, 1, 5], [5, 5, 1, 1], [4, 1, 0, 3]], np.float32)
    assert not geometry.iou(boxes, np.array([[0, 0, 9, 9], [1, 1, 3, 3]], np.float32)).any()
    assert geometry.iou(boxes, np.zeros((0, 4), np.float32)).shape == (3, 0)
