import numpy as np
import PIL.Image
import pytest

from artifacts_jax.drawing import pictures
from artifacts_jax.drawing.pictures import CAPTION, GAP, HEAD, TITLE, Cell


def grey(width, height, value=0):
    return PIL.Image.new('RGB', (width, height), (value,) * 3)


def test_rows_and_images_are_centred(read_png, tmp_path):
    rows = [[Cell(grey(40, 30), 40), Cell(grey(20, 30), 60)], [Cell(grey(10, 50), 10)]]
    pictures.draw(tmp_path / 'new' / 'a.png', rows, 300)
    sheet = read_png(tmp_path / 'new' / 'a.png')
    assert sheet.shape == (GAP + 30 + GAP + 50 + GAP, 300, 3)
    left = (300 - 100 - GAP) // 2
    expected = np.full_like(sheet, 255)
    expected[GAP : GAP + 30, left : left + 40] = 0
    expected[GAP : GAP + 30, left + 40 + GAP + 20 : left + 40 + GAP + 40] = 0
    expected[2 * GAP + 30 : 2 * GAP + 80, 145:155] = 0
    np.testing.assert_array_equal(sheet, expected)


@pytest.mark.parametrize(
    ('options', 'caption', 'top', 'foot'),
    [
        ({'title': 'A title ' * 3}, '', GAP + TITLE, 0),
        ({'heads': ['A head ' * 3]}, '', HEAD, 0),
        ({}, 'A caption ' * 3, 0, CAPTION + GAP // 2),
    ],
)
def test_text_fits_its_column(options, caption, top, foot, read_png, tmp_path):
    pictures.draw(tmp_path / 'a.png', [[Cell(grey(200, 30), 200, caption)]], 200 + 2 * GAP, **options)
    sheet = read_png(tmp_path / 'a.png')
    assert sheet.shape[0] == top + GAP + 30 + GAP + foot
    np.testing.assert_array_equal(sheet[top + GAP : top + GAP + 30, GAP:-GAP], 0)
    text = np.delete(sheet, np.s_[top + GAP : top + GAP + 30], axis=0)
    inked = np.flatnonzero((text < 128).any(axis=(0, 2)))
    assert inked[-1] - inked[0] > 150
    assert inked[0] >= GAP - 4  # font sizes are integers
    assert inked[-1] <= 200 + GAP + 4


def test_fit_fills_the_row_up_to_the_maximum_height():
    assert pictures.fit([(10, 20), (30, 30)], 300 + GAP, 1000) == [(200, 100), (100, 100)]
    assert pictures.fit([(10, 20), (30, 30)], 300 + GAP, 50) == [(100, 50), (50, 50)]
    assert pictures.fit([(1, 5000)], 300, 50) == [(300, 1)]
