"""Grids of images, masks, predictions and filters, each written to a PNG file that can go into a talk as it is.

Images are enlarged by whole pixels. In every grid orange is dropped and blue is kept, two colours of Okabe and Ito's
palette, which colour-blind readers can tell apart.
"""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from artifacts_jax.plots import DPI, STYLE, canvas

KEPT, LIGHT, DROPPED = (np.array(rgb) / 255 for rgb in ((0, 114, 178), (240, 240, 240), (213, 94, 0)))
OPACITY = 0.6  # of what is drawn over an image
GAP, LINE = 8, 24  # pixels between cells, and pixels of a line of text
TITLE = 44  # pixels of the title


class Cell(NamedTuple):
    """One image of a sheet, with what is written under it."""

    pixels: Any  # [h, w, 3] RGB in [0, 1], h and w divisors of the sheet's cell
    caption: str = ''
    strong: bool = False  # whether the caption is bold


def image_grid(path, columns: dict, *, title: str = '') -> None:
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

    def draw(entry):
        if isinstance(entry, tuple):
            return [shade(image, 1 - kept) for image, kept in zip(*map(np.asarray, entry))]
        entry = np.asarray(entry, np.float32)
        if entry.shape[-1] == 3:
            return list(_rgb(entry))
        return list(_mix(1 - entry, LIGHT, DROPPED))

    rows = zip(*map(draw, columns.values()))
    sheet(path, [[Cell(pixels) for pixels in row] for row in rows], headings=list(columns), title=title)


def mask_prediction(path, fake: dict, real: dict, mask, *, title: str = '', real_name: str = 'decoded') -> None:
    """Draws what the discriminator predicts of repaired and of real images; each example is a column.

    The rows: the repaired image, its true mask, the predicted one, the real image and the mask predicted of it. Masks
    are laid over the image in grey.

    Args:
      path: the PNG file to write.
      fake: of repaired images: 'image' [N, H, H, 3] in [-1, 1], 'real' [N], the predicted probability that the image is
        real, and 'kept' [N, M, M, 1], the predicted probability that an entry was kept.
      real: the same of real images.
      mask: [N, M, M, 1], the true mask of the repaired images: 1 kept, 0 dropped.
      title: written above the rows.
      real_name: what the real images are.
    """
    fake, real = ({name: np.asarray(x, np.float32) for name, x in part.items()} for part in (fake, real))
    mask = np.asarray(mask, np.float32)
    dropped = [f'{int((1 - m).sum())} of {m.size} dropped' for m in mask]
    rows = {
        'repaired\n(fake)': _judged(fake),
        'true mask': _heat(fake['image'], mask, dropped),
        'predicted\nmask': _heat(fake['image'], fake['kept']),
        f'{real_name}\n(real)': _judged(real),
        'predicted\nmask ': _heat(real['image'], real['kept']),
    }
    bar = ('kept', 'dropped', 'predicted probability that a cell was dropped')
    sheet(path, list(rows.values()), sides=list(rows), title=title, row_gaps=(3,), bar=bar)


def neighbours(path, queries: dict, networks: dict, *, title: str = '') -> None:
    """Draws one query in a row, and beside it its nearest neighbours by each network's features, nearest first.

    Under each neighbour is its similarity and its class, in bold where that is the query's.

    Args:
      path: the PNG file to write.
      queries: 'image' [N, H, H, 3] in [-1, 1] and 'label' [N], names of classes ('' where unknown).
      networks: {name: of its neighbours 'image' [N, k, H, H, 3], 'label' [N, k] and 'similarity' [N, k]}.
      title: written above the rows.
    """
    rows = [[Cell(image, f' \n{label}')] for image, label in zip(_rgb(queries['image']), queries['label'])]
    for found in networks.values():
        for n, row in enumerate(rows):
            own = queries['label'][n]
            for image, label, similarity in zip(
                _rgb(found['image'][n]), found['label'][n], found['similarity'][n], strict=True
            ):
                row.append(Cell(image, f'{similarity:.3f}\n{label}', bool(own) and label == own))
    starts = np.cumsum([1] + [np.shape(found['image'])[1] for found in networks.values()])
    headings = ['query'] + [''] * (int(starts[-1]) - 1)
    spans = {(int(a), int(b)): name for a, b, name in zip(starts, starts[1:], networks)}
    sheet(path, rows, headings=headings, spans=spans, title=title, column_gaps=starts[:-1], target=128)


