import numpy as np
import pytest

from artifacts_jax.drawing import grids

IMAGES = np.random.default_rng(0).uniform(-1, 1, [2, 96, 96, 3])
MASK = np.random.default_rng(1).integers(0, 2, [2, 6, 6, 1])
ORANGE, BLUE = (213, 94, 0), (0, 114, 178)


@pytest.mark.parametrize('side', [32, 96, 128])
def test_image_grid_enlarges_images_by_whole_pixels(side, read_png, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, [3, side, side, 3])
    grids.plot_image_grid(tmp_path / 'grid.png', {'a': images / 127.5 - 1, 'b': images[::-1] / 127.5 - 1})
    canvas = read_png(tmp_path / 'grid.png').astype(int)
    scale = max(1, round(192 / side))
    cell, gap = scale * side, 8
    assert canvas.shape[1] == 2 * (cell + gap) + gap
    head = canvas.shape[0] - 3 * (cell + gap)
    for column, examples in enumerate((images, images[::-1])):
        for row, image in enumerate(examples):
            top, left = head + row * (cell + gap), gap + column * (cell + gap)
            shown = canvas[top : top + cell, left : left + cell]
            expected = image.repeat(scale, axis=0).repeat(scale, axis=1)
            assert np.abs(shown - expected).max() <= 1  # one level of rounding


def test_image_grid_draws_kept_entries_light_and_dropped_entries_orange(read_png, tmp_path):
    mask = np.zeros([1, 2, 2, 1])
    mask[0, 0, 1] = 1.0
    black = -np.ones([1, 4, 4, 3])
    grids.plot_image_grid(tmp_path / 'grid.png', {'mask': mask, 'shaded': (black, mask)})
    canvas = read_png(tmp_path / 'grid.png').astype(int)[-200:-8]
    dropped, kept, shaded, untouched = canvas[48, 56], canvas[48, 152], canvas[48, 256], canvas[48, 352]
    np.testing.assert_allclose(dropped, ORANGE, atol=1)
    assert kept.min() > 230
    np.testing.assert_allclose(shaded, 0.6 * np.array(ORANGE), atol=1)
    assert untouched.max() == 0


@pytest.mark.parametrize(
    'columns',
    [{}, {'a': IMAGES[0]}, {'a': IMAGES[..., :2]}, {'a': IMAGES, 'b': MASK[:1]}, {'a': IMAGES, 'b': MASK[:, :5, :5]}],
    ids=['nothing', 'one image', 'two channels', 'different numbers', 'cells that cut pixels'],
)
def test_image_grid_refuses_other_shapes(columns, tmp_path):
    with pytest.raises(ValueError, match='expected'):
        grids.plot_image_grid(tmp_path / 'grid.png', columns)


def test_mask_prediction_shows_true_and_predicted_masks_over_the_images(read_png, tmp_path, monkeypatch):
    plotted = {}
    monkeypatch.setattr(grids.sheet, 'draw', lambda path, rows, **options: plotted.update(rows=rows, **options))
    black = -np.ones([1, 8, 8, 3])
    mask, predicted = np.array([0.0, 1, 1, 1]).reshape(1, 2, 2, 1), np.array([0.5, 0.2, 1, 0]).reshape(1, 2, 2, 1)
    fake = {'image': black, 'real': [0.25], 'kept': predicted}
    real = {'image': black, 'real': [0.75], 'kept': np.ones_like(mask)}
    grids.plot_mask_prediction(tmp_path / 'mask.png', fake, real, mask)
    (fake_cell,), (true_mask,), (fake_mask,), (real_cell,), (real_mask,) = plotted['rows']
    assert (fake_cell.caption, real_cell.caption) == ('P(real) = 0.25', 'P(real) = 0.75')
    assert true_mask.caption == '1 of 4 dropped'
    assert fake_mask.caption == 'on dropped: 0.50\non kept: 0.60'
    assert real_mask.caption == 'on kept: 0.00'
    kept, dropped = 0.6 * np.array(BLUE) / 255, 0.6 * np.array(ORANGE) / 255
    np.testing.assert_allclose(true_mask.pixels[0, 0], dropped, atol=1e-6)
    np.testing.assert_allclose(true_mask.pixels[0, 7], kept, atol=1e-6)
    np.testing.assert_allclose(fake_mask.pixels[7, 0], kept, atol=1e-6)
    np.testing.assert_allclose(fake_mask.pixels[7, 7], dropped, atol=1e-6)
    np.testing.assert_allclose(fake_mask.pixels[0, 0], 0.6 * 240 / 255, atol=1e-6)
    np.testing.assert_allclose(np.ptp(real_mask.pixels, axis=(0, 1)), 0)
    colors = plotted['bar'].colors  # over medium grey, from kept to dropped
    np.testing.assert_allclose(colors[[0, -1]], np.array([kept, dropped]) + 0.2, atol=1e-6)
    assert (plotted['bar'].low, plotted['bar'].high) == ('0: kept', '1: dropped')


