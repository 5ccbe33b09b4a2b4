import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from artifacts_jax import plots

IMAGES = np.random.default_rng(0).uniform(-1, 1, [2, 96, 96, 3])
MASK = np.random.default_rng(1).integers(0, 2, [2, 6, 6, 1])
RESULTS = {
    'random': {'conv1': 45.0, 'conv2': 48.2},
    'learned': {'conv1': 56.0, 'conv2': 65.1},
    'pixels': {'pixels': 40.1},
}


def read(path):
    with Image.open(path) as image:
        assert image.format == 'PNG'
        return np.asarray(image.convert('RGB'))


def make_rows():
    rows = [{'step': step, 'train/loss/class': 1 / (step + 1)} for step in range(0, 100, 2)]
    return [
        *rows,
        {'step': 50, 'test/loss/class': 0.5, 'note': 'text'},
        {'step': 98, 'train/mask': float('nan')},
    ]


def test_import_leaves_matplotlib_alone():
    code = "import sys; from artifacts_jax import plots; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize(
    'draw',
    [
        lambda path: plots.image_grid(path, {'input': IMAGES, 'mask': MASK}, title='Artifacts'),
        lambda path: plots.filters(path, np.zeros([11, 11, 3, 5])),
        lambda path: plots.curves(path, make_rows(), title='Curves'),
        lambda path: plots.probe_bars(path, RESULTS, title='Probe'),
    ],
)
def test_figures_are_written_whole_and_are_reproducible(draw, tmp_path):
    path = tmp_path / 'new' / 'folder' / 'figure.png'
    draw(path)
    first = read(path)
    assert min(first.shape[:2]) > 100
    assert np.ptp(first) > 0
    draw(path)  # replaces the file
    np.testing.assert_array_equal(read(path), first)
    assert [p.name for p in path.parent.iterdir()] == ['figure.png']


def test_a_failed_write_leaves_the_old_figure(tmp_path):
    path = tmp_path / 'figure.png'
    plots.image_grid(path, {'input': IMAGES})
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match='stop'), plots._figure(path, 1, 1):
        raise RuntimeError('stop')
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['figure.png']


@pytest.mark.parametrize('side', [32, 96, 128])
def test_image_grid_enlarges_images_by_whole_pixels(side, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, [3, side, side, 3])
    plots.image_grid(tmp_path / 'grid.png', {'a': images / 127.5 - 1, 'b': images[::-1] / 127.5 - 1})
    canvas = read(tmp_path / 'grid.png').astype(int)
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


def test_image_grid_draws_kept_entries_light_and_dropped_entries_dark(tmp_path):
    mask = np.zeros([1, 2, 2, 1])
    mask[0, 0, 1] = 1.0
    mask[0, 1, 0] = 0.5
    plots.image_grid(tmp_path / 'grid.png', {'mask': mask})
    canvas = read(tmp_path / 'grid.png')[-200:-8, 8:-8].mean(axis=-1)
    dropped, kept, half = canvas[48, 48], canvas[48, 144], canvas[144, 48]
    assert dropped < 50 < 110 < half < 160 < 230 < kept


@pytest.mark.parametrize(
    'columns',
    [{}, {'a': IMAGES[0]}, {'a': IMAGES[..., :2]}, {'a': IMAGES, 'b': MASK[:1]}],
    ids=['nothing', 'one image', 'two channels', 'different numbers'],
)
def test_image_grid_refuses_other_shapes(columns, tmp_path):
    with pytest.raises(ValueError, match='expected'):
        plots.image_grid(tmp_path / 'grid.png', columns)


def test_filters_are_scaled_each_to_its_range(tmp_path):
    ramp = np.linspace(0, 1, 3 * 3 * 3).reshape(3, 3, 3, 1)
    path = tmp_path / 'one.png'
    plots.filters(path, np.concatenate([ramp, ramp * 100 - 7], axis=-1))
    canvas = read(path)
    scale = canvas.shape[1] // 9  # tiles of 3 pixels with 1 between them, two across
    bottom = canvas[-5 * scale :].astype(int)
    first, second = (bottom[scale : 4 * scale, i * scale : (i + 3) * scale] for i in (1, 5))
    np.testing.assert_array_equal(first, second)
    assert first.min() == 0
    assert first.max() == 255


def test_filters_refuses_other_shapes(tmp_path):
    with pytest.raises(ValueError, match='expected'):
        plots.filters(tmp_path / 'one.png', np.zeros([3, 3, 4, 8]))


def test_curves_without_numbers_are_refused(tmp_path):
    with pytest.raises(ValueError, match='expected rows like'):
        plots.curves(tmp_path / 'curves.png', [{'step': 0, 'note': 'text', 'train/loss': float('inf')}])


def test_smoothing_keeps_lines_and_quietens_noise():
    steps = np.arange(200.0)
    np.testing.assert_allclose(plots._smooth(3.0 - 0.1 * steps), 3.0 - 0.1 * plots._smooth(steps), atol=1e-9)
    noise = np.random.default_rng(0).normal(size=1000)
    assert plots._smooth(noise).std() < 0.3


def test_probe_bars_without_layers_are_refused(tmp_path):
    with pytest.raises(ValueError, match='expected'):
        plots.probe_bars(tmp_path / 'probe.png', {'pixels': {'pixels': 40.1}})
