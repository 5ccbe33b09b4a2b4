"""Photographs with boxes around what is in them, its names and scores, as a PNG file.

Boxes and labels are as large on a small photograph as on a large one: photographs are scaled before they are drawn on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from artifacts_jax.drawing import pictures
from artifacts_jax.drawing.pictures import DARK, GAP, LIGHT, Cell

WIDTH = 960  # of a photograph beside another, pixels of the file; a figure is at most two of them wide
HIGHEST = 4 * WIDTH  # row, pixels; photographs that would be higher are narrower
FONT = 22  # height of a label's letters, pixels
LINE, EDGE = 4, 1  # widths of a box and of the dark edges that set it off
PAD = 5  # around a label's text


class Photograph(NamedTuple):
    """An image and the boxes in it."""

    pixels: UInt8[np.ndarray, 'H W 3']
    boxes: Float[np.ndarray, 'N 4']  # x1 y1 x2 y2; pixels are counted from 0, and those named belong to the box
    names: Sequence[str]  # of the class of each box
    scores: Sequence[float] | None = None  # of each box, if they are detections
    caption: str = ''


def draw(path: Path, photographs: Sequence[Photograph], *, classes: Sequence[str] = (), title: str = '') -> None:
    """Draws photographs in rows as wide as the figure; a class has one colour in all of them.

    Where boxes overlap, that of the better score lies above. A label is where it hides no other one, if there is room.

    Args:
      path: the PNG file to write.
      photographs: of any sizes.
      classes: all that there are, so that a class has the same colour in every figure; those that occur, if none are
        given.
      title: written above.

    Raises:
      ValueError: there is no photograph, or one has not a name and score for each box, or a box that is not finite.
    """
    if not photographs:
        raise ValueError('there are no photographs to draw')
    for each in photographs:
        _check(each)
    occurring = sorted({name for each in photographs for name in each.names})
    classes = [*classes, *(name for name in occurring if name not in classes)]
    colours = {name: colour(n) for n, name in enumerate(classes)}
    columns = 1 if len(photographs) == 1 else 2 if len(photographs) < 5 else 3
    inside = WIDTH * min(columns, 2) + GAP * (columns - 1)
    rows, highest = [], HIGHEST
    for n in range(0, len(photographs), columns):
        row = photographs[n : n + columns]
        limit = highest if len(row) < columns else HIGHEST  # fewer are as high as the row before
        sizes = pictures.fit([each.pixels.shape[:2] for each in row], inside, limit)
        rows.append([Cell(_drawn(each, size, colours), size[0], each.caption) for each, size in zip(row, sizes)])
        highest = sizes[0][1]
    pictures.draw(path, rows, inside + 2 * GAP, title=title)


def colour(n: int) -> tuple[int, int, int]:
    """Returns the colour of the class at a position among all of them, RGB in 0 to 255; those of 40 classes differ."""
    from matplotlib import color_sequences

    colours: Any = [*color_sequences['tab20'], *color_sequences['tab20b']]
    red, green, blue = (round(255 * x) for x in colours[n % len(colours)])
    return red, green, blue


def _check(each):
    count = len(each.boxes)
    if len(each.names) != count or (each.scores is not None and len(each.scores) != count):
        scores = 'none' if each.scores is None else len(each.scores)
        raise ValueError(f'{count} boxes have {len(each.names)} names and {scores} scores, expected as many')
    if not np.isfinite(each.boxes).all():
        raise ValueError('the boxes to draw hold nan or inf')


def _drawn(each, size, colours):
    """Returns a photograph of this (width, height) with its boxes and labels."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(each.pixels).resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    scale = np.array([*size, *size]) / np.array([*each.pixels.shape[1::-1]] * 2)
    corners = (each.boxes + np.array([0, 0, 1, 1])) * scale
    corners = np.clip(np.rint(corners), 0, np.array([*size, *size])).astype(int)
    order = range(len(corners)) if each.scores is None else np.argsort(each.scores, kind='stable')
    for n in order:
        _frame(pen, corners[n], colours[each.names[n]])
    taken = []
    for n in list(order)[::-1]:
        text = each.names[n] if each.scores is None else f'{each.names[n]} {each.scores[n]:.2f}'
        _label(pen, text, corners[n], size, colours[each.names[n]], taken)
    return picture


def _frame(pen, corners, rgb):
    """Draws a box inside its corners, with a dark edge on both sides."""
    x1, y1, x2, y2 = (int(x) for x in corners)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    thick = max(1, min(LINE + 2 * EDGE, (x2 - x1) // 2, (y2 - y1) // 2))
    pen.rectangle((x1, y1, x2, y2), outline=DARK, width=thick)
    if thick > 2 * EDGE:
        pen.rectangle((x1 + EDGE, y1 + EDGE, x2 - EDGE, y2 - EDGE), outline=rgb, width=thick - 2 * EDGE)


def _label(pen, text, corners, size, rgb, taken):
    """Writes a label at a corner of its box, where it covers least of those that are there."""
    font = pictures.font(FONT)
    width, height = round(pen.textlength(text, font)) + 2 * PAD, FONT + 2 * PAD
    x1, y1, x2, y2 = (int(x) for x in corners)
    places = [
        *((x, y) for y in (y1 - height, y1) for x in (x1, x2 - width)),
        *((x, y) for y in (y2 - height, y2) for x in (x1, x2 - width)),
        *((x1, y) for y in range(y1 + height, y2 - height, height)),
    ]
    fitting = [(min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))) for x, y in places]
    x, y = min(fitting, key=lambda place: sum(_shared((*place, width, height), other) for other in taken))
    taken.append((x, y, width, height))
    pen.rounded_rectangle((x, y, x + width - 1, y + height - 1), 4, rgb, DARK, EDGE)
    ink = LIGHT if np.dot(rgb, (0.299, 0.587, 0.114)) < 140 else DARK
    pen.text((x + PAD, y + height / 2), text, ink, font, 'lm')


def _shared(a, b):
    """Returns how many pixels two rectangles, x, y, width and height, have in common."""
    sides = [min(a[n] + a[n + 2], b[n] + b[n + 2]) - max(a[n], b[n]) for n in (0, 1)]
    return max(sides[0], 0) * max(sides[1], 0)
