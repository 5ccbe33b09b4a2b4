import heapq

import numpy as np
import pytest

from artifacts_jax.models import boxes as geometry
from artifacts_jax.transfer.voc.detection import detector

CLASSES = 3


@pytest.fixture
def few(monkeypatch):
    monkeypatch.setattr(detector, 'MAX_BOXES', 6)
    monkeypatch.setattr(detector, 'MEAN_BOXES', 3)


def drawn(random, count):
    corners = random.integers(0, 20, (count, CLASSES, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 20, corners.shape)], axis=2)
    return (random.integers(1, 60, (count, CLASSES)) / 64).astype(np.float32), boxes.astype(np.float32)


def slow(images, most, average):
    """As it is published: image by image, with a least score that rises."""
    heaps, least, kept = [[] for _ in range(CLASSES)], np.full(CLASSES, -np.inf), []
    for scores, boxes in images:
        kept.append([])
        for k in range(CLASSES):
            rows = np.flatnonzero(scores[:, k] > least[k])
            rows = rows[np.argsort(-scores[rows, k], kind='stable')][:most]
            for row in rows:
                heapq.heappush(heaps[k], scores[row, k])
            while len(heaps[k]) > average * len(images):
                heapq.heappop(heaps[k])
                least[k] = heaps[k][0]
            kept[-1].append([(scores[row, k], boxes[row, k]) for row in rows])
    found = []
    for image in kept:
        rows = []
        for k, candidates in enumerate(image):
            chosen = []
            for score, box in candidates:
                others = np.array([other for _, other in chosen]).reshape(-1, 4)
                if score > least[k] and not (geometry.iou(box[None], others) >= 0.3).any():
                    chosen.append((score, box))
            rows += [(k, score, box) for score, box in chosen]
        found.append(rows)
    return found


def test_detections_are_those_of_a_slow_twin(few):
    random = np.random.default_rng(0)
    for counts in ([20, 0, 3, 30], [1, 2], [9] * 10):
        images = [drawn(random, count) for count in counts]
        found = detector.select_detections([detector.select_candidates(*image) for image in images])
        for each, rows in zip(found, slow(images, 6, 3), strict=True):
            assert each.labels.tolist() == [row[0] for row in rows]
            np.testing.assert_array_equal(each.scores, np.array([row[1] for row in rows], np.float32))
            np.testing.assert_array_equal(each.boxes, np.array([row[2] for row in rows], np.float32).reshape(-1, 4))


def test_without_proposals_there_are_no_detections():
    assert detector.select_detections([]) == []
    candidates = detector.select_candidates(np.zeros((0, 20), np.float32), np.zeros((0, 20, 4), np.float32))
    (found,) = detector.select_detections([candidates])
    assert len(found.labels) == len(found.scores) == len(found.boxes) == 0
