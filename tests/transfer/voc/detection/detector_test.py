import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.data.voc import devkit
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import architecture, fast_rcnn
from artifacts_jax.models.discriminator import CHANNEL_MEANS, preprocess
from artifacts_jax.transfer.voc.detection import batches, detector, scales
from tests.transfer.voc import trees
from tests.transfer.voc.detection import made

SIZES = [(20, 24), (24, 20), (20, 24)]
COUNTS = [9, 0, 4]


@pytest.fixture
def images(tmp_path):
    """Returns make_images(*shorter_sides): images of noise with proposals."""
    for n, size in enumerate(SIZES):
        trees.add(tmp_path, f'{n}', trees.annotation(trees.an_object('cat'), size=size), size=size)
    trees.listed(tmp_path, 'test', *(f'{n}' for n in range(len(SIZES))))
    records, random = devkit.open_voc(str(tmp_path), ['test'])['test'], np.random.default_rng(0)
    corners = [random.integers(0, 8, (count, 2)) for count in COUNTS]
    boxes = [np.concatenate([x, x + random.integers(3, 11, x.shape)], axis=1).astype(np.float32) for x in corners]
    return lambda *shorter: batches.Images(
        records=records, proposals=boxes, shorter_sides=shorter, longest=80, max_proposals=4, workers=2, seed=0
    )


@pytest.fixture
def variables(config):
    config.voc_detection.update(hidden=8, boxes=4)
    return made.detector(config)


def slow(config, variables, images, row):
    """Returns (scores, predicted boxes) of each proposal of an image, computed one at a time."""
    model, record, found = architecture.make_detector(config, len(NAMES)), images.records[row], []
    for box in images.proposals[row]:
        factors = [scales.compute_scale(record.size, shorter, images.longest) for shorter in images.shorter_sides]
        area = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
        level = int(np.argmin([abs(area * factor**2 - 224**2) for factor in factors]))
        batch = images.test_batch(row, 1)
        seen = fast_rcnn.preprocess(batch[f'image_{level}'], batch[f'size_{level}'])
        scaled = jnp.asarray(box[None, None] * np.float32(factors[level]))
        scores, deltas = jax.jit(model.apply)({'params': variables['params']}, seen, scaled, jnp.ones((1, 1), bool))
        normal = variables['params']['targets']
        deltas = np.asarray(deltas[0, 0, 1:] * normal['deviations'] + normal['means'])
        sides, centre = box[2:] - box[:2], (box[2:] + box[:2]) / 2
        middle, half = centre + deltas[:, :2] * sides, np.exp(deltas[:, 2:]) * sides / 2
        last = np.array(record.size)[::-1] - 1
        decoded = np.clip(np.concatenate([middle - half, middle + half], axis=1), 0, np.tile(last, 2))
        found.append((np.asarray(jax.nn.softmax(scores[0, 0]))[1:], decoded))
    return found


@pytest.mark.slow
@pytest.mark.parametrize('shorter', [(20,), (20, 40)])
def test_it_equals_a_slow_implementation(shorter, config, variables, images, monkeypatch):
    monkeypatch.setattr(detector, 'select_detections', lambda candidates: candidates)
    monkeypatch.setattr(detector, 'deduplicate_rois', lambda boxes, *_: 2 * (np.arange(len(boxes)),))
    found = detector.make_detect_fn(config, Devices('jit', jax.devices()[:1]))(variables, images(*shorter))
    assert list(found) == [0, 1, 2]
    for row, each in found.items():
        expected = slow(config, variables, images(*shorter), row)
        scores = np.array([x for x, _ in expected], np.float32).reshape(-1, 20)
        boxes = np.array([x for _, x in expected], np.float32).reshape(-1, 20, 4)
        reference = detector.select_candidates(scores, boxes)
        np.testing.assert_array_equal(each.valid, reference.valid)
        np.testing.assert_allclose(each.scores, reference.scores, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(each.boxes, reference.boxes, rtol=1e-4, atol=1e-3)


def test_padding_is_zero_after_the_subtraction_of_the_means():
    image = np.full((2, 4, 6, 3), 200, np.uint8)
    seen = np.asarray(preprocess(fast_rcnn.preprocess(image, np.array([[2, 3], [4, 6]], np.int32))))
    np.testing.assert_allclose(seen[0, :2, :3], np.full((2, 3, 3), 200) - CHANNEL_MEANS, atol=1e-4)
    np.testing.assert_allclose(seen[0, 2:], 0, atol=1e-4)
    np.testing.assert_allclose(seen[0, :, 3:], 0, atol=1e-4)
    np.testing.assert_allclose(seen[1], np.full((4, 6, 3), 200) - CHANNEL_MEANS, atol=1e-4)


def test_each_box_has_the_scale_that_makes_its_area_closest_to_224_squared():
    boxes = np.array([[0, 0, 223, 223], [0, 0, 111, 111], [10, 5, 29, 24], [0, 0, 499, 374]], np.float32)
    assert detector.choose_scales(boxes, [1.0, 1.5, 2.0]).tolist() == [0, 2, 2, 0]
    assert detector.choose_scales(boxes, [1.6]).tolist() == [0, 0, 0, 0]


def test_boxes_on_the_same_cells_are_deduplicated():
    boxes = np.array([[0, 0, 31, 31], [50, 0, 99, 31], [1, 2, 33, 30], [0, 0, 31, 31]], np.float32)
    first, inverse = detector.deduplicate_rois(boxes, np.zeros(4, int), [1.0], 1 / 16)
    assert sorted(first.tolist()) == [0, 1]
    assert first[inverse].tolist() == [0, 1, 0, 0]
    first, inverse = detector.deduplicate_rois(boxes, np.array([0, 0, 1, 0]), [1.0, 1.0], 1 / 16)
    assert first[inverse].tolist() == [0, 1, 2, 0]
