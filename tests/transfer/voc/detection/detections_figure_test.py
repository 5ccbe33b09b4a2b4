import numpy as np
import pytest

from artifacts_jax.data.voc import devkit
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.drawing import boxes as drawing
from artifacts_jax.transfer.voc.detection import detections as module
from tests.transfer.voc import trees
from tests.transfer.voc.detection.made import detections


@pytest.fixture
def records(tmp_path):
    for name in '01':
        trees.add(tmp_path, name, trees.annotation(size=(30, 40)), size=(30, 40))
    trees.listed(tmp_path, 'test', '0', '1')
    return devkit.open_voc(str(tmp_path), ['test'])['test']


def test_the_best_boxes_of_each_image_are_drawn(records, tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'MAX_BOXES', 2)
    drawn_photographs = {}
    monkeypatch.setattr(
        drawing, 'draw', lambda path, photographs, **options: drawn_photographs.update({path: photographs})
    )
    boxes = [(0, 0, 9, 9 + n) for n in range(4)]
    some = detections(*(zip(('cat', 'dog', 'cow', 'cat'), (0.6, 0.9, 0.4, 0.7), boxes)))
    module.plot_detections(tmp_path / 'a.png', records, {0: some, 1: detections(('cat', 0.4, boxes[0]))}, step=3)
    first, second = drawn_photographs[tmp_path / 'a.png']
    assert (first.names, first.caption) == (['dog', 'cat'], '')
    np.testing.assert_allclose(first.scores, [0.9, 0.7])
    np.testing.assert_array_equal(first.boxes, [boxes[1], boxes[3]])
    np.testing.assert_array_equal(first.pixels, records[0].read_image())
    assert (second.names, second.caption) == ([], 'no detection with a score of 0.5 or more')


def test_the_figure_is_written_only_with_images(records, tmp_path, read_png):
    module.plot_detections(tmp_path / 'a.png', records, {0: detections((NAMES[0], 0.8, (1, 1, 20, 20)))}, step=3)
    assert read_png(tmp_path / 'a.png').shape[1] > 900
    module.plot_detections(tmp_path / 'b.png', records, {}, step=3)
    assert not (tmp_path / 'b.png').exists()
