"""Photographs with boxes around what is in them, its names and scores, as a PNG file that can go into a talk as it is.

Boxes and labels are as large on a small photograph as on a large one: photographs are scaled before they are drawn on.
Pillow and matplotlib's font are imported when something is drawn, so that importing this module costs nothing.
"""

import functools
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from artifacts_jax.files import write_atomically

WIDTH = 960  # of a photograph beside another, pixels of the file; a figure is at most two of them wide
HIGHEST = 4 * WIDTH  # row, pixels; photographs that would be higher are narrower
GAP = 16
FONT, CAPTION, TITLE = 22, 26, 34  # heights of letters, pixels
LINE, EDGE = 4, 1  # widths of a box and of the dark edges that set it off
PAD = 5  # around a label's text
DARK, LIGHT = (20, 20, 20), (255, 255, 255)
GOLDEN = 0.381966  # of the circle of hues: however many classes there are, those of few steps lie apart
SHADES = ((0.69, 0.17), (0.53, 0.2), (0.87, 0.17))  # lightness and chroma in Oklab, where hues are equally bright
# From Oklab to the cube roots of what cones receive, and from what these receive to linear RGB. Source: Ottosson, "A
# perceptual color space for image processing", 2020.
TO_CONES = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.291485548]]
)
TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


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
    from PIL import Image, ImageDraw

    if not photographs:
        raise ValueError('there are no photographs to draw')
    for each in photographs:
        _check(each)
    occurring = sorted({name for each in photographs for name in each.names})
    classes = [*classes, *(name for name in occurring if name not in classes)]
    colours = {name: colour(n) for n, name in enumerate(classes)}
    rows, width = _rows([each.pixels.shape[:2] for each in photographs])
    head = 2 * GAP + TITLE if title else GAP
    foot = GAP + CAPTION + GAP // 2 if any(each.caption for each in photographs) else GAP
    figure = Image.new('RGB', (width, head + sum(height + foot for height, _ in rows)), LIGHT)
    pen, top, left_over = ImageDraw.Draw(figure), head, iter(photographs)
    if title:
        _centred(pen, title, TITLE, (width / 2, head / 2), width - 2 * GAP)
    for height, widths in rows:
        left = (width - sum(widths) - GAP * (len(widths) - 1)) // 2
        for across in widths:
            each = next(left_over)
            figure.paste(_drawn(each, (across, height), colours), (left, top))
            middle = (left + across / 2, top + height + GAP / 2 + CAPTION / 2)
            _centred(pen, each.caption, CAPTION, middle, across)
            left += across + GAP
        top += height + foot
    written = io.BytesIO()
    figure.save(written, 'PNG')
    write_atomically(path, written.getvalue())


def colour(n: int) -> tuple[int, int, int]:
    """Returns the colour of the class at a position among all of them, RGB in 0 to 255."""
    lightness, chroma = SHADES[n % len(SHADES)]
    hue = 2 * np.pi * n * GOLDEN
    linear = TO_RGB @ (TO_CONES @ (lightness, chroma * np.cos(hue), chroma * np.sin(hue))) ** 3
    linear = np.clip(linear, 0, 1)
    encoded = np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return tuple(round(255 * float(x)) for x in encoded)


def _check(each):
    count = len(each.boxes)
    if len(each.names) != count or (each.scores is not None and len(each.scores) != count):
        scores = 'none' if each.scores is None else len(each.scores)
        raise ValueError(f'{count} boxes have {len(each.names)} names and {scores} scores, expected as many')
    if not np.isfinite(each.boxes).all():
        raise ValueError('the boxes to draw hold nan or inf')


def _rows(sizes):
    """Returns ([(height, widths)] of rows, the figure's width) for photographs of these heights and widths."""
    columns = 1 if len(sizes) == 1 else 2 if len(sizes) < 5 else 3
    inside = WIDTH * min(columns, 2) + GAP * (columns - 1)
    rows = []
    for n in range(0, len(sizes), columns):
        ratios = [width / height for height, width in sizes[n : n + columns]]
        height = min(HIGHEST, (inside - GAP * (len(ratios) - 1)) / sum(ratios))
        if len(ratios) < columns and rows:  # as high as the row before
            height = min(height, rows[-1][0])
        rows.append((max(1, round(height)), [max(1, round(height * ratio)) for ratio in ratios]))
    return rows, inside + 2 * GAP


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
    font = _font(FONT)
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


def _centred(pen, text, height, middle, width):
    """Writes a line of text around a point, smaller where it would be too wide."""
    length = pen.textlength(text, _font(height))
    pen.text(middle, text, DARK, _font(height * min(1, width / max(length, 1))), 'mm')


def _shared(a, b):
    """Returns how many pixels two rectangles, x, y, width and height, have in common."""
    sides = [min(a[n] + a[n + 2], b[n] + b[n + 2]) - max(a[n], b[n]) for n in (0, 1)]
    return max(sides[0], 0) * max(sides[1], 0)


@functools.cache
def _font(height):
    """Returns the font of the charts."""
    from matplotlib import font_manager
    from PIL import ImageFont

    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), max(1, round(0.8 * height)))
