import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from artifacts_jax.models import boxes as geometry

keep = jax.jit(geometry.nms, static_argnames='threshold')


def drawn(seed, count, levels=1000):
    """(boxes of whole pixels, scores) of which many overlap; with few levels, many scores are equal."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 40, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.integers(0, 30, (count, 2))], axis=1).astype(np.float32)
    scores = random.choice(levels, count, replace=levels < count) / np.float32(levels)
    return boxes, scores.astype(np.float32)


def slowly(boxes, scores, threshold):
    """Which boxes are left, one after another."""
    kept = []
    for n in np.argsort(-scores, kind='stable'):
        x1, y1, x2, y2 = boxes[n].astype(float)
        for m in kept:
            a1, b1, a2, b2 = boxes[m].astype(float)
            common = max(min(x2, a2) - max(x1, a1) + 1, 0) * max(min(y2, b2) - max(y1, b1) + 1, 0)
            union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - common
            if common / union >= threshold:
                break
        else:
            kept.append(n)
    return np.isin(np.arange(len(boxes)), kept)


def onnx_kept(boxes, scores, threshold):
    """What onnxruntime keeps of boxes whose far edges are moved by one; it drops an IoU above the threshold alone."""
    types = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    names = [[helper.make_tensor_value_info(n, t, None) for n in part] for part, t in zip(('bs', 'k'), types)]
    node = helper.make_node('NonMaxSuppression', ['b', 's', 'most', 'iou'], ['k'])
    constants = [
        numpy_helper.from_array(np.array([1000]), 'most'),
        numpy_helper.from_array(np.float32([threshold]), 'iou'),
    ]
    graph = helper.make_graph([node], 'graph', *names, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    moved = (boxes + np.float32([0, 0, 1, 1]))[:, [1, 0, 3, 2]]
    (found,) = session.run(None, {'b': moved[None], 's': scores[None, None]})
    return np.isin(np.arange(len(boxes)), found[:, 2])


@pytest.mark.parametrize('seed', range(3))
def test_it_is_that_of_onnxruntime(seed):
    boxes, scores = drawn(seed, 100)
    found = keep(boxes, scores, np.ones(100, bool), threshold=0.3)
    np.testing.assert_array_equal(found, onnx_kept(boxes, scores, 0.2999999))
    np.testing.assert_array_equal(found, slowly(boxes, scores, 0.3))
    assert 5 < found.sum() < 80


def test_classes_are_apart_and_of_equal_scores_the_first_comes_first():
    each = [drawn(seed, 60, levels=5) for seed in range(4)]
    boxes, scores = map(np.stack, zip(*each))
    mask = np.random.default_rng(9).uniform(size=scores.shape) < 0.7
    mask[3] = False
    found = np.asarray(jax.jit(jax.vmap(geometry.nms))(boxes, scores, mask))
    for n in range(4):
        expected = np.zeros(60, bool)
        expected[mask[n]] = slowly(boxes[n][mask[n]], scores[n][mask[n]], 0.3)
        np.testing.assert_array_equal(found[n], expected)


def test_an_overlap_of_just_the_threshold_drops_and_what_is_dropped_drops_nothing():
    row = np.float32([[0, 0, 9, 0], [7, 0, 9, 0], [0, 1, 9, 1]])  # 3 / 10 of the first
    scores, all_three = np.float32([0.9, 0.8, 0.7]), np.ones(3, bool)
    assert keep(row, scores, all_three, threshold=0.3).tolist() == [True, False, True]
    assert keep(row, scores, all_three, threshold=0.31).tolist() == [True, True, True]
    chain = np.float32([[x, 0, x + 9, 9] for x in (0, 4, 8, 12)])  # each drops the next but for those dropped
    assert keep(chain, np.float32([4, 3, 2, 1]), np.ones(4, bool), threshold=0.3).tolist() == [True, False, True, False]


def test_a_long_chain_is_followed_to_its_end():
    boxes = np.float32([[4 * n, 0, 4 * n + 9, 9] for n in range(100)])
    found = keep(boxes, -np.arange(100, dtype=np.float32), np.ones(100, bool), threshold=0.3)
    np.testing.assert_array_equal(found, np.arange(100) % 2 == 0)


def test_boxes_of_no_area_are_left_alone():
    boxes = np.float32([[5, 5, 4, 4]] * 3)
    mask = np.array([True, True, False])
    np.testing.assert_array_equal(keep(boxes, np.ones(3, np.float32), mask, threshold=0.3), mask)
