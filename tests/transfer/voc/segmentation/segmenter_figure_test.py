import numpy as np
import pytest

from artifacts_jax.transfer.voc.segmentation import lists, segmenter
from tests.transfer.voc.segmentation import made, trees


@pytest.mark.slow
def test_the_figure_shows_photograph_ground_truth_and_prediction(tmp_path, read_png):
    trees.voc(tmp_path / 'VOC2012', train=(0,), val=(1,))
    (record,) = lists.open_lists(made.small(tmp_path / 'VOC2012')).train
    segmenter.plot_segmentations(tmp_path / 'a.png', [record], {0: np.full(record.size, 20, np.uint8)}, step=7)
    colours = {tuple(x) for x in read_png(tmp_path / 'a.png').reshape(-1, 3).tolist()}
    cat, void, television = (64, 0, 0), (224, 224, 192), (0, 64, 128)
    assert {cat, void, television, trees.COLOURS[0]} <= colours


def test_without_images_no_figure_is_written(tmp_path):
    segmenter.plot_segmentations(tmp_path / 'a.png', [], {}, step=7)
    assert not (tmp_path / 'a.png').exists()
