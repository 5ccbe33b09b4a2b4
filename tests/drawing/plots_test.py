import subprocess
import sys

import numpy as np
import pytest

from artifacts_jax.drawing import plots

RESULTS = {
    'random': {'conv1': 45.0, 'conv2': 48.2},
    'learned': {'conv1': 56.0, 'conv2': 65.1},
    'pixels': {'pixels': 40.1},
}


def make_rows():
    rows = [{'step': step, 'train/loss/class': 1 / (step + 1)} for step in range(0, 100, 2)]
    return [
        *rows,
        {'step': 50, 'test/loss/class': 0.5, 'note': 'text'},
        {'step': 98, 'train/mask': float('nan')},
    ]


def test_import_does_not_import_matplotlib():
    imports = 'import sys; from artifacts_jax.drawing import boxes, grids, label_maps, plots'
    code = f"{imports}; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, '-c', code], check=True)


@pytest.mark.parametrize(
    'draw',
    [
        lambda path: plots.plot_curves(path, make_rows(), title='Curves'),
        lambda path: plots.plot_probe_bars(path, RESULTS, title='Probe'),
    ],
)
def test_figures_are_written_atomically_and_are_reproducible(draw, read_png, tmp_path):
    path = tmp_path / 'new' / 'folder' / 'figure.png'
    draw(path)
    first = read_png(path)
    assert min(first.shape[:2]) > 100
    assert np.ptp(first) > 0
    draw(path)  # replaces the file
    np.testing.assert_array_equal(read_png(path), first)
    assert [p.name for p in path.parent.iterdir()] == ['figure.png']


def test_a_failed_write_leaves_the_old_figure(tmp_path):
    path = tmp_path / 'figure.png'
    plots.plot_probe_bars(path, RESULTS)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match='stop'), plots.new_figure(path, 1, 1):
        raise RuntimeError('stop')
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ['figure.png']


def test_curves_without_numbers_are_errors(tmp_path):
    with pytest.raises(ValueError, match='expected rows like'):
        plots.plot_curves(tmp_path / 'curves.png', [{'step': 0, 'note': 'text', 'train/loss': float('inf')}])


def test_smoothing_preserves_lines_and_reduces_noise():
    steps = np.arange(200.0)
    np.testing.assert_allclose(plots._smooth(3.0 - 0.1 * steps), 3.0 - 0.1 * plots._smooth(steps), atol=1e-9)
    noise = np.random.default_rng(0).normal(size=1000)
    assert plots._smooth(noise).std() < 0.3


def test_probe_bars_without_layers_are_errors(tmp_path):
    with pytest.raises(ValueError, match='expected'):
        plots.plot_probe_bars(tmp_path / 'probe.png', {'pixels': {'pixels': 40.1}})
