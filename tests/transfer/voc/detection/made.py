"""Synthetic objects, detections and detectors for tests."""

import jax
import jax.numpy as jnp
import numpy as np

from artifacts_jax.data.voc import annotations
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.models import architecture
from artifacts_jax.transfer.voc.detection.detections import Detections


def objects(*rows):
    """Makes objects from rows (class name, 0-based box) or (class name, box, is_difficult)."""
    return annotations.make_objects(
        [(NAMES.index(row[0]), [x + 1.0 for x in row[1]], len(row) > 2 and row[2], False) for row in rows]
    )


def detections(*rows):
    """Makes detections from rows (class name, score, 0-based box)."""
    names, scores, boxes = zip(*rows) if rows else ((), (), ())
    return Detections(
        np.array([NAMES.index(name) for name in names], np.int32),
        np.array(scores, np.float32),
        np.array(boxes, np.float32).reshape(-1, 4),
    )


def random_set(random, *, images=6, most=8, classes=3, levels=1000):
    """Returns (objects, detections), one per image; coordinates are small, so that many boxes overlap."""

    def boxes(count):
        corners = random.integers(0, 20, (count, 2))
        return np.concatenate([corners, corners + random.integers(3, 20, (count, 2))], axis=1).astype(np.float32)

    truth, found = [], []
    for _ in range(images):
        count = random.integers(0, most)
        labels = random.integers(0, classes, count).astype(np.int32)
        drawn = boxes(count)
        truth.append(annotations.Objects(labels, drawn + 1, random.random(count) < 0.3, np.zeros(count, bool)))
        near = np.repeat(drawn, 2, axis=0) + random.integers(-3, 4, (2 * count, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2])
        others = random.integers(0, most)
        all_labels = np.concatenate([np.repeat(labels, 2), random.integers(0, classes, others)]).astype(np.int32)
        scores = (random.integers(1, levels, len(all_labels)) / levels).astype(np.float32)
        found.append(Detections(all_labels, scores, np.concatenate([near, boxes(others)]).astype(np.float32)))
    return truth, found


def detector(config):
    """Returns random variables of the configured detector; its classes have different scores."""
    network, image = architecture.make_detector(config, len(NAMES)), jnp.zeros((1, 16, 16, 3))
    init = jax.jit(network.init)
    params = init(jax.random.key(0), image, jnp.zeros((1, 1, 4)), jnp.ones((1, 1), bool))['params']
    for name in ('cls_score', 'bbox_pred'):
        params['head'][name]['kernel'] *= 100
    random = np.random.default_rng(1)
    normal = {'means': random.normal(0, 0.1, (20, 4)), 'deviations': random.uniform(0.1, 0.3, (20, 4))}
    return {'params': {**params, 'targets': jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), normal)}}