def test_neighbours_follow_their_query_and_the_same_class_is_bold(monkeypatch, tmp_path):
    plotted = {}
    monkeypatch.setattr(grids.sheet, 'draw', lambda path, rows, **options: plotted.update(rows=rows, **options))
    level = np.linspace(-1, 1, 10)[:, None, None, None] * np.ones([1, 4, 4, 3])
    queries = {'image': level[:2], 'label': ['cat', '']}
    neighbours = {
        'image': level[2:8].reshape(2, 3, 4, 4, 3),
        'label': [['cat', 'dog', 'cat'], ['', '', '']],
        'similarity': np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]),
    }
    grids.plot_neighbours(tmp_path / 'neighbours.png', queries, {'learned': neighbours, 'random': neighbours})
    assert [len(row) for row in plotted['rows']] == [7, 7]
    assert plotted['spans'] == {(1, 4): 'learned', (4, 7): 'random'}
    first, second = plotted['rows']
    assert [cell.strong for cell in first] == [False, True, False, True, True, False, True]
    assert not any(cell.strong for cell in second)  # the class of the query is unknown
    assert [cell.caption for cell in first[:2]] == [' \ncat', '0.900\ncat']
    assert [cell.pixels[0, 0, 0] * 9 for cell in second[:4]] == pytest.approx([1, 5, 6, 7], abs=1e-5)


def test_filters_are_scaled_each_to_its_range(read_png, tmp_path):
    ramp = np.linspace(0, 1, 3 * 3 * 3).reshape(3, 3, 3, 1)
    path = tmp_path / 'one.png'
    grids.plot_filters(path, np.concatenate([ramp, ramp * 100 - 7], axis=-1))
    canvas = read_png(path).astype(int)
    side, gap = 480, 6
    first, second = (canvas[gap : gap + side, x : x + side] for x in (8, 8 + side + gap))
    np.testing.assert_array_equal(first, second)
    assert first.min() == 0
    assert first.max() == 255


@pytest.mark.parametrize(('count', 'across', 'down'), [(96, 12, 8), (64, 8, 8), (5, 3, 2), (1, 1, 1)])
def test_filters_fill_their_rows_if_they_can(count, across, down, monkeypatch, tmp_path):
    plotted = []
    monkeypatch.setattr(grids.sheet, 'draw', lambda path, rows, **options: plotted.extend(rows))
    grids.plot_filters(tmp_path / 'some.png', np.zeros([3, 3, 3, count]))
    assert (len(plotted[0]), len(plotted)) == (across, down)
    assert sum(map(len, plotted)) == count


def test_filters_refuses_other_shapes(unchecked, tmp_path):
    with pytest.raises(ValueError, match='expected'):
        grids.plot_filters(tmp_path / 'one.png', np.zeros([3, 3, 4, 8]))
