"""Images of any sizes in rows on one sheet, with text, as a PNG file.

Lengths are in pixels of the file. The figures are drawn by Pillow and not by matplotlib, because labels are placed
where they cover the fewest pixels of other labels. matplotlib knows the size of a text only after drawing it. Pillow
and matplotlib's font are imported when a figure is drawn, so that importing this module is fast.
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
    """An image in a row."""

    picture: Any  # a Pillow image
    width: int  # of its column; the image is centred in the column
    caption: str = ''  # text below the image


def draw(path: Path, rows: Sequence[Sequence[Cell]], width: int, *, heads: Sequence[str] = (), title: str = '') -> None:
    """Draws rows of images, each row centred on the sheet.

    Args:
      path: the PNG file to write.
      rows: rows of images; the images of a row have the same height.
      width: width of the sheet in pixels.
      heads: headings of the columns, above the first row.
      title: text above the rows.
    """
    from PIL import Image, ImageDraw

    foot = CAPTION + GAP + GAP // 2 if any(cell.caption for row in rows for cell in row) else GAP
    top = (GAP + TITLE if title else 0) + GAP + (HEAD if heads else 0)
    sheet = Image.new('RGB', (width, top + sum(row[0].picture.height + foot for row in rows)), LIGHT)
    pen = ImageDraw.Draw(sheet)
    _write_centred(pen, title, TITLE, (width / 2, GAP + TITLE / 2), width - 2 * GAP)
    for row in rows:
        left = (width - sum(cell.width for cell in row) - GAP * (len(row) - 1)) // 2
        for cell, head in zip(row, heads or [''] * len(row)):
            middle, bottom = left + cell.width / 2, top + cell.picture.height
            sheet.paste(cell.picture, (left + (cell.width - cell.picture.width) // 2, top))
            _write_centred(pen, head, HEAD, (middle, top - HEAD / 2 - GAP / 4), cell.width)
            _write_centred(pen, cell.caption, CAPTION, (middle, bottom + GAP / 2 + CAPTION / 2), cell.width)
            left += cell.width + GAP
        top, heads = bottom + foot, ()
    save(path, sheet)


def save(path: Path, picture: Any) -> None:
    """Writes a Pillow image to a PNG file atomically."""
    buffer = io.BytesIO()
    picture.save(buffer, 'PNG')
    write_atomically(path, buffer.getvalue())


def fit(sizes: Sequence[Sequence[int]], width: float, max_height: float) -> list[tuple[int, int]]:
    """Returns (width, height) of the images of a row, scaled to the same height so that they fill the row.

    Args:
      sizes: the original (height, width) of each image.
      width: width of the row, including the gaps between images.
      max_height: maximum height of the row; if it applies, the row is narrower than `width`.
    """
    ratios = [columns / rows for rows, columns in sizes]
    height = min(max_height, (width - GAP * (len(ratios) - 1)) / sum(ratios))
    return [(max(1, round(height * ratio)), max(1, round(height))) for ratio in ratios]


@functools.cache
def font(height: float) -> Any:
    """Returns the font of the charts for lines of this height in pixels."""
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), max(1, round(0.8 * height)))


def _write_centred(pen, text, height, middle, width):
    """Writes a line of text centred at a point, with a smaller font if it is wider than `width`."""
    length = pen.textlength(text, font(height))
    pen.text(middle, text, DARK, font(height * min(1, width / max(length, 1))), 'mm')
