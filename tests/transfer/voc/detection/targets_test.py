import types
from functools import reduce

import jax
import jax.numpy as jnp
import numpy as np

from artifacts_jax.data.voc import annotations
from artifacts_jax.models import boxes as geometry
from artifacts_jax.transfer.voc.detection import targets
from tests.models.boxes_test import encode_box, pixels_of

CLASSES, WIDTH = 4, 40
match_objects = jax.jit(targets.match_objects)
compute_moments = jax.jit(targets.compute_moments, static_argnames='classes')


def image(seed, count=60, objects=4):
    """Returns the arguments of compute_moments: proposals near the objects and elsewhere, some of both invalid."""
    random = np.random.default_rng(seed)
    corners = random.integers(0, 20, (objects, 2))
    truth = np.concatenate([corners, corners + random.integers(5, 19, (objects, 2))], axis=1)
    near = truth[random.integers(0, objects, count)] + random.integers(-3, 4, (count, 4))
    anywhere = np.sort(random.integers(0, WIDTH, (count // 3, 2, 2)), axis=1).reshape(-1, 4)
    near[: count // 3] = anywhere
    proposals = np.clip(near, 0, WIDTH - 1)
    labels = random.integers(0, CLASSES - 1, objects)  # the last class has no objects
    valid_proposals, valid_objects = random.uniform(size=count) < 0.9, np.arange(objects) < objects - 1
    return (
        proposals.astype(np.float32),
        valid_proposals,
        truth.astype(np.float32),
        labels.astype(np.int32),
        valid_objects,
    )


def matched(proposals, valid_proposals, objects, labels, valid_objects):
    """Yields (box, index of its object, IoU) of each valid RoI."""
    del labels
    valid_indices = [n for n in range(len(objects)) if valid_objects[n]]
    rois = [(objects[n], n) for n in valid_indices] + [(box, None) for box in proposals[valid_proposals]]
    for box, own in rois:
        ious = [
            len(pixels_of(box) & pixels_of(objects[n])) / len(pixels_of(box) | pixels_of(objects[n]))
            for n in valid_indices
        ]
        n = valid_indices[int(np.argmax(ious))] if own is None else own
        yield box, n, max(ious)


def test_rois_are_matched_with_the_object_they_overlap_most():
    proposals, valid_proposals, objects, _, valid_objects = arguments = image(0)
    found = match_objects(proposals, valid_proposals, objects, valid_objects)
    valid = np.concatenate([valid_objects, valid_proposals])
    assert (np.asarray(found.iou)[~valid] == -1).all()
    for row, (box, n, iou) in zip(np.flatnonzero(valid), matched(*arguments), strict=True):
        np.testing.assert_array_equal(found.boxes[row], box)
        np.testing.assert_allclose(found.iou[row], iou, rtol=1e-6)
        if iou:
            assert found.objects[row] == n


def test_objects_with_the_same_box_match_themselves():
    box = np.float32([[1, 2, 10, 12]] * 2)
    found = match_objects(box[:1], np.array([True]), box, np.array([True, True]))
    assert found.objects.tolist() == [0, 1, 0]


def test_statistics_cover_all_foreground_and_its_mirror_images():
    images = [image(seed) for seed in range(3)]
    deltas = [[] for _ in range(CLASSES)]
    for arguments in images:
        for box, n, iou in matched(*arguments):
            if iou >= 0.5:
                goal, label = arguments[2][n], arguments[3][n]
                for mirrored in (False, True):
                    pair = [np.asarray(geometry.flip(x, WIDTH)) if mirrored else x for x in (box, goal)]
                    deltas[label].append(encode_box(*pair))
    sums = [jax.tree.map(np.float64, compute_moments(*arguments, classes=CLASSES)) for arguments in images]
    sums = targets.add_mirrored(reduce(lambda a, b: jax.tree.map(np.add, a, b), sums))
    means, deviations = targets.compute_statistics(sums)
    assert sums.count.tolist() == [len(each) for each in deltas]
    assert min(sums.count[:-1]) > 5
    np.testing.assert_allclose(means[:-1], [np.mean(each, axis=0) for each in deltas[:-1]], atol=1e-6)
    np.testing.assert_allclose(deviations[:-1], [np.std(each, axis=0) for each in deltas[:-1]], rtol=1e-4)
    assert (means[-1] == 0).all()
    assert (deviations[-1] == 1).all()


def test_equal_deltas_have_deviation_one():
    box = np.float32([[0, 0, 9, 9], [1, 0, 10, 9]])
    sums = compute_moments(
        box[1:], np.array([True]), box[:1], np.zeros(1, np.int32), np.array([True]), classes=1
    )._replace(count=np.ones(1))
    means, deviations = targets.compute_statistics(sums)
    np.testing.assert_allclose(means, [[-1 / 9, 0, 0, 0]], rtol=1e-6)
    np.testing.assert_array_equal(deviations, np.ones((1, 4)))


def test_images_without_objects_have_no_foreground():
    proposals, valid_proposals, objects, labels, valid_objects = image(1)
    for few in (slice(0, 0), slice(None)):
        nothing = objects[few], labels[few], np.zeros_like(valid_objects[few])
        found = compute_moments(proposals, valid_proposals, *nothing, classes=CLASSES)
        assert all((np.asarray(x) == 0).all() for x in found)
        iou = match_objects(proposals, valid_proposals, nothing[0], nothing[2]).iou
        assert jnp.unique(iou).tolist() == [-1, 0]


def test_statistics_of_a_split_cover_all_its_images(monkeypatch):
    monkeypatch.setattr(targets, 'PADDING_MULTIPLE', 32)
    records, proposals, sums = [], [], None
    for seed in range(3):
        boxes, valid_proposals, objects, labels, valid_objects = image(seed, count=20 + 20 * seed)
        truth = annotations.Objects(labels.astype(np.int32), objects + 1, labels > 0, labels > 0)  # difficult ones, too
        records.append(types.SimpleNamespace(objects=truth))
        proposals.append(boxes)
        every = boxes, np.ones_like(valid_proposals), objects, labels, np.ones_like(valid_objects)
        found = jax.tree.map(np.float64, compute_moments(*every, classes=20))
        sums = found if sums is None else jax.tree.map(np.add, sums, found)
    records.append(types.SimpleNamespace(objects=annotations.make_objects([])))
    proposals.append(np.zeros((0, 4), np.float32))
    expected = targets.compute_statistics(targets.add_mirrored(sums))
    for ours, theirs in zip(targets.compute_split_statistics(records, proposals), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
