"""Pictures of any sizes in rows on one sheet, with text, as a PNG file that can go into a talk as it is.

Lengths are in pixels of the file. By Pillow, and not on the charts' canvas, since labels are placed by the pixels that
they hide, which matplotlib knows only once it has drawn. Pillow and matplotlib's font are imported when something is
drawn, so that importing this module costs nothing.
"""

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from artifacts_jax.files import write_atomically

GAP = 16
CAPTION, HEAD, TITLE = 26, 28, 34  # heights of lines
DARK, LIGHT = (20, 20, 20), (255, 255, 255)


class Cell(NamedTuple):
    """A picture in a row."""

    picture: Any  # of Pillow
    width: int  # of its column, in whose middle it is
    caption: str = ''  # below it


def draw(path: Path, rows: Sequence[Sequence[Cell]], width: int, *, heads: Sequence[str] = (), title: str = '') -> None:
    """Draws rows of pictures, each in the middle of the sheet.

    Args:
      path: the PNG file to write.
      rows: the pictures; those of a row are equally high.
      width: of the sheet.
      heads: what stands above the columns of the first row.
      title: written above.
    """
    from PIL import Image, ImageDraw

    foot = CAPTION + GAP + GAP // 2 if any(cell.caption for row in rows for cell in row) else GAP
    top = (GAP + TITLE if title else 0) + GAP + (HEAD if heads else 0)
    sheet = Image.new('RGB', (width, top + sum(row[0].picture.height + foot for row in rows)), LIGHT)
    pen = ImageDraw.Draw(sheet)
    _centred(pen, title, TITLE, (width / 2, GAP + TITLE / 2), width - 2 * GAP)
    for row in rows:
        left = (width - sum(cell.width for cell in row) - GAP * (len(row) - 1)) // 2
        for cell, head in zip(row, heads or [''] * len(row)):
            middle, bottom = left + cell.width / 2, top + cell.picture.height
            sheet.paste(cell.picture, (left + (cell.width - cell.picture.width) // 2, top))
            _centred(pen, head, HEAD, (middle, top - HEAD / 2 - GAP / 4), cell.width)
            _centred(pen, cell.caption, CAPTION, (middle, bottom + GAP / 2 + CAPTION / 2), cell.width)
            left += cell.width + GAP
        top, heads = bottom + foot, ()
    save(path, sheet)


def save(path: Path, picture: Any) -> None:
    """Writes a picture of Pillow to a PNG file, whole or not at all."""
    written = io.BytesIO()
    picture.save(written, 'PNG')
    write_atomically(path, written.getvalue())


def fit(sizes: Sequence[Sequence[int]], width: float, highest: float) -> list[tuple[int, int]]:
    """Returns the (width, height) of pictures that fill a row, equally high.

    Args:
      sizes: their own height and width.
      width: of the row, with the gaps between them.
      highest: the row; it is narrower where it would be higher.
    """
    ratios = [across / down for down, across in sizes]
    height = min(highest, (width - GAP * (len(ratios) - 1)) / sum(ratios))
    return [(max(1, round(height * ratio)), max(1, round(height))) for ratio in ratios]


@functools.cache
def font(height: float) -> Any:
    """Returns the font of the charts, for lines so many pixels high."""
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), max(1, round(0.8 * height)))


def _centred(pen, text, height, middle, width):
    """Writes a line of text around a point, smaller where it would be too wide."""
    length = pen.textlength(text, font(height))
    pen.text(middle, text, DARK, font(height * min(1, width / max(length, 1))), 'mm')
