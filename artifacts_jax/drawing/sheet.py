"""Figures of images in rows of cells, with headings, captions and a colour bar.

Lengths are in pixels of the file, so that images are enlarged by integer factors and stay sharp.
"""

import functools
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Real

from artifacts_jax.drawing.plots import DPI, STYLE, new_figure

GAP, EXTRA = 8, 24  # space between cells, and the extra space of a wide gap
LINE, CAPTION = 24, 8  # height of a line of text in pixels, and the font size of captions in points


class Cell(NamedTuple):
    """An image with a caption."""

    pixels: Float[np.ndarray, 'h w 3']  # RGB in [0, 1]; h and w must divide the size of the cells
    caption: str = ''
    strong: bool = False  # whether the caption is bold


class Bar(NamedTuple):
    """A colour bar below the cells."""

    colors: Float[np.ndarray, 'n 3']  # RGB in [0, 1]; the bar is n pixels wide
    low: str  # text at the left end
    high: str  # text at the right end
    name: str  # text below the bar


def draw(
    path: Path,
    rows: Sequence[Sequence[Cell]],
    *,
    headings: Sequence[str] = (),
    spans: dict | None = None,
    sides: Sequence[str] = (),
    title: str = '',
    column_gaps: Sequence[int] = (),
    row_gaps: Sequence[int] = (),
    bar: Bar | None = None,
    target: int = 192,
    gap: int = GAP,
) -> None:
    """Draws rows of cells; all cells have the same size.

    Args:
      path: the PNG file to write.
      rows: the cells; the last row may be shorter.
      headings: headings of the columns.
      spans: {(first column, last column + 1): heading}, headings of several columns.
      sides: labels to the left of the rows.
      title: text above the figure.
      column_gaps: columns before which the gap is wide.
      row_gaps: rows before which the gap is wide.
      bar: an optional colour bar.
      target: approximate size of a cell in pixels; it is rounded to a multiple of the size of the largest image.
      gap: pixels between cells.

    Raises:
      ValueError: if the height or width of an image does not divide the size of the cells.
    """
    side = max(len(cell.pixels) for row in rows for cell in row)
    size = side * max(1, round(target / side))
    if wrong := {s for row in rows for cell in row for s in np.shape(cell.pixels)[:2] if size % s}:
        raise ValueError(f'images have sides of {sorted(wrong)} pixels; expected divisors of {size}')
    names = [name if '\n' in name else '\n'.join(textwrap.wrap(name, size // 11)) for name in headings]
    head = 12 + 22 * max(_lines(name) for name in (*names, *(spans or {}).values())) if names or spans else gap
    margin = max(GAP, gap) + (max(_measure(line) for name in sides for line in name.split('\n')) if sides else 0)
    lefts = _offsets(margin + 2 * GAP * bool(sides), [size] * max(map(len, rows)), gap, column_gaps)
    width = lefts.pop() - gap + max(GAP, gap)
    if bar and (missing := _measure(bar.name) + 2 * GAP - width) > 0:
        lefts, margin, width = [x + missing / 2 for x in lefts], margin + missing / 2, width + missing
    lines = math.ceil(_measure(title, STYLE['figure.titlesize']) / (width - 2 * GAP))
    titles = textwrap.wrap(title, math.ceil(1.1 * len(title) / lines)) if title else []  # lines of about equal length
    top = 16 + 28 * len(titles) if titles else 0
    captions = [max(_lines(cell.caption) for cell in row) for row in rows]
    tops = _offsets(top + head, [size + 4 * bool(n) + LINE * n for n in captions], gap, row_gaps)
    foot = tops.pop()
    height = foot - gap + max(GAP, gap) + (4 * LINE if bar else 0)

    with new_figure(path, width / DPI, height / DPI) as figure:

        def write(x, y, text, **options):
            options = {'ha': 'center', 'va': 'center', 'linespacing': 1.15, **options}
            figure.text(x / width, 1 - y / height, text, **options)

        def draw_image(x, y, pixels):
            figure.figimage(pixels, round(x), round(height - y - len(pixels)), origin='upper')

        write(width / 2, top / 2 + 2, '\n'.join(titles), size=STYLE['figure.titlesize'])
        for left, name in zip(lefts, names):
            write(left + size / 2, top + head - 12, name, va='baseline', linespacing=1.1)
        for (first, last), name in (spans or {}).items():
            write((lefts[first] + lefts[last - 1] + size) / 2, top + head - 12, name, va='baseline', weight='bold')
        for y, name in zip(tops, sides):
            write(margin, y + size / 2, name, ha='right')
        for y, row in zip(tops, rows):
            for x, cell in zip(lefts, row):
                draw_image(x, y, enlarge(np.clip(cell.pixels, 0, 1), size))
                for n, line in enumerate(cell.caption.split('\n')):
                    options = {'va': 'baseline', 'size': CAPTION, 'weight': 'bold' if cell.strong else 'normal'}
                    write(x + size / 2, y + size + LINE * (n + 1) - 2, _shorten(line, size + gap // 2), **options)
        if bar:
            start, end = (width - len(bar.colors)) / 2, (width + len(bar.colors)) / 2
            draw_image(start, foot + LINE, np.repeat(bar.colors[None], LINE, axis=0))
            write(start - GAP, foot + 1.5 * LINE, bar.low, ha='right')
            write(end + GAP, foot + 1.5 * LINE, bar.high, ha='left')
            write(width / 2, foot + 2.8 * LINE, bar.name)


def enlarge(pixels: Real[np.ndarray, 'h w C'], side: int) -> Real[np.ndarray, '{side} {side} C']:
    """Enlarges an image to side x side pixels by repeating values; h and w must divide the side."""
    height, width = pixels.shape[:2]
    return pixels.repeat(side // height, axis=0).repeat(side // width, axis=1)


def _offsets(start, sizes, gap, wide):
    """Returns the start offset of each cell and of the next cell after the last; `wide` are cells after wide gaps."""
    offsets = [start]
    for n, size in enumerate(sizes, start=1):
        offsets.append(offsets[-1] + size + gap + EXTRA * (n in wide))
    return offsets


def _lines(text):
    return text.count('\n') + 1 if text else 0


@functools.cache
def _measure(text, size=STYLE['font.size'], weight='normal'):
    """Returns the width of a line of text in pixels of the file."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=STYLE['font.family'], weight=weight)
    return TextPath((0, 0), text, size=size, prop=font).get_extents().width * DPI / 72 if text.strip() else 0


def _shorten(text, width):
    """Shortens a caption so that its width, also in bold, is at most `width` pixels."""
    if _measure(text, CAPTION, 'bold') <= width:
        return text
    while text and _measure(text + '…', CAPTION, 'bold') > width:
        text = text[:-1]
    return text + '…'
