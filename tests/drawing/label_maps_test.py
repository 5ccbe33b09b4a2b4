import numpy as np
import PIL.Image
import pytest

from artifacts_jax.drawing import label_maps

NAMES = {0: 'background', 1: 'aeroplane', 2: 'bicycle', 255: 'void'}


def row(height, width, label):
    labels = np.full((height, width), label)
    labels[: height // 2] = 0
    return label_maps.Row(np.full((height, width, 3), 77, np.uint8), (labels, np.zeros_like(labels)))


def test_colours_are_those_of_voc():
    colours = label_maps.palette()
    assert colours.shape == (256, 3)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 7: (128, 128, 128), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert {n: tuple(colours[n].tolist()) for n in known} == known
    assert tuple(colours[255].tolist()) == (224, 224, 192)
    assert len({tuple(x) for x in colours.tolist()}) == 256


def test_the_figure_has_all_images_and_the_classes_that_occur(tmp_path, read_png):
    rows = [row(30, 60, 1), row(60, 40, 255)]
    label_maps.draw(tmp_path / 'new' / 'a.png', rows, ('photograph', 'truth', 'prediction'), NAMES, title='A title')
    figure = read_png(tmp_path / 'new' / 'a.png')
    assert figure.shape[1] == 3 * (label_maps.WIDTH + label_maps.GAP) + label_maps.GAP
    present = {tuple(x) for x in figure[:: label_maps.GAP // 2].reshape(-1, 3).tolist()}
    assert {(77, 77, 77), (0, 0, 0), (128, 0, 0), (224, 224, 192)} <= present
    assert (0, 128, 0) not in present  # a class that does not occur
    # In the first row, the second label map has only background.
    left = 2 * label_maps.GAP + label_maps.WIDTH
    assert (figure[:, left : left + label_maps.WIDTH] == (128, 0, 0)).all(-1).any()
    left += label_maps.GAP + label_maps.WIDTH
    assert not (figure[:-60, left : left + label_maps.WIDTH] == (128, 0, 0)).all(-1).any()


def test_a_very_high_picture_is_narrower(tmp_path, read_png):
    label_maps.draw(tmp_path / 'a.png', [row(900, 3, 1)], ('photograph', 'truth', 'prediction'), NAMES)
    figure = read_png(tmp_path / 'a.png')
    assert figure.shape[0] < label_maps.MAX_HEIGHT + 120
    middle = label_maps.GAP + label_maps.WIDTH // 2
    assert (figure[200, middle] == 77).all()
    assert (figure[200, label_maps.GAP] == 255).all()


def test_a_long_legend_has_more_lines(tmp_path, read_png):
    names = {n: f'class {n}' for n in range(40)}
    labels = np.arange(40).reshape(4, 10)
    pixels = np.zeros((4, 10, 3), np.uint8)
    heights = []
    for count in (2, 40):
        subset = {n: names[n] for n in range(count)}
        label_maps.draw(tmp_path / 'a.png', [label_maps.Row(pixels, (labels,))], ('photograph', 'truth'), subset)
        heights.append(read_png(tmp_path / 'a.png').shape[0])
    assert heights[1] > heights[0] + 2 * label_maps.TEXT


@pytest.mark.parametrize('rows', [[], [label_maps.Row(np.zeros((2, 2, 3), np.uint8), ())]])
def test_invalid_rows_are_errors(rows, tmp_path):
    with pytest.raises(ValueError, match='expected at least one row, with 1 each'):
        label_maps.draw(tmp_path / 'a.png', rows, ('photograph', 'truth'), NAMES)


def test_a_written_label_map_has_the_format_of_voc(tmp_path, read_png):
    labels = np.array([[0, 1], [20, 255]], np.uint8)
    label_maps.write(tmp_path / 'new' / 'a.png', labels)
    with PIL.Image.open(tmp_path / 'new' / 'a.png') as image:
        assert image.mode == 'P'
        np.testing.assert_array_equal(np.asarray(image), labels)
    np.testing.assert_array_equal(read_png(tmp_path / 'new' / 'a.png')[..., :3], label_maps.palette()[labels])
