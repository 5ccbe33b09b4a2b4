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


def test_mask_prediction_lays_the_true_and_the_predicted_mask_over_the_images(read_png, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(grids.sheet, 'draw', lambda path, rows, **options: drawn.update(rows=rows, **options))
    black = -np.ones([1, 8, 8, 3])
    mask, predicted = np.array([0.0, 1, 1, 1]).reshape(1, 2, 2, 1), np.array([0.5, 0.2, 1, 0]).reshape(1, 2, 2, 1)
    fake = {'image': black, 'real': [0.25], 'kept': predicted}
    real = {'image': black, 'real': [0.75], 'kept': np.ones_like(mask)}
    grids.plot_mask_prediction(tmp_path / 'mask.png', fake, real, mask)
    (judged_fake,), (true,), (of_fake,), (judged_real,), (of_real,) = drawn['rows']
    assert (judged_fake.caption, judged_real.caption) == ('P(real) = 0.25', 'P(real) = 0.75')
    assert true.caption == '1 of 4 dropped'
    assert of_fake.caption == 'on dropped: 0.50\non kept: 0.60'
    assert of_real.caption == 'on kept: 0.00'
    kept, dropped = 0.6 * np.array(BLUE) / 255, 0.6 * np.array(ORANGE) / 255
    np.testing.assert_allclose(true.pixels[0, 0], dropped, atol=1e-6)
    np.testing.assert_allclose(true.pixels[0, 7], kept, atol=1e-6)
    np.testing.assert_allclose(of_fake.pixels[7, 0], kept, atol=1e-6)
    np.testing.assert_allclose(of_fake.pixels[7, 7], dropped, atol=1e-6)
    np.testing.assert_allclose(of_fake.pixels[0, 0], 0.6 * 240 / 255, atol=1e-6)
    np.testing.assert_allclose(np.ptp(of_real.pixels, axis=(0, 1)), 0)
    colors = drawn['bar'].colors  # over mid-grey: from kept to dropped, as their names say
    np.testing.assert_allclose(colors[[0, -1]], np.array([kept, dropped]) + 0.2, atol=1e-6)
    assert (drawn['bar'].low, drawn['bar'].high) == ('0: kept', '1: dropped')


def test_neighbours_are_beside_their_query_with_the_same_class_in_bold(monkeypatch, tmp_path):
    drawn = {}
    monkeypatch.setattr(grids.sheet, 'draw', lambda path, rows, **options: drawn.update(rows=rows, **options))
    level = np.linspace(-1, 1, 10)[:, None, None, None] * np.ones([1, 4, 4, 3])
    queries = {'image': level[:2], 'label': ['cat', '']}
    found = {
        'image': level[2:8].reshape(2, 3, 4, 4, 3),
        'label': [['cat', 'dog', 'cat'], ['', '', '']],
        'similarity': np.array([[0.9, 0.8, 0.7], [0.6, 0.5, 0.4]]),
    }
    grids.plot_neighbours(tmp_path / 'neighbours.png', queries, {'learned': found, 'random': found})
    assert [len(row) for row in drawn['rows']] == [7, 7]
    assert drawn['spans'] == {(1, 4): 'learned', (4, 7): 'random'}
    first, second = drawn['rows']
    assert [cell.strong for cell in first] == [False, True, False, True, True, False, True]
    assert not any(cell.strong for cell in second)  # no class is known
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
    drawn = []
    monkeypatch.setattr(grids.sheet, 'draw', lambda path, rows, **options: drawn.extend(rows))
    grids.plot_filters(tmp_path / 'some.png', np.zeros([3, 3, 3, count]))
    assert (len(drawn[0]), len(drawn)) == (across, down)
    assert sum(map(len, drawn)) == count


def test_filters_refuses_other_shapes(unchecked, tmp_path):
    with pytest.raises(ValueError, match='expected'):
        grids.plot_filters(tmp_path / 'one.png', np.zeros([3, 3, 4, 8]))
