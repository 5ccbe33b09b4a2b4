"""Photographs beside maps of the classes of their pixels, in PASCAL VOC's palette, with a legend, as a PNG file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from artifacts_jax.drawing import pictures
from artifacts_jax.drawing.pictures import DARK, GAP, LIGHT, Cell

WIDTH = 480  # of a picture, pixels of the file
HIGHEST = 4 * WIDTH  # pixels; pictures that would be higher are narrower
TEXT = 24  # height of a line of the legend, pixels
EDGE = (150, 150, 150)


class Row(NamedTuple):
    """An image, and maps of the classes of its pixels."""

    pixels: UInt8[np.ndarray, 'H W 3']
    maps: Sequence[Integer[np.ndarray, 'H W']]


def palette(count: int = 256) -> UInt8[np.ndarray, '{count} 3']:
    """Returns the colours of labels in VOC's masks, RGB: of a label's bits, each third goes to one of red, green, blue.

    Source: VOClabelcolormap.m of VOC's development kit.
    """
    labels, colours = np.arange(count), np.zeros((count, 3), np.int64)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= ((labels >> (3 * place + channel)) & 1) << (7 - place)
    return colours.astype(np.uint8)


def draw(path: Path, rows: Sequence[Row], heads: Sequence[str], names: Mapping[int, str], *, title: str = '') -> None:
    """Draws a row for each image, the photograph and its maps, and below the classes that occur.

    Args:
      path: the PNG file to write.
      rows: images of any sizes; all are drawn equally wide, but for very high ones.
      heads: what stands above the photographs and each of their maps.
      names: of the labels.
      title: written above.

    Raises:
      ValueError: there is no image, or one has not a map for each head but the first.
    """
    from PIL import Image

    if not rows or any(len(row.maps) != len(heads) - 1 for row in rows):
        raise ValueError(f'expected one image or more, with {len(heads) - 1} maps each')
    colours, drawn = palette(), []
    for row in rows:
        (size,) = pictures.fit([row.pixels.shape[:2]], WIDTH, HIGHEST)
        photograph = Image.fromarray(row.pixels).resize(size, Image.Resampling.LANCZOS)
        maps = [Image.fromarray(colours[x]).resize(size, Image.Resampling.NEAREST) for x in row.maps]
        drawn.append([Cell(picture, WIDTH) for picture in (photograph, *maps)])
    occurring = [label for label in names if any((x == label).any() for row in rows for x in row.maps)]
    width = len(heads) * (WIDTH + GAP) - GAP
    legend = _legend([(names[label], tuple(colours[label].tolist())) for label in occurring], width)
    drawn += [[Cell(line, width)] for line in legend]
    pictures.draw(path, drawn, width + 2 * GAP, heads=heads, title=title)


def write(path: Path, labels: UInt8[np.ndarray, 'H W']) -> None:
    """Writes the classes of an image's pixels as a PNG file with VOC's palette, as VOC's masks are."""
    from PIL import Image

    picture = Image.fromarray(labels)
    picture.putpalette(palette().reshape(-1).tolist())
    pictures.save(path, picture)


def _legend(entries, width):
    """Returns pictures of lines this wide, with the names and colours of (name, colour)."""
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
