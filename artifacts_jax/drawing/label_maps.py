"""Photographs beside maps of the classes of their pixels, in the palette of PASCAL VOC, with a legend, as a PNG file.

Pillow and matplotlib's font are imported when something is drawn, so that importing this module costs nothing.
"""

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from artifacts_jax.files import write_atomically

WIDTH = 480  # of a picture, pixels of the file
HIGHEST = 4 * WIDTH  # pixels; pictures that would be higher are narrower
GAP = 16
TEXT, HEAD, TITLE = 24, 28, 34  # heights of lines, pixels
INK, PAPER, EDGE = (20, 20, 20), (255, 255, 255), (150, 150, 150)


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
    from PIL import Image, ImageDraw

    if not rows or any(len(row.maps) != len(heads) - 1 for row in rows):
        raise ValueError(f'expected one image or more, with {len(heads) - 1} maps each')
    occurring = [label for label in names if any((x == label).any() for row in rows for x in row.maps)]
    sizes = [_size(*row.pixels.shape[:2]) for row in rows]
    width = len(heads) * (WIDTH + GAP) + GAP
    lines = _wrapped([names[label] for label in occurring], width - 2 * GAP)
    top = (GAP + TITLE if title else 0) + GAP + HEAD
    bottom = top + sum(height + GAP for _, height in sizes)
    figure = Image.new('RGB', (width, bottom + len(lines) * (TEXT + GAP)), PAPER)
    pen, colours = ImageDraw.Draw(figure), palette()
    if title:
        pen.text((width / 2, GAP + TITLE / 2), title, INK, _font(TITLE), 'mm')
    for n, head in enumerate(heads):
        pen.text((GAP + n * (WIDTH + GAP) + WIDTH / 2, top - HEAD / 2 - GAP / 4), head, INK, _font(HEAD), 'mm')
    for row, (shown, height) in zip(rows, sizes):
        for n, picture in enumerate((row.pixels, *(colours[x] for x in row.maps))):
            smooth = Image.Resampling.NEAREST if n else Image.Resampling.LANCZOS  # a label has no neighbours
            left = GAP + n * (WIDTH + GAP) + (WIDTH - shown) // 2
            figure.paste(Image.fromarray(picture).resize((shown, height), smooth), (left, top))
        top += height + GAP
    labels = iter(occurring)
    for line in lines:
        for left, name in line:
            box = (GAP + left, top, GAP + left + TEXT - 1, top + TEXT - 1)
            pen.rectangle(box, tuple(colours[next(labels)].tolist()), EDGE)
            pen.text((GAP + left + TEXT + GAP / 2, top + TEXT / 2), name, INK, _font(TEXT), 'lm')
        top += TEXT + GAP
    _save(path, figure)


def write(path: Path, labels: UInt8[np.ndarray, 'H W']) -> None:
    """Writes the classes of an image's pixels as a PNG file with VOC's palette, as VOC's masks are."""
    from PIL import Image

    figure = Image.fromarray(labels, 'L')
    figure.putpalette(palette().reshape(-1).tolist())
    _save(path, figure)


def _size(height, width):
    """Returns the width and height of an image in the file."""
    scale = min(WIDTH / width, HIGHEST / height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _save(path, figure):
    written = io.BytesIO()
    figure.save(written, 'PNG')
    write_atomically(path, written.getvalue())


def _wrapped(names, width):
    """Returns lines of (left, name) for entries of a legend this wide."""
    lines, left = [], width
    for name in names:
        needed = TEXT + GAP / 2 + _font(TEXT).getlength(name) + 2 * GAP
        if left + needed > width:
            lines.append([])
            left = 0
        lines[-1].append((left, name))
        left += needed
    return lines


@functools.cache
def _font(height):
    """Returns the font of the charts."""
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), max(1, round(0.8 * height)))
