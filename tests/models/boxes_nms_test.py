import jax
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from artifacts_jax.models import boxes as geometry

nms = jax.jit(geometry.nms, static_argnames='threshold')


def sample_boxes(seed, count, levels=1000):
    """Returns (boxes with integer coordinates, scores). Many boxes overlap; with few levels, many scores are equal."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 40, (count, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + random.integers(0, 30, (count, 2))], axis=1).astype(np.float32)
    scores = random.choice(levels, count, replace=levels < count) / np.float32(levels)
    return boxes, scores.astype(np.float32)


def reference_nms(boxes, scores, threshold):
    """Returns the mask of the retained boxes, computed by a plain loop."""
    retained = []
    for n in np.argsort(-scores, kind='stable'):
        x1, y1, x2, y2 = boxes[n].astype(float)
        for m in retained:
            a1, b1, a2, b2 = boxes[m].astype(float)
            intersection = max(min(x2, a2) - max(x1, a1) + 1, 0) * max(min(y2, b2) - max(y1, b1) + 1, 0)
            union = (x2 - x1 + 1) * (y2 - y1 + 1) + (a2 - a1 + 1) * (b2 - b1 + 1) - intersection
            if intersection / union >= threshold:
                break
        else:
            retained.append(n)
    return np.isin(np.arange(len(boxes)), retained)


def onnx_nms(boxes, scores, threshold):
    """Returns the mask of onnxruntime, whose boxes end one pixel later; it suppresses only above the threshold."""
    types = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    names = [[helper.make_tensor_value_info(n, t, None) for n in group] for group, t in zip(('bs', 'k'), types)]
    node = helper.make_node('NonMaxSuppression', ['b', 's', 'max', 'iou'], ['k'])
    constants = [
        numpy_helper.from_array(np.array([1000]), 'max'),
        numpy_helper.from_array(np.float32([threshold]), 'iou'),
    ]
    graph = helper.make_graph([node], 'graph', *names, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=['CPUExecutionProvider'])
    corners = (boxes + np.float32([0, 0, 1, 1]))[:, [1, 0, 3, 2]]
    (retained,) = session.run(None, {'b': corners[None], 's': scores[None, None]})
    return np.isin(np.arange(len(boxes)), retained[:, 2])


@pytest.mark.parametrize('seed', range(3))
def test_nms_equals_onnxruntime_and_a_plain_loop(seed):
    boxes, scores = sample_boxes(seed, 100)
    retained = nms(boxes, scores, np.ones(100, bool), threshold=0.3)
    np.testing.assert_array_equal(retained, onnx_nms(boxes, scores, 0.2999999))
    np.testing.assert_array_equal(retained, reference_nms(boxes, scores, 0.3))
    assert 5 < retained.sum() < 80


def test_vmap_over_classes_with_ties_and_padding():
    samples = [sample_boxes(seed, 60, levels=5) for seed in range(4)]
    boxes, scores = map(np.stack, zip(*samples))
    valid = np.random.default_rng(9).uniform(size=scores.shape) < 0.7
    valid[3] = False
    retained = np.asarray(jax.jit(jax.vmap(geometry.nms))(boxes, scores, valid))
    for n in range(4):
        expected = np.zeros(60, bool)
        expected[valid[n]] = reference_nms(boxes[n][valid[n]], scores[n][valid[n]], 0.3)
        np.testing.assert_array_equal(retained[n], expected)


def test_iou_equal_to_the_threshold_suppresses_and_suppressed_boxes_do_not():
    row = np.float32([[0, 0, 9, 0], [7, 0, 9, 0], [0, 1, 9, 1]])  # IoU 3 / 10 with the first
    scores, all_valid = np.float32([0.9, 0.8, 0.7]), np.ones(3, bool)
    assert nms(row, scores, all_valid, threshold=0.3).tolist() == [True, False, True]
    assert nms(row, scores, all_valid, threshold=0.31).tolist() == [True, True, True]
    # Each box suppresses the next one, unless it is suppressed itself.
    chain = np.float32([[x, 0, x + 9, 9] for x in (0, 4, 8, 12)])
    assert nms(chain, np.float32([4, 3, 2, 1]), np.ones(4, bool), threshold=0.3).tolist() == [True, False, True, False]


def test_a_long_chain_of_overlaps():
    boxes = np.float32([[4 * n, 0, 4 * n + 9, 9] for n in range(100)])
    retained = nms(boxes, -np.arange(100, dtype=np.float32), np.ones(100, bool), threshold=0.3)
    np.testing.assert_array_equal(retained, np.arange(100) % 2 == 0)


def test_boxes_without_area_are_retained():
    boxes = np.float32([[5, 5, 4, 4]] * 3)
    valid = np.array([True, True, False])
    np.testing.assert_array_equal(nms(boxes, np.ones(3, np.float32), valid, threshold=0.3), valid)
