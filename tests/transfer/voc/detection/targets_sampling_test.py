from functools import partial

import jax
import numpy as np
import pytest

from artifacts_jax.transfer.voc.detection import targets
from tests.models.boxes_test import encode_box
from tests.transfer.voc.detection.targets_test import CLASSES, image, matched

MEANS = np.random.default_rng(0).normal(0, 0.1, (CLASSES, 4)).astype(np.float32)
DEVIATIONS = np.random.default_rng(1).uniform(0.1, 0.3, (CLASSES, 4)).astype(np.float32)


@jax.jit
def sample_rois(key, *arguments):
    return targets.sample_rois(key, *arguments, means=MEANS, deviations=DEVIATIONS)


def list_candidates(arguments):
    """Returns lists of (box, label, target): all foreground RoIs, and all background RoIs."""
    foreground, background = [], []
    for box, n, iou in matched(*arguments):
        label = arguments[3][n]
        if iou >= 0.5:
            target = (np.array(encode_box(box, arguments[2][n])) - MEANS[label]) / DEVIATIONS[label]
            foreground.append((*box, label + 1, *target.round(3)))
        elif iou >= 0.1:
            background.append((*box, 0, 0, 0, 0, 0))
    return foreground, background


def list_rois(sample):
    """Returns the valid RoIs of a sample, in the form of `list_candidates`."""
    boxes, labels, targets, valid = map(np.asarray, sample)
    assert (boxes[~valid] == 0).all()
    assert (labels[~valid] == 0).all()
    assert (targets[~valid] == 0).all()
    return [(*box, label, *target.round(3)) for box, label, target in zip(boxes[valid], labels[valid], targets[valid])]


def is_subset(rois, candidates):
    """Returns whether all RoIs are among the candidates, each candidate used once, up to rounding."""
    remaining = list(candidates)
    for row in rois:
        matches = [n for n, other in enumerate(remaining) if np.allclose(row, other, atol=2e-3)]
        if not matches:
            return False
        remaining.pop(matches[0])
    return True


@pytest.mark.parametrize(
    ('count', 'expected'),
    [
        pytest.param(400, (16, 48), id='enough'),
        pytest.param(60, (16, None), id='too little background'),
        pytest.param(6, (None, None), id='fewer than are sampled'),
    ],
)
def test_rois_are_sampled_from_all_candidates(count, expected):
    arguments = image(2, count)
    foreground, background = list_candidates(arguments)
    sample = sample_rois(jax.random.key(0), *arguments)
    assert [len(x) for x in sample] == [64] * 4
    rois = list_rois(sample)
    kinds = [row for row in rois if row[4]], [row for row in rois if not row[4]]
    assert is_subset(kinds[0], foreground)
    assert is_subset(kinds[1], background)
    most = min(16, len(foreground))
    assert (len(kinds[0]), len(kinds[1])) == (most, min(64 - most, len(background)))
    for n, all_of in zip(expected, (foreground, background)):
        assert n is None or len(all_of) > n  # checks that the parameters produce the intended case


def test_sampling_is_uniform_and_a_function_of_the_key():
    proposals, valid, *objects = image(3, 400)
    once = np.unique(np.concatenate([objects[0], proposals]), axis=0, return_index=True)[1] - len(objects[0])
    once = once[once >= 0]  # each box, but for those of the objects, so that boxes tell what was drawn
    arguments = (proposals[once], valid[once], *objects)
    foreground, background = list_candidates(arguments)
    keys = jax.random.split(jax.random.key(1), 400)
    samples = jax.jit(jax.vmap(sample_rois, (0, *[None] * 5)))(keys, *arguments)
    for kind, all_of, most in ((True, foreground, 16), (False, background, 48)):
        chosen = np.asarray(samples.boxes)[np.asarray(samples.valid & ((samples.labels > 0) == kind))]
        _, times = np.unique(chosen, axis=0, return_counts=True)
        share = min(1, most / len(all_of))
        assert len(times) == len(all_of)
        assert np.abs(times / 400 - share).max() < 5 * np.sqrt(share / 400)
    again = sample_rois(keys[0], *arguments)
    jax.tree.map(np.testing.assert_array_equal, again, jax.tree.map(lambda x: x[0], samples))


@pytest.mark.parametrize('objects', [0, 4])
def test_an_image_without_objects_gives_no_roi(objects):
    proposals, valid, truth, labels, _ = image(4)
    sample = sample_rois(
        jax.random.key(0), proposals, valid, truth[:objects], labels[:objects], np.zeros(objects, bool)
    )
    assert list_rois(sample) == []


def test_an_image_without_proposals_gives_its_objects():
    proposals, valid, *objects = image(5)
    for arguments in ((proposals, np.zeros_like(valid), *objects), (proposals[:0], valid[:0], *objects)):
        rois = list_rois(sample_rois(jax.random.key(0), *arguments))
        assert len(rois) == 3
        assert is_subset(rois, list_candidates((proposals, np.zeros_like(valid), *objects))[0])


def test_the_foreground_fraction_holds_for_another_number_of_rois():
    arguments = image(2, 400)
    sample_rois = jax.jit(partial(targets.sample_rois, means=MEANS, deviations=DEVIATIONS, count=20))
    sample = sample_rois(jax.random.key(0), *arguments)
    assert (sample.labels > 0).sum() == 5
    assert sample.valid.sum() == 20
