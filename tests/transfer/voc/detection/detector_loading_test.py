import jax
import numpy as np
import pytest

import artifacts_jax
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import records
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports
from artifacts_jax.transfer.voc.detection import batches, detector
from tests.conftest import tiny
from tests.transfer.voc.detection import made

BOXES = np.array([(2, 3, 14, 12), (0, 0, 23, 19), (5, 5, 9, 17)], np.float32)


@pytest.fixture(scope='module')
def image():
    return np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    """(variables of a detector, configuration, folder of the export)."""
    config, folder = tiny(), tmp_path_factory.mktemp('detector')
    config.voc_detection.update(hidden=8, boxes=4, scales=(24,), longest=40)
    variables = made.detector(config)
    detector.save(folder / 'export', variables, config, {'stage': 'voc_detection/test', 'step': 1})
    return variables, config, folder / 'export'


def test_a_loaded_detector_equals_the_exported_one(exported, image):
    variables, config, folder = exported
    detect = detector.make_detect_fn(config, Devices('jit', jax.devices()[:1]))
    images = batches.Images(
        records=[records.Record('a', image, image.shape[:2])],
        proposals=[BOXES],
        shorter_sides=(24,),
        longest=40,
        max_proposals=4,
        seed=0,
    )
    (expected,) = detect(variables, images).values()
    loaded = artifacts_jax.load_detector(folder)
    found = loaded(image, BOXES)
    order = np.argsort(-expected.scores, kind='stable')
    assert found.labels == tuple(NAMES[n] for n in expected.labels[order])
    np.testing.assert_allclose(found.scores, expected.scores[order], rtol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes[order], rtol=1e-4, atol=1e-3)
    assert len(set(found.labels)) == len(NAMES)
    assert (np.diff(found.scores) <= 0).all()
    from_float = artifacts_jax.load_detector(folder, value_range=(0, 1))(image / np.float32(255), BOXES.tolist())
    np.testing.assert_allclose(from_float.scores, found.scores, rtol=1e-6)
    assert loaded(image, []).labels == ()


def test_without_boxes_selective_search_is_run(exported, image):
    pytest.importorskip('cv2', reason='needs OpenCV')
    assert artifacts_jax.load_detector(exported[2])(image).labels


@pytest.mark.parametrize(
    ('image', 'boxes', 'message'),
    [
        (np.zeros((1, 20, 24, 3), np.uint8), BOXES, r'shape \[1, 20, 24, 3\]: expected one image \[H, W, 3\]'),
        (np.zeros((20, 24), np.uint8), BOXES, r'shape \[20, 24\]: expected one image \[H, W, 3\]'),
        (np.full((20, 24, 3), 300), BOXES, 'integers are values from 0 to 255'),
        (np.zeros((20, 24, 3), np.uint8), BOXES[0], r'boxes of shape \(4,\): expected \[N, 4\]'),
        (np.zeros((20, 24, 3), np.uint8), [[1, 2, 3, 'x']], 'not an array of numbers'),
    ],
)
def test_wrong_arguments_are_errors(exported, unchecked, image, boxes, message):
    with pytest.raises(ValueError, match=message):
        artifacts_jax.load_detector(exported[2])(image, boxes)


def test_invalid_boxes_are_errors_or_skipped(exported, image, capsys):
    detect = artifacts_jax.load_detector(exported[2])
    with pytest.raises(DataError, match='nan or inf'):
        detect(image, [[0, 0, np.nan, 5]])
    found, expected = detect(image, [*BOXES.tolist(), [9, 9, 8, 12]]), detect(image, BOXES)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert '1 boxes are less than a pixel wide or high and skipped' in capsys.readouterr().err


def test_a_detector_export_loads_as_features_but_not_as_classifier(exported, config, stage_states, image, tmp_path):
    folder = exported[2]
    with pytest.raises(exports.ExportError, match=r'no classifier, but a detector: use artifacts_jax\.load_detector'):
        artifacts_jax.load_classifier(folder)
    with pytest.raises(exports.ExportError, match='without batch norm, fine-tuned for detection'):
        exports.load_networks(folder, ('trunk',), config)
    features = artifacts_jax.load_features(folder)(image[None])
    assert features['conv5'].shape[:3] == (1, 6, 7)
    trunk = {kind: {'trunk': x['discriminator']['trunk']} for kind, x in _discriminator(stage_states).items()}
    exports.save(tmp_path / 'trunk', trunk, config)
    with pytest.raises(exports.ExportError, match='has no detector; its networks are: trunk'):
        artifacts_jax.load_detector(tmp_path / 'trunk')


def _discriminator(states):
    (state,) = [state for stage, state in states.items() if stage.NAME == 'artifacts']
    return state.variables
