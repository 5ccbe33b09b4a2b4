import matplotlib.figure
import numpy as np
import pytest

from artifacts_jax.drawing import sheet
from artifacts_jax.drawing.sheet import Bar, Cell

CAPTION = 'P(real) = 0.25\na class whose name is far too long'
BAR = Bar(
    np.zeros([320, 3]), '0: kept', '1: dropped', 'predicted probability that a position was dropped, with its means'
)


@pytest.fixture
def texts(monkeypatch):
    """Returns a list that receives (text, bounding box in pixels) of all texts when a figure is written."""
    from matplotlib.backends import backend_agg

    boxes = []
    write = backend_agg.FigureCanvasAgg.print_png

    def record(canvas, *args, **options):
        write(canvas, *args, **options)
        renderer = canvas.get_renderer()
        for text in canvas.figure.findobj(matplotlib.text.Text):
            if text.get_text().strip():
                boxes.append((text.get_text(), text.get_window_extent(renderer).bounds))

    monkeypatch.setattr(backend_agg.FigureCanvasAgg, 'print_png', record)
    return boxes


@pytest.mark.parametrize('side', [16, 96])
@pytest.mark.parametrize('count', [1, 3, 8])
def test_no_text_is_clipped_or_overlaps(side, count, texts, read_png, tmp_path):
    cells = [Cell(np.full([side, side, 3], 0.5), CAPTION, strong=True)] * count
    sheet.draw(
        tmp_path / 'sheet.png',
        [cells, cells],
        headings=['a heading that takes two lines'] * count,
        sides=['predicted\nmask', 'repaired'],
        title='A title that is long enough to be wrapped over a sheet of one column',
        row_gaps=(1,),
        bar=BAR,
    )
    height, width = read_png(tmp_path / 'sheet.png').shape[:2]
    assert len(texts) == 5 * count + 6
    for n, (text, (x, y, w, h)) in enumerate(texts):
        assert min(x, y) >= 0, text
        assert x + w <= width, text
        assert y + h <= height, text
        for other, (x2, y2, w2, h2) in texts[:n]:
            assert x >= x2 + w2 or x2 >= x + w or y >= y2 + h2 or y2 >= y + h, (text, other)


def test_wide_gaps(read_png, tmp_path):
    cells = [Cell(np.zeros([192, 192, 3]))] * 3
    sheet.draw(tmp_path / 'a.png', [cells, cells])
    sheet.draw(tmp_path / 'b.png', [cells, cells], column_gaps=(1, 2), row_gaps=(1,))
    (down, across), (wide_down, wide_across) = (read_png(tmp_path / f'{n}.png').shape[:2] for n in 'ab')
    assert (across, down) == (3 * 200 + 8, 2 * 200 + 8)
    assert (wide_across, wide_down) == (across + 48, down + 24)
    canvas = read_png(tmp_path / 'b.png')[100]
    assert [x for x in range(1, wide_across) if canvas[x - 1].max() > canvas[x].max()] == [8, 232, 456]


def test_a_colour_bar_has_its_colours_from_low_to_high(read_png, tmp_path):
    colors = np.linspace(0, 1, 320)[:, None] * [1, 0, 0]
    sheet.draw(tmp_path / 'a.png', [[Cell(np.ones([192, 192, 3]))] * 4], bar=Bar(colors, 'low', 'high', 'name'))
    canvas = read_png(tmp_path / 'a.png').astype(int)
    rows = [row for row in canvas if (np.abs(row - 255).max(axis=1) > 0).sum() > 300]
    bar = rows[len(rows) // 2]
    start = (canvas.shape[1] - 320) // 2
    np.testing.assert_allclose(bar[start : start + 320], 255 * colors, atol=1)


def test_images_that_do_not_divide_the_cells_are_errors(tmp_path):
    cells = [Cell(np.zeros([96, 96, 3])), Cell(np.zeros([5, 5, 3]))]
    with pytest.raises(ValueError, match=r'sides of \[5\] pixels; expected divisors of 192'):
        sheet.draw(tmp_path / 'a.png', [cells])
