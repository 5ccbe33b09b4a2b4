"""Photographs with bounding boxes, class names and scores, as a PNG file.

Photographs are resized before boxes are drawn. Lines and labels have the same size on small and large photographs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from artifacts_jax.drawing import pictures
from artifacts_jax.drawing.pictures import DARK, GAP, LIGHT, Cell

WIDTH = 960  # width of a photograph, in pixels of the file; a figure has the width of at most two photographs
MAX_HEIGHT = 4 * WIDTH  # of a row, in pixels; higher photographs are scaled down
FONT = 22  # height of the letters of a label, in pixels
LINE, EDGE = 4, 1  # widths of the line of a box and of its dark edges
PAD = 5  # space around the text of a label


class Photograph(NamedTuple):
    """An image and its boxes."""

    pixels: UInt8[np.ndarray, 'H W 3']
    boxes: Float[np.ndarray, 'N 4']  # x1 y1 x2 y2, pixels counted from 0; the last pixel belongs to the box
    names: Sequence[str]  # class name of each box
    scores: Sequence[float] | None = None  # score of each box, for detections
    caption: str = ''


def draw(path: Path, photographs: Sequence[Photograph], *, classes: Sequence[str] = (), title: str = '') -> None:
    """Draws photographs with their boxes in rows that fill the width of the figure.

    Boxes with higher scores are drawn over boxes with lower scores. Labels do not cover other labels if there is space.

    Args:
      path: the PNG file to write.
      photographs: photographs of any sizes.
      classes: names of all classes, so that a class has the same colour in every figure; default: the names that occur.
      title: text above the photographs.

    Raises:
      ValueError: `photographs` is empty, or a photograph has not one name and one score for each box, or a box is not
        finite.
    """
    if not photographs:
        raise ValueError('photographs=[]: nothing to draw; expected at least one photograph')
    for photograph in photographs:
        _check(photograph)
    occurring = sorted({name for photograph in photographs for name in photograph.names})
    classes = [*classes, *(name for name in occurring if name not in classes)]
    colours = {name: colour(n) for n, name in enumerate(classes)}
    columns = 1 if len(photographs) == 1 else 2 if len(photographs) < 5 else 3
    width = WIDTH * min(columns, 2) + GAP * (columns - 1)
    rows, last_height = [], MAX_HEIGHT
    for n in range(0, len(photographs), columns):
        row = photographs[n : n + columns]
        limit = last_height if len(row) < columns else MAX_HEIGHT  # an incomplete row is as high as the row before
        sizes = pictures.fit([x.pixels.shape[:2] for x in row], width, limit)
        rows.append([Cell(_draw_photograph(x, size, colours), size[0], x.caption) for x, size in zip(row, sizes)])
        last_height = sizes[0][1]
    pictures.draw(path, rows, width + 2 * GAP, title=title)


def colour(n: int) -> tuple[int, int, int]:
    """Returns the colour of class n, RGB in 0 to 255. Up to 40 classes have different colours."""
    from matplotlib import color_sequences

    colours: Any = [*color_sequences['tab20'], *color_sequences['tab20b']]
    red, green, blue = (round(255 * x) for x in colours[n % len(colours)])
    return red, green, blue


def _check(photograph):
    count, names, scores = len(photograph.boxes), photograph.names, photograph.scores
    if len(names) != count or (scores is not None and len(scores) != count):
        score_count = 'no' if scores is None else len(scores)
        raise ValueError(f'{count} boxes, but {len(names)} names and {score_count} scores; expected one for each box')
    if not np.isfinite(photograph.boxes).all():
        raise ValueError('boxes: contain nan or inf; expected finite coordinates')


def _draw_photograph(photograph, size, colours):
    """Returns the photograph, resized to (width, height), with its boxes and labels."""
    from PIL import Image, ImageDraw

    picture = Image.fromarray(photograph.pixels).resize(size, Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(picture)
    scale = np.array([*size, *size]) / np.array([*photograph.pixels.shape[1::-1]] * 2)
    corners = (photograph.boxes + np.array([0, 0, 1, 1])) * scale
    corners = np.clip(np.rint(corners), 0, np.array([*size, *size])).astype(int)
    names, scores = photograph.names, photograph.scores
    order = range(len(corners)) if scores is None else np.argsort(scores, kind='stable')
    for n in order:
        _draw_box(pen, corners[n], colours[names[n]])
    occupied = []  # rectangles of the labels so far
    for n in list(order)[::-1]:
        text = names[n] if scores is None else f'{names[n]} {scores[n]:.2f}'
        _draw_label(pen, text, corners[n], size, colours[names[n]], occupied)
    return picture


def _draw_box(pen, corners, rgb):
    """Draws the line of a box inside its corners, with a dark edge on both sides."""
    x1, y1, x2, y2 = (int(x) for x in corners)
    x2, y2 = max(x2 - 1, x1), max(y2 - 1, y1)
    line_width = max(1, min(LINE + 2 * EDGE, (x2 - x1) // 2, (y2 - y1) // 2))
    pen.rectangle((x1, y1, x2, y2), outline=DARK, width=line_width)
    if line_width > 2 * EDGE:
        pen.rectangle((x1 + EDGE, y1 + EDGE, x2 - EDGE, y2 - EDGE), outline=rgb, width=line_width - 2 * EDGE)


def _draw_label(pen, text, corners, size, rgb, occupied):
    """Draws a label at an edge of its box, where it covers the least area of other labels."""
    font = pictures.font(FONT)
    width, height = round(pen.textlength(text, font)) + 2 * PAD, FONT + 2 * PAD
    x1, y1, x2, y2 = (int(x) for x in corners)
    candidates = [
        *((x, y) for y in (y1 - height, y1) for x in (x1, x2 - width)),
        *((x, y) for y in (y2 - height, y2) for x in (x1, x2 - width)),
        *((x1, y) for y in range(y1 + height, y2 - height, height)),
    ]
    positions = [
        (min(max(x, 0), max(size[0] - width, 0)), min(max(y, 0), max(size[1] - height, 0))) for x, y in candidates
    ]
    x, y = min(positions, key=lambda position: sum(_intersect((*position, width, height), other) for other in occupied))
    occupied.append((x, y, width, height))
    pen.rounded_rectangle((x, y, x + width - 1, y + height - 1), 4, rgb, DARK, EDGE)
    ink = LIGHT if np.dot(rgb, (0.299, 0.587, 0.114)) < 140 else DARK
    pen.text((x + PAD, y + height / 2), text, ink, font, 'lm')


def _intersect(a, b):
    """Returns the area, in pixels, of the intersection of two rectangles (x, y, width, height)."""
    sides = [min(a[n] + a[n + 2], b[n] + b[n + 2]) - max(a[n], b[n]) for n in (0, 1)]
    return max(sides[0], 0) * max(sides[1], 0)
