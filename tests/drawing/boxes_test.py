import itertools

import numpy as np
import pytest
from skimage import color

from artifacts_jax.drawing import boxes
from artifacts_jax.drawing.boxes import DARK, GAP, WIDTH, Photograph

CLASSES = [f'class {n}' for n in range(20)]


def plain(*rows, size=(48, 96), scores=None, caption='', value=128):
    """Returns a grey photograph with boxes (name, corners)."""
    names, corners = zip(*rows) if rows else ((), ())
    return Photograph(
        np.full((*size, 3), value, np.uint8), np.array(corners, float).reshape(-1, 4), names, scores, caption
    )


def test_a_box_has_the_colour_of_its_class_inside_its_pixels(read_png, tmp_path):
    boxes.draw(tmp_path / 'a.png', [plain(('class 3', (10, 20, 59, 39)))], classes=CLASSES)
    figure = read_png(tmp_path / 'a.png')
    assert figure.shape == (WIDTH // 2 + 2 * GAP, WIDTH + 2 * GAP, 3)
    photograph = figure[GAP:-GAP, GAP:-GAP].astype(int)  # enlarged by 10
    for x in (100, 599):
        np.testing.assert_array_equal(photograph[300, x], DARK)
    for y in (200, 399):
        np.testing.assert_array_equal(photograph[y, 400], DARK)
    for x in (102, 597):
        np.testing.assert_array_equal(photograph[300, x], boxes.colour(3))
    for x in (97, 110, 300, 602):
        np.testing.assert_allclose(photograph[300, x], 128, atol=1)


@pytest.mark.parametrize('side', [20, 100, 1500])
def test_labels_have_the_same_size_on_all_photographs(side, read_png, tmp_path):
    corner = (side // 2, side // 2, side - 1, side - 1)
    boxes.draw(tmp_path / 'a.png', [plain(('class 0', corner), size=(side, side))], classes=CLASSES)
    figure = read_png(tmp_path / 'a.png')
    label = (figure[: GAP + WIDTH // 2 - 4] == boxes.colour(0)).all(axis=-1)
    rows, columns = np.flatnonzero(label.any(axis=1)), np.flatnonzero(label.any(axis=0))
    assert 20 <= rows[-1] - rows[0] <= 40
    assert 60 <= columns[-1] - columns[0] <= 120


def test_classes_have_fixed_and_different_colours(read_png, tmp_path):
    for name, classes in {'a': CLASSES, 'b': ()}.items():
        boxes.draw(tmp_path / f'{name}.png', [plain(('class 7', (10, 20, 59, 39)))], classes=classes)
    with_all, with_one = (read_png(tmp_path / f'{name}.png')[GAP + 300, GAP + 102] for name in 'ab')
    assert tuple(with_all) == boxes.colour(7)
    assert tuple(with_one) == boxes.colour(0)
    lab = color.rgb2lab(np.array([DARK, *map(boxes.colour, range(21))]) / 255)
    for a, b in itertools.combinations(range(22), 2):
        assert color.deltaE_ciede2000(lab[a], lab[b]) > 10, (a, b)


def test_the_box_with_the_higher_score_is_on_top(read_png, tmp_path):
    rows = ('class 0', (10, 20, 59, 39)), ('class 1', (10, 20, 59, 45))
    for scores, above in (((0.9, 0.2), 0), ((0.2, 0.9), 1)):
        boxes.draw(tmp_path / 'a.png', [plain(*rows, scores=scores)], classes=CLASSES)
        assert tuple(read_png(tmp_path / 'a.png')[GAP + 300, GAP + 102]) == boxes.colour(above)


def test_labels_do_not_overlap_and_stay_inside(tmp_path, monkeypatch):
    labels, write = [], boxes._draw_label

    def record(pen, text, corners, size, rgb, occupied):
        write(pen, text, corners, size, rgb, occupied)
        labels.append((*occupied[-1], size))

    monkeypatch.setattr(boxes, '_draw_label', record)
    crowd = [('class 1', (50, 2 + n, 95, 40)) for n in range(6)] + [
        ('class 2', (0, 0, 9, 9)),
        ('class 3', (0, 0, 9, 9)),
    ]
    boxes.draw(tmp_path / 'a.png', [plain(*crowd, scores=np.linspace(0.1, 0.9, 8))])
    assert len(labels) == 8
    for n, (x, y, w, h, size) in enumerate(labels):
        assert x >= 0
        assert y >= 0
        assert x + w <= size[0]
        assert y + h <= size[1]
        for x2, y2, w2, h2, _ in labels[:n]:
            assert x >= x2 + w2 or x2 >= x + w or y >= y2 + h2 or y2 >= y + h


def test_rows_fill_the_width_of_the_figure(read_png, tmp_path):
    sizes = (40, 60), (60, 40), (50, 50), (30, 90)
    photographs = [plain(size=size, value=0, caption='a caption ' * 30) for size in sizes]
    boxes.draw(tmp_path / 'a.png', photographs, title='A title')
    figure = read_png(tmp_path / 'a.png').max(axis=-1) == 0
    assert figure.shape[1] == 2 * WIDTH + 3 * GAP
    rows = np.flatnonzero(figure[:, GAP + 1])
    starts = [rows[0], *rows[1:][np.diff(rows) > 1]]
    assert len(starts) == 2
    for start in starts:
        black = np.flatnonzero(figure[start + 5])
        assert abs(black[0] - GAP) <= 1
        assert abs(black[-1] - (figure.shape[1] - GAP - 1)) <= 1
        assert np.sum(np.diff(black) > 1) == 1  # the gap between two
    assert [file.name for file in tmp_path.iterdir()] == ['a.png']


def test_a_very_high_photograph_is_narrower(read_png, tmp_path):
    boxes.draw(tmp_path / 'a.png', [plain(size=(2000, 5))], classes=CLASSES)
    assert read_png(tmp_path / 'a.png').shape[:2] == (boxes.MAX_HEIGHT + 2 * GAP, WIDTH + 2 * GAP)


def test_boxes_that_reach_outside_or_are_tiny_are_drawn(tmp_path):
    boxes.draw(
        tmp_path / 'a.png', [plain(('a', (-5, -5, 200, 200)), ('b', (95, 47, 95, 47)), ('c', (99, 50, 120, 60)))]
    )


def test_invalid_photographs_are_errors(tmp_path):
    one = plain(('a', (0, 0, 5, 5)))
    for photographs, message in (
        ([], 'nothing to draw; expected at least one photograph'),
        ([one._replace(names=())], '1 boxes, but 0 names and no scores; expected one for each box'),
        ([one._replace(scores=[0.5, 0.6])], '1 boxes, but 1 names and 2 scores'),
        ([one._replace(boxes=one.boxes * np.nan)], 'contain nan or inf'),
    ):
        with pytest.raises(ValueError, match=message):
            boxes.draw(tmp_path / 'a.png', photographs)
    assert not list(tmp_path.iterdir())
