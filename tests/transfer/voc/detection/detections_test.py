import numpy as np
import pytest

from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.transfer.voc.detection import detections
from artifacts_jax.transfer.voc.detection.detections import Detections
from tests.transfer.voc.detection import made


def test_files_have_the_format_of_the_devkit(tmp_path):
    found = [
        made.detections(('dog', 0.98765, (0, 1.26, 10, 20)), ('cat', 0.5, (2, 2, 3, 3)), ('dog', 0.1, (4, 5, 6, 7))),
        made.detections(),
        made.detections(('dog', 1, (0, 0, 498.95, 374))),
    ]
    paths = detections.write_devkit_files(tmp_path / 'Main', 'test', ['000001', '000002', '2008_000003'], found)
    assert [path.name for path in paths] == [f'comp3_det_test_{name}.txt' for name in NAMES]
    texts = {name: path.read_text() for name, path in zip(NAMES, paths)}
    assert texts.pop('cat') == '000001 0.500 3.0 3.0 4.0 4.0\n'
    assert texts.pop('dog') == (
        '000001 0.988 1.0 2.3 11.0 21.0\n000001 0.100 5.0 6.0 7.0 8.0\n2008_000003 1.000 1.0 1.0 500.0 375.0\n'
    )
    assert set(texts.values()) == {''}
    assert sorted(path.name for path in (tmp_path / 'Main').iterdir()) == sorted(path.name for path in paths)


def test_rounding_equals_printf():
    random = np.random.default_rng(0)
    scores = np.concatenate([random.random(3000), np.arange(1000) / 2000, [0.0625, 0.1875]]).astype(np.float32)
    boxes = np.round(random.uniform(0, 500, (len(scores), 4)) * 20).astype(np.float32) / 20  # many on 0.05, 0.15, ...
    found = Detections(np.zeros(len(scores), np.int32), scores, boxes)
    rounded_scores, rounded_boxes = detections.to_devkit_format(found)
    np.testing.assert_array_equal(rounded_scores, [float(f'{x:.3f}') for x in scores.astype(float)])
    np.testing.assert_array_equal(rounded_boxes, [[float(f'{x + 1:.1f}') for x in box] for box in boxes.astype(float)])
    np.testing.assert_array_equal(detections.to_devkit_format(found, rounded=False)[0], scores)


def test_wrong_detections_are_errors(tmp_path):
    one = made.detections(('dog', 0.5, (0, 0, 1, 1)))
    with pytest.raises(ValueError, match='2 names and detections of 1 images; expected equal numbers'):
        detections.write_devkit_files(tmp_path, 'test', ['a', 'b'], [one])
    for broken in (one._replace(scores=one.scores * np.nan), one._replace(boxes=one.boxes + np.inf)):
        with pytest.raises(ValueError, match='contain nan or inf'):
            detections.write_devkit_files(tmp_path, 'test', ['a'], [broken])
    assert not list(tmp_path.iterdir())
