"""Charts of training curves and probe accuracies, and the matplotlib figure of all charts, written as PNG files.

matplotlib is imported when a figure is plotted, so that importing this module is fast.
"""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from artifacts_jax.files import write_atomically

DPI = 160
# The palette of Okabe and Ito, which colour-blind readers can distinguish.
COLORS = {'train': '#0072B2', 'test': '#E69F00', 'random': '#999999', 'learned': '#0072B2'}
MORE_COLORS = ('#009E73', '#CC79A7', '#D55E00', '#56B4E9')
STYLE: dict[Any, Any] = {
    'font.family': 'DejaVu Sans',
    'font.size': 9,
    'figure.titlesize': 11,
    'axes.titlesize': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.edgecolor': '#555555',
    'legend.frameon': False,
    'legend.fontsize': 8,
}


def plot_curves(path: Path, rows: Iterable[dict], *, title: str = '') -> None:
    """Plots metrics over steps, with one panel for each metric and its training and test curves.

    Training curves are smoothed; the original curve is shown in a light colour. If a step occurs twice, because a run
    was resumed, the later row is used.

    Args:
      path: the PNG file to write.
      rows: dicts such as {'step': 100, 'train/loss': 0.5, 'test/loss': 0.6}, the lines of a metrics file. The text
        before the first slash is the name of the curve, the rest is the name of the panel. Values that are not finite
        numbers are skipped.
      title: text above the panels.

    Raises:
      ValueError: if the rows contain no number to plot.
    """
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panels = {}
    for row in rows:
        for name, value in row.items():
            if name != 'step' and _is_number(value) and _is_number(row.get('step')):
                curve, metric = name.split('/', 1) if '/' in name else ('', name)
                panels.setdefault(metric, {}).setdefault(curve, {})[row['step']] = value
    if not panels:
        raise ValueError("rows: no numbers to plot; expected rows like {'step': 100, 'train/loss': 0.5}")

    last = max(step for series in panels.values() for points in series.values() for step in points)
    names = dict.fromkeys(curve for series in panels.values() for curve in series)
    colors = _colors(names)
    num_columns = {4: 2}.get(len(panels), min(len(panels), 3 if len(panels) <= 9 else 5))
    num_rows = -(-len(panels) // num_columns)
    with new_figure(path, 3.2 * num_columns, 2.0 * num_rows + (0.3 if title else 0), 'constrained') as figure:
        figure.suptitle(title or None)
        for n, (metric, series) in enumerate(sorted(panels.items())):
            axes = figure.add_subplot(num_rows, num_columns, n + 1)
            for curve, points in series.items():
                steps, values = np.array(sorted(points.items()), float).T
                if curve == 'train' and len(values) >= 20:
                    axes.plot(steps, values, color=colors[curve], alpha=0.25, linewidth=0.8)
                    steps, values = _smooth(steps), _smooth(values)
                marker = 'o' if len(values) < 20 else ''
                axes.plot(steps, values, marker=marker, ms=3, lw=1.5, color=colors[curve], label=curve)
            axes.set_title(metric.replace('_', ' '), loc='left')
            axes.set_xlim(0, last * 1.03)
            axes.grid(alpha=0.2)
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.xaxis.set_major_formatter(EngFormatter(sep=''))
            axes.yaxis.set_major_formatter('{x:.4g}')
            if n >= len(panels) - num_columns:
                axes.set_xlabel('step')
            if any(series):
                position = {'loc': 'lower right', 'bbox_to_anchor': (1.02, 0.97), 'borderaxespad': 0.2}
                axes.legend(ncols=len(series), handlelength=1.2, columnspacing=1.0, **position)


def plot_probe_bars(path: Path, results: dict, *, title: str = '', ylabel: str = 'accuracy (%)') -> None:
    """Plots the accuracy of the probe on each layer as bars, grouped by layer, with one colour for each network.

    Args:
      path: the PNG file to write.
      results: percentages, {'random': {'conv1': 56.0, ...}, 'learned': {...}}. An entry whose only layer is its own
        name, such as 'pixels': {'pixels': 40.1}, is plotted as a dashed line.
      title: text above the bars.
      ylabel: label of the vertical axis.

    Raises:
      ValueError: if no network has layers.
    """
    lines = {name: values[name] for name, values in results.items() if list(values) == [name]}
    groups = {name: values for name, values in results.items() if name not in lines}
    layers = list(dict.fromkeys(layer for values in groups.values() for layer in values))
    if not layers:
        raise ValueError(
            f"results={results}: no network has layers; expected {{'learned': {{'conv1': 56.0, ...}}, ...}}"
        )

    colors = _colors(groups)
    bar = 0.8 / len(groups)
    width = max(4.0, 1.2 + 0.42 * (len(groups) + 0.5) * len(layers))
    with new_figure(path, width, 3.0, 'constrained') as figure:
        figure.suptitle(title or None)
        axes = figure.add_subplot()
        keys = []
        for n, (name, values) in enumerate(groups.items()):
            shift = (n - (len(groups) - 1) / 2) * bar
            positions = [layers.index(layer) + shift for layer in values]
            keys.append(axes.bar(positions, values.values(), 0.92 * bar, color=colors[name], label=name))
            box = {
                'facecolor': 'white',
                'edgecolor': 'none',
                'pad': 0.5,
            }  # keeps dashed lines off the numbers
            axes.bar_label(keys[-1], fmt='%.1f', fontsize=8, padding=2, bbox=box)
        for name, value in lines.items():
            keys.append(axes.axhline(value, color='#333333', ls='--', lw=1, zorder=0, label=f'{name} {value:.1f}'))
        axes.set_xticks(range(len(layers)), layers)
        axes.tick_params(axis='x', length=0)
        axes.set_ylabel(ylabel)
        axes.margins(x=0.02, y=0.12)
        axes.legend(handles=keys, ncols=len(keys), loc='lower center', bbox_to_anchor=(0.5, 1.0))


@contextmanager
def new_figure(path: Path, width: float, height: float, layout: Any = None) -> Iterator:
    """Yields a matplotlib figure, with its size in inches, and writes it to a PNG file atomically at the end."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor='white')
        yield figure
        FigureCanvasAgg(figure).print_png(buffer)
    write_atomically(path, buffer.getvalue())


def _colors(names):
    """Returns {name: colour}; names that are not in `COLORS` get the colours of `MORE_COLORS` in order."""
    others = [name for name in names if name not in COLORS]
    return COLORS | {name: MORE_COLORS[n % len(MORE_COLORS)] for n, name in enumerate(others)}


def _smooth(values, fraction=0.05):
    """Returns moving averages over a window, a fraction of the curve; half a window is missing at both ends."""
    window = max(3, round(fraction * len(values)))
    return np.convolve(values, np.full(window, 1 / window), mode='valid')


def _is_number(value):
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)
