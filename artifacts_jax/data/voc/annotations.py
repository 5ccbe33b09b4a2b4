"""Reads the objects of an image from VOC's XML files, also from files of other annotation tools."""

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
    """The objects of an image, in the order of its annotation."""

    labels: Int32[np.ndarray, ' N']  # indices in NAMES
    boxes: Float32[np.ndarray, 'N 4']  # x1 y1 x2 y2, pixels counted from 1; both corners belong to the object
    is_difficult: Bool[np.ndarray, ' N']
    is_truncated: Bool[np.ndarray, ' N']


def make_objects(rows: list[tuple[int, list[float], bool, bool]]) -> Objects:
    """Returns Objects from a list of (label, box, is_difficult, is_truncated)."""
    labels, boxes, difficult, truncated = zip(*rows) if rows else ((), (), (), ())
    return Objects(
        np.array(labels, np.int32),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(difficult, bool),
        np.array(truncated, bool),
    )


NO_OBJECTS = make_objects([])


def compute_labels(objects: Objects) -> Int8[np.ndarray, '20']:
    """Returns a label for each class: 1 present, 0 if all its objects are difficult, -1 not present."""
    labels = np.full(len(NAMES), -1, np.int8)
    labels[objects.labels] = 0
    labels[objects.labels[~objects.is_difficult]] = 1
    return labels


def clip_objects(objects: Objects, size: tuple[int, int]) -> Objects:
    """Returns the objects with boxes clipped to an image of this (height, width); drops objects that are outside."""
    boxes = objects.boxes
    if not len(boxes):
        return objects
    height, width = size
    is_inside = (boxes[:, 2] >= 1) & (boxes[:, 3] >= 1) & (boxes[:, 0] <= width) & (boxes[:, 1] <= height)
    clipped = np.clip(boxes, 1, np.array([width, height, width, height], np.float32))
    return Objects(*(column[is_inside] for column in objects._replace(boxes=clipped)))


def read_annotation(path: Path) -> tuple[Objects, tuple[int, int] | None]:
    """Reads an annotation file.

    The <part> elements of persons (head, hand, foot) are ignored. An empty or missing flag counts as 0.

    Args:
      path: an XML file.

    Returns:
      (objects, (height, width) of the image or None if the file does not state it).

    Raises:
      DataError: the file cannot be read, an object has no box, or its class is not one of VOC's; the message suggests
        the nearest class.
    """
    try:
        root = xml.etree.ElementTree.fromstring(path.read_bytes())
    except (OSError, SyntaxError, ValueError, LookupError) as error:
        raise DataError(f'{path}: cannot be read as XML ({first_line(error)})') from error
    objects = []
    for n, node in enumerate(root.findall('object'), 1):
        where = f'{path}, object {n}'
        label = _parse_class(_text(node, 'name'), where)
        box = [_parse_number(node, f'bndbox/{corner}', where) for corner in CORNERS]
        if box[0] > box[2] or box[1] > box[3]:
            raise DataError(f'{where}: the box is {box}; expected xmin <= xmax and ymin <= ymax')
        objects.append((label, box, _parse_flag(node, 'difficult', where), _parse_flag(node, 'truncated', where)))
    size = _text(root, 'size/height'), _text(root, 'size/width')
    if not all(size):
        return make_objects(objects), None
    height, width = (int(_parse_number(root, f'size/{side}', str(path))) for side in ('height', 'width'))
    return make_objects(objects), (height, width)


def _text(node, tag):
    return (node.findtext(tag) or '').strip()


def _parse_number(node, tag, where):
    text = _text(node, tag)
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise DataError(f'{where}: <{tag}> is {text!r}; expected a number of pixels')
    return value


def _parse_flag(node, tag, where):
    text = _text(node, tag)
    if text not in ('', '0', '1'):
        raise DataError(f'{where}: <{tag}> is {text!r}; expected 0 or 1')
    return text == '1'


def _parse_class(name, where):
    if name in NAMES:
        return NAMES.index(name)
    plain = re.sub('[^a-z]', '', name.lower())
    near = difflib.get_close_matches(plain, NAMES, n=1, cutoff=0.6)
    expected = f'did you mean {near[0]!r}?' if near else f'expected one of: {", ".join(NAMES)}'
    raise DataError(f'{where}: {name!r} is not a class of VOC; {expected}')
