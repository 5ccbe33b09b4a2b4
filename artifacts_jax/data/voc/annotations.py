"""The objects in an image, as VOC's XML files have them, also as other programs write these."""

import difflib
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int8, Int32

from artifacts_jax.data.errors import DataError, first_line

NAMES = (
    'aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep'
    ' sofa train tvmonitor'
).split()
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


class Objects(NamedTuple):
    """The objects of an image, in its annotation's order."""

    labels: Int32[np.ndarray, ' N']  # positions in NAMES
    boxes: Float32[np.ndarray, 'N 4']  # x1 y1 x2 y2; pixels are counted from 1, and those named belong to the object
    is_difficult: Bool[np.ndarray, ' N']
    is_truncated: Bool[np.ndarray, ' N']


def make_objects(rows: list[tuple[int, list[float], bool, bool]]) -> Objects:
    """Returns the Objects of (label, box, is_difficult, is_truncated) each."""
    labels, boxes, difficult, truncated = zip(*rows) if rows else ((), (), (), ())
    return Objects(
        np.array(labels, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(difficult, bool),
        np.array(truncated, bool),
    )


NO_OBJECTS = make_objects([])


def compute_labels(found: Objects) -> Int8[np.ndarray, '20']:
    """Returns for each class 1 where it is in an image, 0 where all its objects are difficult, -1 where it is not."""
    labels = np.full(len(NAMES), -1, np.int8)
    labels[found.labels] = 0
    labels[found.labels[~found.is_difficult]] = 1
    return labels


def clip_objects(found: Objects, size: tuple[int, int]) -> Objects:
    """Returns the objects with their boxes cut to an image of this (height, width), without those that lie outside."""
    boxes = found.boxes
    if not len(boxes):
        return found
    height, width = size
    there = (boxes[:, 2] >= 1) & (boxes[:, 3] >= 1) & (boxes[:, 0] <= width) & (boxes[:, 1] <= height)
    cut = np.clip(boxes, 1, np.array([width, height, width, height], np.float32))
    return Objects(*(column[there] for column in found._replace(boxes=cut)))


def read_annotation(path: Path) -> tuple[Objects, tuple[int, int] | None]:
    """Reads an annotation.

    Of persons' <part>s nothing is read. A flag that is empty or missing is not set.

    Args:
      path: an XML file.

    Returns:
      (its objects, the image's (height, width) or None where it does not say).

    Raises:
      DataError: it cannot be read, or an object has no box or a class that is none of VOC's; the message names the
        nearest.
    """
    try:
        root = xml.etree.ElementTree.fromstring(path.read_bytes())
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise DataError(f'{path}: cannot be read as XML ({first_line(error)})') from error
    found = []
    for n, node in enumerate(root.findall('object'), 1):
        place = f'{path}, object {n}'
        label = _class(_text(node, 'name'), place)
        box = [_number(node, f'bndbox/{corner}', place) for corner in CORNERS]
        if box[0] > box[2] or box[1] > box[3]:
            raise DataError(f'{place}: its box is {box}, expected xmin <= xmax and ymin <= ymax')
        found.append((label, box, _flag(node, 'difficult', place), _flag(node, 'truncated', place)))
    size = _text(root, 'size/height'), _text(root, 'size/width')
    if not all(size):
        return make_objects(found), None
    height, width = (int(_number(root, f'size/{side}', str(path))) for side in ('height', 'width'))
    return make_objects(found), (height, width)


def _text(node, tag):
    return (node.findtext(tag) or '').strip()


def _number(node, tag, place):
    text = _text(node, tag)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f'{place}: <{tag}> is {text!r}, expected a number of pixels')
    return value


def _flag(node, tag, place):
    text = _text(node, tag)
    if text not in ('', '0', '1'):
        raise DataError(f'{place}: <{tag}> is {text!r}, expected 0 or 1')
    return text == '1'


def _class(name, place):
    if name in NAMES:
        return NAMES.index(name)
    plain = re.sub('[^a-z]', '', name.lower())
    near = difflib.get_close_matches(plain, NAMES, n=1, cutoff=0.6)
    advice = f'the nearest is {near[0]!r}' if near else f'they are {", ".join(NAMES)}'
    raise DataError(f'{place}: {name!r} is no class of VOC; {advice}')
