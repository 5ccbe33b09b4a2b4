from functools import partial

import jax
import numpy as np
import pytest

from artifacts_jax.transfer.voc.detection import targets
from tests.models.boxes_test import move
from tests.transfer.voc.detection.targets_test import CLASSES, image, matched

MEANS = np.random.default_rng(0).normal(0, 0.1, (CLASSES, 4)).astype(np.float32)
DEVIATIONS = np.random.default_rng(1).uniform(0.1, 0.3, (CLASSES, 4)).astype(np.float32)


@jax.jit
def draw(key, *arguments):
    return targets.sample_rois(key, *arguments, means=MEANS, deviations=DEVIATIONS)


def listed(arguments):
    """{(box, label, target)} of all foreground and of all background, as they may be drawn."""
    foreground, background = [], []
    for box, n, share in matched(*arguments):
        label = arguments[3][n]
        if share >= 0.5:
            target = (np.array(move(box, arguments[2][n])) - MEANS[label]) / DEVIATIONS[label]
            foreground.append((*box, label + 1, *target.round(3)))
        elif share >= 0.1:
            background.append((*box, 0, 0, 0, 0, 0))
    return foreground, background


def rows(sample):
    """A sample's regions as `listed` has them."""
    boxes, labels, targets, mask = map(np.asarray, sample)
    assert (boxes[~mask] == 0).all()
    assert (labels[~mask] == 0).all()
    assert (targets[~mask] == 0).all()
    return [(*box, label, *target.round(3)) for box, label, target in zip(boxes[mask], labels[mask], targets[mask])]


def close(found, candidates):
    """Whether what is found is among candidates, none of which is taken twice; targets to their rounding."""
    left = list(candidates)
    for row in found:
        where = [n for n, other in enumerate(left) if np.allclose(row, other, atol=2e-3)]
        if not where:
            return False
        left.pop(where[0])
    return True


@pytest.mark.parametrize(
    ('count', 'expected'),
    [
        pytest.param(400, (16, 48), id='enough'),
        pytest.param(60, (16, None), id='too little background'),
        pytest.param(6, (None, None), id='less than is drawn'),
    ],
)
def test_they_are_drawn_from_all_that_may_be(count, expected):
    arguments = image(2, count)
    foreground, background = listed(arguments)
    sample = draw(jax.random.key(0), *arguments)
    assert [len(x) for x in sample] == [64] * 4
    found = rows(sample)
    kinds = [row for row in found if row[4]], [row for row in found if not row[4]]
    assert close(kinds[0], foreground)
    assert close(kinds[1], background)
    most = min(16, len(foreground))
    assert (len(kinds[0]), len(kinds[1])) == (most, min(64 - most, len(background)))
    for n, all_of in zip(expected, (foreground, background)):
        assert n is None or len(all_of) > n  # or the case is not what it says


def test_all_have_the_same_chance_and_the_key_decides():
    proposals, mask, *objects = image(3, 400)
    once = np.unique(np.concatenate([objects[0], proposals]), axis=0, return_index=True)[1] - len(objects[0])
    once = once[once >= 0]  # each box, but for those of the objects, so that boxes tell what was drawn
    arguments = (proposals[once], mask[once], *objects)
    foreground, background = listed(arguments)
    keys = jax.random.split(jax.random.key(1), 400)
    samples = jax.jit(jax.vmap(draw, (0, *[None] * 5)))(keys, *arguments)
    for kind, all_of, most in ((True, foreground, 16), (False, background, 48)):
        chosen = np.asarray(samples.boxes)[np.asarray(samples.mask & ((samples.labels > 0) == kind))]
        _, times = np.unique(chosen, axis=0, return_counts=True)
        share = min(1, most / len(all_of))
        assert len(times) == len(all_of)
        assert np.abs(times / 400 - share).max() < 5 * np.sqrt(share / 400)
    again = draw(keys[0], *arguments)
    jax.tree.map(np.testing.assert_array_equal, again, jax.tree.map(lambda x: x[0], samples))


@pytest.mark.parametrize('objects', [0, 4])
def test_an_image_without_objects_gives_none(objects):
    proposals, mask, truth, labels, _ = image(4)
    sample = draw(jax.random.key(0), proposals, mask, truth[:objects], labels[:objects], np.zeros(objects, bool))
    assert rows(sample) == []


def test_an_image_without_proposals_gives_its_objects():
    proposals, mask, *objects = image(5)
    for arguments in ((proposals, np.zeros_like(mask), *objects), (proposals[:0], mask[:0], *objects)):
        found = rows(draw(jax.random.key(0), *arguments))
        assert len(found) == 3
        assert close(found, listed((proposals, np.zeros_like(mask), *objects))[0])


def test_another_number_has_its_own_quarter():
    arguments = image(2, 400)
    draw = jax.jit(partial(targets.sample_rois, means=MEANS, deviations=DEVIATIONS, count=20))
    sample = draw(jax.random.key(0), *arguments)
    assert (sample.labels > 0).sum() == 5
    assert sample.mask.sum() == 20
