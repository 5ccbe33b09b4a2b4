"""Grids of images, masks, predictions and filters, each written to a PNG file that can go into a talk as it is.

In every grid orange is dropped and blue is kept, two colours of Okabe and Ito's palette, which colour-blind readers
can tell apart.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Float, Real

from artifacts_jax.drawing import sheet
from artifacts_jax.drawing.sheet import Cell

KEPT, LIGHT, DROPPED = (np.array(rgb) / 255 for rgb in ((0, 114, 178), (240, 240, 240), (213, 94, 0)))
OPACITY = 0.6  # of what is drawn over an image


def plot_image_grid(path: Path, columns: dict, *, title: str = '') -> None:
    """Draws one row for each example and one column for each entry, with the entries' names on top.

    With the right columns it is the paper's figure of damaged and repaired images.

    Args:
      path: the PNG file to write.
      columns: {name: entry}, in the order drawn. [N, H, H, 3] are images in [-1, 1]; [N, M, M, 1] are masks in [0, 1],
        drawn light where 1 (kept) and orange where 0 (dropped); a pair of these is images with what is dropped shaded.
      title: written above the grid.

    Raises:
      ValueError: if an entry has another shape, or the entries have different numbers of examples.
    """
    arrays = [x for entry in columns.values() for x in (entry if isinstance(entry, tuple) else (entry,))]
    shapes = [np.shape(x) for x in arrays]
    if not columns or any(len(s) != 4 or s[-1] not in (1, 3) or s[1] != s[2] for s in shapes):
        raise ValueError(f'{list(columns)} have shapes {shapes}, expected [N, H, H, 3] or [N, M, M, 1] each')
    if len({s[0] for s in shapes}) != 1:
        raise ValueError(f'{list(columns)} have shapes {shapes}, expected as many examples in each')

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
    """Draws what the discriminator predicts of repaired and of real images; each example is a column.

    The rows: the repaired image, its true mask, the predicted one, the real image and the mask predicted of it. Masks
    are laid over the image in grey.

    Args:
      path: the PNG file to write.
      fake: of repaired images: 'image' [N, H, H, 3] in [-1, 1], 'real' [N], the predicted probability that the image is
        real, and 'kept' [N, M, M, 1], the predicted probability that an entry was kept.
      real: the same of real images.
      mask: the true mask of the repaired images: 1 kept, 0 dropped.
      title: written above the rows.
      real_name: what the real images are.
    """
    fake, real = ({name: np.asarray(x, np.float32) for name, x in part.items()} for part in (fake, real))
    mask = np.asarray(mask, np.float32)

    def mean(probabilities, where):
        return f'{probabilities[where].mean():.2f}' if where.any() else '-'

    truth = [f'{(kept == 0).sum()} of {kept.size} dropped' for kept in mask]
    of_fake = [
        f'on dropped: {mean(1 - predicted, kept == 0)}\non kept: {mean(1 - predicted, kept > 0)}'
        for predicted, kept in zip(fake['kept'], mask)
    ]
    of_real = [f'on kept: {1 - predicted.mean():.2f}' for predicted in real['kept']]
    rows = {
        'repaired\n(fake)': _judged(fake),
        'true mask': _masked(fake['image'], mask, truth),
        'predicted\nmask': _masked(fake['image'], fake['kept'], of_fake),
        f'{real_name}\n(real)': _judged(real),
        'predicted\nmask\n(all kept)': _masked(real['image'], real['kept'], of_real),
    }
    colors = _mix(OPACITY, 0.5, _heat_colors(np.linspace(0, 1, 320)[:, None]))  # as they are over mid-grey
    bar = sheet.Bar(
        colors, '0: kept', '1: dropped', 'predicted probability that a cell was dropped; its means are under each mask'
    )
    sheet.draw(path, list(rows.values()), sides=list(rows), title=title, row_gaps=(3,), bar=bar)


def plot_neighbours(path: Path, queries: dict, networks: dict, *, title: str = '') -> None:
    """Draws one query in a row, and beside it its neighbours by each network's features, nearest first.

    Under each neighbour is its similarity and its class, in bold where that is the query's.

    Args:
      path: the PNG file to write.
      queries: 'image' [N, H, H, 3] in [-1, 1] and 'label' [N], names of classes, '' where unknown.
      networks: {name: of its neighbours 'image' [N, k, H, H, 3], 'label' [N, k] and 'similarity' [N, k]}.
      title: written above the rows.
    """
    rows, spans = [], {}
    for n, own in enumerate(queries['label']):
        row = [Cell(_rgb(queries['image'][n]), f' \n{own}')]
        for name, found in networks.items():
            start = len(row)
            for image, label, similarity in zip(_rgb(found['image'][n]), found['label'][n], found['similarity'][n]):
                row.append(Cell(image, f'{similarity:.3f}\n{label}', strong=bool(own) and label == own))
            spans[start, len(row)] = name
        rows.append(row)
    starts = [start for start, _ in spans]
    sheet.draw(path, rows, headings=['query'], spans=spans, title=title, column_gaps=starts, target=128)


def plot_filters(path: Path, kernel: Float[np.ndarray, 'k k 3 C'], *, title: str = '') -> None:
    """Draws the filters of a first layer as tiles, in the network's order, each scaled to its own range.

    Args:
      path: the PNG file to write.
      kernel: of a convolution of colours.
      title: written above the tiles.

    Raises:
      ValueError: if the kernel has another shape.
    """
    kernel = np.asarray(kernel, np.float32)
    if kernel.ndim != 4 or kernel.shape[2] != 3:
        raise ValueError(f'the kernel is {kernel.shape}, expected [k, k, 3, C]')
    low = kernel.min(axis=(0, 1, 2), keepdims=True)
    spread = kernel.max(axis=(0, 1, 2), keepdims=True) - low
    tiles = ((kernel - low) / np.where(spread > 0, spread, 1)).transpose(3, 0, 1, 2)
    count = len(tiles)
    square = count**0.5
    full = (n for n in range(math.ceil(square), math.ceil(2 * square)) if count % n == 0)  # no empty place
    across = next(full, math.ceil(1.2 * square))
    rows = [[Cell(tile) for tile in tiles[n : n + across]] for n in range(0, count, across)]
    sheet.draw(path, rows, title=title, target=960 // across, gap=6)


def shade(image: Float[np.ndarray, 'H H 3'], dropped: Real[np.ndarray, 'M M 1']) -> Float[np.ndarray, 'H H 3']:
    """Returns an image in [-1, 1] as RGB in [0, 1], orange where `dropped`, in [0, 1], is 1."""
    image = _rgb(image)
    weight = OPACITY * sheet.enlarge(np.asarray(dropped, np.float32), len(image))
    return (1 - weight) * image + weight * DROPPED


def heat(image: Float[np.ndarray, 'H H 3'], dropped: Real[np.ndarray, 'M M 1']) -> Float[np.ndarray, 'H H 3']:
    """Returns an image in [-1, 1] in grey, RGB in [0, 1], under a translucent map of `dropped`, in [0, 1].

    The map runs from blue (0, kept) through light grey (0.5) to orange (1, dropped).
    """
    grey = _rgb(image).mean(axis=-1, keepdims=True)  # has no colour that could be taken for the map's
    return _mix(OPACITY, grey, sheet.enlarge(_heat_colors(np.asarray(dropped, np.float32)), len(grey)))


def _judged(part):
    """Returns cells of images with the discriminator's verdict under each."""
    return [Cell(image, f'P(real) = {p:.2f}') for image, p in zip(_rgb(part['image']), part['real'])]


def _masked(images, kept, captions):
    """Returns cells of images under the map of what is dropped."""
    return [Cell(heat(image, 1 - k), text) for image, k, text in zip(images, kept, captions)]


def _rgb(images):
    return np.clip(np.asarray(images, np.float32) / 2 + 0.5, 0, 1)


def _heat_colors(dropped):
    """Returns the colours [..., 3] of probabilities [..., 1]: from blue through light grey at 1/2 to orange."""
    return np.where(dropped < 0.5, _mix(2 * dropped, KEPT, LIGHT), _mix(2 * dropped - 1, LIGHT, DROPPED))


def _mix(weight, first, second):
    """Returns colours [..., 3] between two, by weights [..., 1] in [0, 1]."""
    return (1 - weight) * first + weight * second
