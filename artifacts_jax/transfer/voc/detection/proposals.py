"""Proposals: the boxes of images in which objects are looked for, from selective search or from a file.

| a box | is |
|---|---|
| that reaches beyond its image | cut to it |
| less than a pixel wide or high, also once it is cut | left out |
| that holds nan or inf | an error |

How many they are is said. Where too many reach beyond their images, the file is of others: an error. An image without
any box is trained on with its own objects alone, and nothing is found in it; that is said, too. Only where no image has
any, it is an error.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc.annotations import Objects
from artifacts_jax.transfer.voc.detection import boxes as geometry
from artifacts_jax.transfer.voc.detection import proposal_files, selective_search

SEARCH = 'selective_search'
THRESHOLDS = (0.5, 0.7)
# A file is of other images where, in more than this part of them, more than this part of the boxes reach beyond the
# image by more than a pixel. In a file of its own images hardly any do.
FOREIGN = 0.05


def load(
    records: Sequence, source: str, *, place: str, folder: Path | None = None, workers: int = 0
) -> list[Float32[np.ndarray, '_ 4']]:
    """Returns the boxes of images, and prints what they are, and how many objects they find.

    Args:
      records: of the images.
      source: 'selective_search', or a file of proposal_files.py.
      place: what the images are, for messages, such as 'trainval of VOCdevkit/VOC2007'.
      folder: where selective search keeps what it finds.
      workers: its processes, 0: as many as there are CPUs.

    Returns:
      Of each image x1 y1 x2 y2, sorted by these, in the image: pixels are counted from 0, and those named belong to the
      box. Which boxes come first says nothing of how good they are.

    Raises:
      DataError: there is no such source, its file is of other images or is damaged, or no image has a box; or OpenCV is
        missing.
      ValueError: selective search has no folder.
    """
    if source != SEARCH and Path(source).suffix not in proposal_files.SUFFIXES:
        raise DataError(f'there are no proposals {source!r}: expected {SEARCH}, or a file .mat or .npz')
    found, unusable = None, {}
    if source == SEARCH:
        if folder is None:
            raise ValueError(f'proposals by {SEARCH} need a folder that keeps them')
        found, unusable = selective_search.of_records(records, folder, workers=workers)
    images = [(record.name, record.size, record.objects) for record in records]
    names, sizes, objects = zip(*images)
    if found is None:
        found = proposal_files.read(Path(source).expanduser(), names)
    what = f'proposals {source} of {place}'
    cut = cleaned(found, names, sizes, what)
    if without := [name for name, each in zip(names, cut) if not len(each)]:
        if len(without) == len(names):
            raise DataError(f'{what}: no image has a box')
        reason = f' ({unusable[without[0]]})' if without[0] in unusable else ''
        _warn(f'{what}: {len(without):,} of {len(names):,} images have no box, such as {without[0]}{reason}')
    counts = np.array([len(each) for each in cut])
    print(
        f'proposals of {place}: {len(cut):,} images, {counts.mean():,.0f} boxes in each ({counts.min():,} to'
        f' {counts.max():,}); {_recall_text(objects, cut)}',
        flush=True,
    )
    return cut


def recall(
    objects: Sequence[Objects],
    boxes: Sequence[Float32[np.ndarray, '_ 4']],
    thresholds: Sequence[float] = THRESHOLDS,
) -> tuple[list[float | None], int]:
    """Returns (the parts of all objects that a box overlaps by these or more, of how many objects).

    Difficult objects are left out, as where detections are scored. Where there is no object, the parts are None.

    Args:
      objects: of each image.
      boxes: of each image, counted from 0.
      thresholds: intersections over unions.
    """
    best = []
    for truth, each in zip(objects, boxes, strict=True):
        wanted = geometry.from_voc(truth.boxes[~truth.is_difficult])
        best.append(geometry.iou(wanted, each).max(axis=1, initial=0.0))
    best = np.concatenate([np.zeros(0), *best])
    return [float((best >= threshold).mean()) if len(best) else None for threshold in thresholds], len(best)


def sorted_boxes(boxes: Float[np.ndarray, 'N 4']) -> Float[np.ndarray, 'N 4']:
    """Returns boxes by x1, of equal ones by y1, then x2, then y2."""
    return boxes[np.lexsort(boxes.T[::-1])]


def cleaned(
    found: Sequence[Float[np.ndarray, '_ 4']], names: Sequence[str], sizes: Sequence[tuple[int, int]], what: str
) -> list[Float32[np.ndarray, '_ 4']]:
    """Returns the boxes of each image, by the rules above; says how many were changed.

    Args:
      found: the boxes of each image, numbers [_, 4].
      names: of the images.
      sizes: their heights and widths.
      what: they all are, for messages.

    Raises:
      DataError: boxes are of other images, or not finite.
    """
    rows = [(name, *_clean(name, boxes, size, what)) for name, boxes, size in zip(names, found, sizes, strict=True)]
    if len(foreign := [name for name, *_, odd in rows if odd]) > FOREIGN * len(names):
        raise DataError(
            f'{what}: boxes of {len(foreign):,} of {len(names):,} images, such as {foreign[0]}, do not fit into them:'
            f' they are of other images, of other sizes of these, or not in the order that such a file should have'
        )
    changes = {'reach beyond their images and are cut': 2, 'are less than a pixel wide or high and left out': 3}
    for action, column in changes.items():
        if those := [row for row in rows if row[column]]:
            count = sum(row[column] for row in those)
            _warn(f'{what}: {count:,} boxes {action}, such as {those[0][column]:,} of image {those[0][0]}')
    return [row[1] for row in rows]


def _clean(name, boxes, size, what):
    """Returns (an image's boxes by the rules above, how many were cut, how many left out, whether they are foreign)."""
    if not np.isfinite(boxes).all():
        raise DataError(f'{what}: the boxes of image {name} hold nan or inf, expected finite numbers')
    height, width = size
    last = np.array([width, height, width, height]) - 1
    foreign = ((boxes < -1) | (boxes > last + 1)).any(axis=1).sum() > FOREIGN * len(boxes)
    cut = np.clip(boxes, 0, last)
    # Also of boxes wholly outside, which have become a line on the border.
    kept = (boxes[:, :2] <= boxes[:, 2:]).all(axis=1) & (boxes[:, :2] <= last[2:]).all(axis=1)
    kept &= (boxes[:, 2:] >= 0).all(axis=1)
    reaching = int((cut[kept] != boxes[kept]).any(axis=1).sum())
    return sorted_boxes(cut[kept].astype(np.float32)), reaching, int((~kept).sum()), foreign


def _warn(text):
    print(f'warning: {text}', file=sys.stderr, flush=True)


def _recall_text(objects, boxes):
    parts, count = recall(objects, boxes)
    if not count:
        return 'there are no objects to find'
    found = ' and '.join(f'{100 * part:.1f} %' for part in parts)
    return f'they find {found} of {count:,} objects at IoU {" and ".join(map(str, THRESHOLDS))}'
