import heapq

import numpy as np
import pytest

from artifacts_jax.models import boxes as geometry
from artifacts_jax.transfer.voc.detection import detector

CLASSES = 3


@pytest.fixture
def small_limits(monkeypatch):
    monkeypatch.setattr(detector, 'MAX_BOXES', 6)
    monkeypatch.setattr(detector, 'MEAN_BOXES', 3)


def make_outputs(random, count):
    corners = random.integers(0, 20, (count, CLASSES, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 20, corners.shape)], axis=2)
    return (random.integers(1, 60, (count, CLASSES)) / 64).astype(np.float32), boxes.astype(np.float32)


def select_slowly(images, max_boxes, mean_boxes):
    """Selects detections as the published code does: image by image, with a rising minimum score."""
    heaps, thresholds, candidates_of_images = [[] for _ in range(CLASSES)], np.full(CLASSES, -np.inf), []
    for scores, boxes in images:
        candidates_of_images.append([])
        for k in range(CLASSES):
            rows = np.flatnonzero(scores[:, k] > thresholds[k])
            rows = rows[np.argsort(-scores[rows, k], kind='stable')][:max_boxes]
            for row in rows:
                heapq.heappush(heaps[k], scores[row, k])
            while len(heaps[k]) > mean_boxes * len(images):
                heapq.heappop(heaps[k])
                thresholds[k] = heaps[k][0]
            candidates_of_images[-1].append([(scores[row, k], boxes[row, k]) for row in rows])
    detections = []
    for image in candidates_of_images:
        rows = []
        for k, candidates in enumerate(image):
            selected = []
            for score, box in candidates:
                others = np.array([other for _, other in selected]).reshape(-1, 4)
                if score > thresholds[k] and not (geometry.iou(box[None], others) >= 0.3).any():
                    selected.append((score, box))
            rows += [(k, score, box) for score, box in selected]
        detections.append(rows)
    return detections


def test_detections_equal_a_slow_implementation(small_limits):
    random = np.random.default_rng(0)
    for counts in ([20, 0, 3, 30], [1, 2], [9] * 10):
        images = [make_outputs(random, count) for count in counts]
        found = detector.select_detections([detector.select_candidates(*image) for image in images])
        for each, rows in zip(found, select_slowly(images, 6, 3), strict=True):
            assert each.labels.tolist() == [row[0] for row in rows]
            np.testing.assert_array_equal(each.scores, np.array([row[1] for row in rows], np.float32))
            np.testing.assert_array_equal(each.boxes, np.array([row[2] for row in rows], np.float32).reshape(-1, 4))


def test_without_proposals_there_are_no_detections():
    assert detector.select_detections([]) == []
    candidates = detector.select_candidates(np.zeros((0, 20), np.float32), np.zeros((0, 20, 4), np.float32))
    (detections,) = detector.select_detections([candidates])
    assert len(detections.labels) == len(detections.scores) == len(detections.boxes) == 0