def filters(path, kernel, *, title: str = '') -> None:
    """Draws the filters of a first layer as tiles, in the network's order, each scaled to its own range.

    Args:
      path: the PNG file to write.
      kernel: [k, k, 3, C].
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
    across = int(np.ceil(np.sqrt(1.5 * count)))
    rows = [[Cell(tile) for tile in tiles[n : n + across]] for n in range(0, count, across)]
    sheet(path, rows, title=title, target=960 // across, gap=6)


def shade(image, dropped):
    """Returns an image [H, H, 3] in [-1, 1] as RGB in [0, 1], orange where `dropped` [M, M, 1] in [0, 1] is 1."""
    image = _rgb(image)
    weight = OPACITY * _enlarge(np.asarray(dropped, np.float32), len(image))
    return (1 - weight) * image + weight * DROPPED


def heat(image, dropped):
    """Returns an image [H, H, 3] in [-1, 1] in grey, RGB in [0, 1], under a translucent map of `dropped` [M, M, 1].

    The map runs from blue (0, kept) by way of light grey (0.5) to orange (1, dropped).
    """
    grey = _rgb(image).mean(axis=-1, keepdims=True)  # no colour of the image's own, to be taken for the map's
    dropped = np.asarray(dropped, np.float32)
    colors = np.where(dropped < 0.5, _mix(2 * dropped, KEPT, LIGHT), _mix(2 * dropped - 1, LIGHT, DROPPED))
    return (1 - OPACITY) * grey + OPACITY * _enlarge(colors, len(grey))


def sheet(
    path,
    rows: Sequence[Sequence[Cell]],
    *,
    headings: Sequence[str] = (),
    spans: dict | None = None,
    sides: Sequence[str] = (),
    title: str = '',
    column_gaps: Sequence[int] = (),
    row_gaps: Sequence[int] = (),
    bar: tuple[str, str, str] | None = None,
    target: int = 192,
    gap: int = GAP,
) -> None:
    """Draws rows of cells of one size.

    Args:
      path: the PNG file to write.
      rows: the cells; the last row may be shorter.
      headings: of the columns.
      spans: {(first column, column after the last): heading} above several columns.
      sides: what is written to the left of the rows.
      title: written above all.
      column_gaps: columns before which there is more space.
      row_gaps: rows before which there is more space.
      bar: the ends of the colour bar of `heat` and its name; without it there is no bar.
      target: about how many pixels a cell is high; a whole multiple of the largest image is taken.
      gap: pixels between cells.

    Raises:
      ValueError: if an image's side does not divide the cell's.
    """
    count, side = max(map(len, rows)), max(len(cell.pixels) for row in rows for cell in row)
    size = side * max(1, round(target / side))
    if odd := {
        np.shape(cell.pixels)[:2] for row in rows for cell in row if any(size % s for s in cell.pixels.shape[:2])
    }:
        raise ValueError(f'images of {sorted(odd)} pixels, expected sides that divide {size}')
    names = [name if '\n' in name else '\n'.join(textwrap.wrap(name, size // 11)) for name in headings]
    head = (12 + 22 * max(name.count('\n') + 1 for name in (*names, ''))) if any(names) or spans else gap
    captions = [max((cell.caption.count('\n') + 1 if cell.caption else 0) for cell in row) for row in rows]
    margin = gap + (max(_measure(line) for name in sides for line in name.split('\n')) + 2 * GAP if sides else 0)
    lefts = _places(margin, [size] * count, gap, column_gaps)
    width = lefts.pop() - gap + max(gap, GAP)
    titles = textwrap.wrap(title, int(width // 13)) if title else []
    top = 16 + 28 * len(titles) if titles else 0
    tops = _places(top + head, [size + 4 + LINE * lines if lines else size for lines in captions], gap, row_gaps)
    foot = tops.pop()
    height = foot + (LINE * 4 if bar else max(0, GAP - gap))

    with canvas(path, width / DPI, height / DPI) as figure:

        def write(x, y, text, **options):
            options = {'ha': 'center', 'va': 'center', 'linespacing': 1.15, **options}
            figure.text(x / width, 1 - y / height, text, **options)

        def place(x, y, pixels):
            figure.figimage(pixels, round(x), round(height - y - len(pixels)), origin='upper')

        write(width / 2, top / 2 + 2, '\n'.join(titles), size=STYLE['figure.titlesize'])
        for left, name in zip(lefts, names):
            write(left + size / 2, top + head - 12, name, va='baseline', linespacing=1.1)
        for (first, last), name in (spans or {}).items():
            write((lefts[first] + lefts[last - 1] + size) / 2, top + head - 12, name, va='baseline', weight='bold')
        for y, row, name in zip(tops, rows, sides or [''] * len(rows)):
            write(margin - 2 * GAP, y + size / 2, name.strip(), ha='right')
            for x, cell in zip(lefts, row):
                place(x, y, _enlarge(np.clip(cell.pixels, 0, 1), size))
                for n, line in enumerate(cell.caption.split('\n')):
                    text = _shorten(line, size + gap / 2)
                    weight = 'bold' if cell.strong else 'normal'
                    write(x + size / 2, y + size + 4 + LINE * (n + 0.5), text, size=8, weight=weight)
        if bar:
            low, high, name = bar
            steps = np.linspace(0, 1, 320, dtype=np.float32)
            strip = heat(np.zeros((320, 320, 3)), np.broadcast_to(steps[:, None], (320, 320, 1)))[:, :LINE]
            left = (width - 320) / 2
            place(left, foot + LINE, strip.transpose(1, 0, 2))
            write(left - GAP, foot + 1.5 * LINE, f'0: {low}', ha='right')
            write(left + 320 + GAP, foot + 1.5 * LINE, f'1: {high}', ha='left')
            write(width / 2, foot + 2.8 * LINE, name)


def _judged(part):
    """Returns cells of images with the discriminator's verdict under each."""
    return [Cell(image, f'P(real) = {p:.2f}') for image, p in zip(_rgb(part['image']), part['real'])]


