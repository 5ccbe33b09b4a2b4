"""Grids of images, masks, predictions and filters, each written to a PNG file.

In all grids, orange means dropped and blue means kept. The colours are from the palette of Okabe and Ito, which
colour-blind readers can distinguish.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float, Real

from artifacts_jax.drawing import sheet
from artifacts_jax.drawing.sheet import Cell

KEPT, LIGHT, DROPPED = (np.array(rgb) / 255 for rgb in ((0, 114, 178), (240, 240, 240), (213, 94, 0)))
OPACITY = 0.6  # of masks that are drawn over an image


def plot_image_grid(path: Path, columns: dict, *, title: str = '') -> None:
    """Plots one row for each example and one column for each entry of `columns`, with its name as heading.

    Args:
      path: the PNG file to write.
      columns: {name: entry}, from left to right. An entry is an array of images [N, H, H, 3] in [-1, 1]; or an array of
        masks [N, M, M, 1] in [0, 1], plotted in light grey where 1 (kept) and orange where 0 (dropped); or a pair
        (images, masks), plotted as images with their dropped positions shaded.
      title: text above the grid.

    Raises:
      ValueError: if an entry has another shape, or the entries have different numbers of examples.
    """
    arrays = [x for entry in columns.values() for x in (entry if isinstance(entry, tuple) else (entry,))]
    shapes = [np.shape(x) for x in arrays]
    if not columns or any(len(s) != 4 or s[-1] not in (1, 3) or s[1] != s[2] for s in shapes):
        raise ValueError(f'columns {list(columns)} have shapes {shapes}; expected [N, H, H, 3] or [N, M, M, 1]')
    if len({s[0] for s in shapes}) != 1:
        raise ValueError(f'columns {list(columns)} have shapes {shapes}; expected the same number of examples N')

    def pixels(entry):
        if isinstance(entry, tuple):
            return [shade(image, 1 - kept) for image, kept in zip(*map(np.asarray, entry))]
        entry = np.asarray(entry, np.float32)
        return _rgb(entry) if entry.shape[-1] == 3 else _mix(1 - entry, LIGHT, DROPPED)

    rows = zip(*map(pixels, columns.values()))
    sheet.draw(path, [list(map(Cell, row)) for row in rows], headings=list(columns), title=title)


def plot_mask_prediction(
    path: Path,
    fake: dict,
    real: dict,
    mask: Real[np.ndarray, 'N M M 1'],
    *,
    title: str = '',
    real_name: str = 'decoded',
) -> None:
    """Plots the predictions of the discriminator for repaired and for real images, with one column for each example.

    The rows are: the repaired image, its true mask, its predicted mask, the real image, and the predicted mask of the
    real image. Masks are drawn over a grey version of the image.

    Args:
      path: the PNG file to write.
      fake: predictions for repaired images: 'image' [N, H, H, 3] in [-1, 1]; 'real' [N], the predicted probability that
        the image is real; 'kept' [N, M, M, 1], the predicted probability that a position was kept.
      real: predictions for real images, with the same keys.
      mask: the true mask of the repaired images: 1 kept, 0 dropped.
      title: text above the rows.
      real_name: kind of the real images, used in the row label.
    """
    fake, real = ({name: np.asarray(x, np.float32) for name, x in entries.items()} for entries in (fake, real))
    mask = np.asarray(mask, np.float32)

    def mean(probabilities, where):
        return f'{probabilities[where].mean():.2f}' if where.any() else '-'

    true_captions = [f'{(kept == 0).sum()} of {kept.size} dropped' for kept in mask]
    fake_captions = [
        f'on dropped: {mean(1 - predicted, kept == 0)}\non kept: {mean(1 - predicted, kept > 0)}'
        for predicted, kept in zip(fake['kept'], mask)
    ]
    real_captions = [f'on kept: {1 - predicted.mean():.2f}' for predicted in real['kept']]
    rows = {
        'repaired\n(fake)': _make_class_cells(fake),
        'true mask': _make_mask_cells(fake['image'], mask, true_captions),
        'predicted\nmask': _make_mask_cells(fake['image'], fake['kept'], fake_captions),
        f'{real_name}\n(real)': _make_class_cells(real),
        'predicted\nmask\n(all kept)': _make_mask_cells(real['image'], real['kept'], real_captions),
    }
    colors = _mix(OPACITY, 0.5, _heat_colors(np.linspace(0, 1, 320)[:, None]))  # as they appear over medium grey
    bar = sheet.Bar(
        colors, '0: kept', '1: dropped', 'predicted probability that a position was dropped; means are under each mask'
    )
    sheet.draw(path, list(rows.values()), sides=list(rows), title=title, row_gaps=(3,), bar=bar)


def plot_neighbours(path: Path, queries: dict, networks: dict, *, title: str = '') -> None:
    """Plots one query in each row, followed by its nearest neighbours in the features of each network.

    The caption of a neighbour is its similarity and its class, in bold if it is the class of the query.

    Args:
      path: the PNG file to write.
      queries: 'image' [N, H, H, 3] in [-1, 1] and 'label' [N], class names, '' if unknown.
      networks: {name: neighbours}, with 'image' [N, k, H, H, 3], 'label' [N, k] and 'similarity' [N, k], nearest first.
      title: text above the rows.
    """
    rows, spans = [], {}
    for n, query_label in enumerate(queries['label']):
        row = [Cell(_rgb(queries['image'][n]), f' \n{query_label}')]
        for name, neighbours in networks.items():
            start = len(row)
            images, labels = _rgb(neighbours['image'][n]), neighbours['label'][n]
            for image, label, similarity in zip(images, labels, neighbours['similarity'][n]):
                is_same = bool(query_label) and label == query_label
                row.append(Cell(image, f'{similarity:.3f}\n{label}', strong=is_same))
            spans[start, len(row)] = name
        rows.append(row)
    starts = [start for start, _ in spans]
    sheet.draw(path, rows, headings=['query'], spans=spans, title=title, column_gaps=starts, target=128)


def plot_filters(path: Path, kernel: Float[np.ndarray, 'k k 3 C'], *, title: str = '') -> None:
    """Plots the filters of a first layer as tiles, in the order of its output channels, each scaled to its own range.

    Args:
      path: the PNG file to write.
      kernel: the kernel of a convolution with 3 input channels (RGB).
      title: text above the tiles.

    Raises:
      ValueError: if the kernel has another shape.
    """
    kernel = np.asarray(kernel, np.float32)
    if kernel.ndim != 4 or kernel.shape[2] != 3:
        raise ValueError(f'kernel has shape {kernel.shape}; expected [k, k, 3, C]')
    low = kernel.min(axis=(0, 1, 2), keepdims=True)
    value_range = kernel.max(axis=(0, 1, 2), keepdims=True) - low
    tiles = ((kernel - low) / np.where(value_range > 0, value_range, 1)).transpose(3, 0, 1, 2)
    count = len(tiles)
    square = count**0.5
    divisors = (n for n in range(math.ceil(square), math.ceil(2 * square)) if count % n == 0)  # the last row is full
    num_columns = next(divisors, math.ceil(1.2 * square))
    rows = [[Cell(tile) for tile in tiles[n : n + num_columns]] for n in range(0, count, num_columns)]
    sheet.draw(path, rows, title=title, target=960 // num_columns, gap=6)


def shade(image: Float[np.ndarray, 'H H 3'], dropped: Real[np.ndarray, 'M M 1']) -> Float[np.ndarray, 'H H 3']:
    """Converts an image in [-1, 1] to RGB in [0, 1] and shades it orange where `dropped`, in [0, 1], is 1."""
    image = _rgb(image)
    weight = OPACITY * sheet.enlarge(np.asarray(dropped, np.float32), len(image))
    return (1 - weight) * image + weight * DROPPED


def heat(image: Float[np.ndarray, 'H H 3'], dropped: Real[np.ndarray, 'M M 1']) -> Float[np.ndarray, 'H H 3']:
    """Converts an image in [-1, 1] to grey, as RGB in [0, 1], and draws `dropped`, in [0, 1], over it as a heat map.

    The colours go from blue (0, kept) over light grey (0.5) to orange (1, dropped).
    """
    grey = _rgb(image).mean(axis=-1, keepdims=True)  # grey, so that no colour of the image looks like the heat map
    return _mix(OPACITY, grey, sheet.enlarge(_heat_colors(np.asarray(dropped, np.float32)), len(grey)))


def _make_class_cells(predictions):
    """Returns cells of images, with the predicted probability of real as caption."""
    return [Cell(image, f'P(real) = {p:.2f}') for image, p in zip(_rgb(predictions['image']), predictions['real'])]


def _make_mask_cells(images, kept, captions):
    """Returns cells of images under a heat map of the dropped positions."""
    return [Cell(heat(image, 1 - k), text) for image, k, text in zip(images, kept, captions)]


def _rgb(images):
    return np.clip(np.asarray(images, np.float32) / 2 + 0.5, 0, 1)


def _heat_colors(dropped):
    """Returns the colours [..., 3] of probabilities [..., 1]: from blue over light grey at 1/2 to orange."""
    return np.where(dropped < 0.5, _mix(2 * dropped, KEPT, LIGHT), _mix(2 * dropped - 1, LIGHT, DROPPED))


def _mix(weight, first, second):
    """Interpolates linearly between two colours: weight 0 gives the first, weight 1 the second."""
    return (1 - weight) * first + weight * second
