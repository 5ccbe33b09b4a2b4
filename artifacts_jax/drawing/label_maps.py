"""Photographs and their label maps in PASCAL VOC's palette, side by side with a legend, as a PNG file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from artifacts_jax.drawing import pictures
from artifacts_jax.drawing.pictures import DARK, GAP, LIGHT, Cell

WIDTH = 480  # of an image, in pixels of the file
MAX_HEIGHT = 4 * WIDTH  # of an image, in pixels; higher images are scaled down
TEXT = 24  # height of a line of the legend, in pixels
EDGE = (150, 150, 150)


class Row(NamedTuple):
    """An image and its label maps."""

    pixels: UInt8[np.ndarray, 'H W 3']
    maps: Sequence[Integer[np.ndarray, 'H W']]


def palette(count: int = 256) -> UInt8[np.ndarray, '{count} 3']:
    """Returns the RGB colours of the labels in VOC's masks. Bit n of a label goes to red, green or blue by n modulo 3.

    Source: VOClabelcolormap.m of VOC's development kit.
    """
    labels, colours = np.arange(count), np.zeros((count, 3), np.int64)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours.astype(np.uint8)


def draw(path: Path, rows: Sequence[Row], heads: Sequence[str], names: Mapping[int, str], *, title: str = '') -> None:
    """Draws one row for each image, with the photograph and its label maps, and a legend of the classes that occur.

    Args:
      path: the PNG file to write.
      rows: images of any sizes; all are resized to the same width, except very high ones.
      heads: headings of the column of photographs and of the columns of label maps.
      names: {label: class name}.
      title: text above the rows.

    Raises:
      ValueError: `rows` is empty, or a row has not one label map for each heading after the first.
    """
    from PIL import Image

    if not rows or any(len(row.maps) != len(heads) - 1 for row in rows):
        counts = [len(row.maps) for row in rows]
        raise ValueError(f'rows have {counts} label maps; expected at least one row, with {len(heads) - 1} each')
    colours, cells = palette(), []
    for row in rows:
        (size,) = pictures.fit([row.pixels.shape[:2]], WIDTH, MAX_HEIGHT)
        photograph = Image.fromarray(row.pixels).resize(size, Image.Resampling.LANCZOS)
        maps = [Image.fromarray(colours[x]).resize(size, Image.Resampling.NEAREST) for x in row.maps]
        cells.append([Cell(picture, WIDTH) for picture in (photograph, *maps)])
    occurring = [label for label in names if any((x == label).any() for row in rows for x in row.maps)]
    width = len(heads) * (WIDTH + GAP) - GAP
    legend = _legend([(names[label], tuple(colours[label].tolist())) for label in occurring], width)
    cells += [[Cell(line, width)] for line in legend]
    pictures.draw(path, cells, width + 2 * GAP, heads=heads, title=title)


def write(path: Path, labels: UInt8[np.ndarray, 'H W']) -> None:
    """Writes a label map as a PNG file with VOC's palette, the format of VOC's masks."""
    from PIL import Image

    picture = Image.fromarray(labels)
    picture.putpalette(palette().reshape(-1).tolist())
    pictures.save(path, picture)


def _legend(entries, width):
    """Returns the lines of the legend as images of this width; entries are (name, colour)."""
    from PIL import Image, ImageDraw

    lines, left, font = [], width, pictures.font(TEXT)
    for name, rgb in entries:
        needed = TEXT + GAP / 2 + font.getlength(name) + 2 * GAP
        if left + needed > width:
            lines.append(Image.new('RGB', (width, TEXT), LIGHT))
            pen, left = ImageDraw.Draw(lines[-1]), 0
        pen.rectangle((left, 0, left + TEXT - 1, TEXT - 1), rgb, EDGE)
        pen.text((left + TEXT + GAP / 2, TEXT / 2), name, DARK, font, 'lm')
        left += needed
    return lines