def _heat(images, kept, captions=None):
    """Returns cells of images under the map of what is dropped."""
    captions = captions or [''] * len(images)
    return [Cell(heat(image, 1 - k), text) for image, k, text in zip(images, kept, captions)]


def _rgb(images):
    return np.clip(np.asarray(images, np.float32) / 2 + 0.5, 0, 1)


def _mix(weight, first, second):
    """Returns colours [..., 3] between two, by weights [..., 1] in [0, 1]."""
    return (1 - weight) * first + weight * second


def _enlarge(pixels, side):
    """Returns [side, side, C] of [h, w, C], h and w divisors of the side: every value is repeated."""
    height, width = pixels.shape[:2]
    return pixels.repeat(side // height, axis=0).repeat(side // width, axis=1)


def _places(start, sizes, gap, wide):
    """Returns where cells of these sizes begin, and where the next one would; before some the gap is wide."""
    places = [start]
    for n, size in enumerate(sizes, start=1):
        places.append(places[-1] + size + gap + (24 if n in wide else 0))
    return places


def _measure(text, size=9, weight='normal'):
    """Returns the width of a line of text in pixels."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=STYLE['font.family'], weight=weight)
    return TextPath((0, 0), text, size=size, prop=font).get_extents().width * DPI / 72 if text.strip() else 0


def _shorten(text, width):
    """Returns the text of a caption, cut to so many pixels."""
    short = text
    while short and _measure(short + '…' * (short != text), 8, 'bold') > width:
        short = short[:-1]
    return short + '…' * (short != text)
