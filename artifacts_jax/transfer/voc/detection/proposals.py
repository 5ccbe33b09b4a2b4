"""Proposals: the boxes of images in which objects are looked for, from selective search or from a file.

| a box | is |
|---|---|
| that reaches beyond its image | cut to it |
| less than a pixel wide or high, also once it is cut | left out |
| that holds nan or inf | an error |

Files of proposals are the published ones, and the project's own; nothing is unpickled.

    .mat    boxes   a cell for each image: rows y1 x1 y2 x2, counted from 1
            images  a cell for each image: its name; may be left out: then they are those of the split, in its order
    .npz    names   strings [M], of the images
            counts  integers [M], the boxes that each has
            boxes   numbers [all counts, 4]: rows x1 y1 x2 y2, counted from 0

How many they are is said. Where too many reach beyond their images, the file is of others: an error. An image without
any box is trained on with its own objects alone, and nothing is found in it; that is said, too. Only where no image has
any, it is an error.
"""

import io
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float, Float32, Float64

from artifacts_jax.data import npz
from artifacts_jax.data.errors import DataError, first_line
from artifacts_jax.data.voc.annotations import Objects
from artifacts_jax.files import write_atomically
from artifacts_jax.models import boxes as geometry
from artifacts_jax.transfer.voc.detection import selective_search

SELECTIVE_SEARCH = 'selective_search'
SUFFIXES = ('.mat', '.npz')
IOU_THRESHOLDS = (0.5, 0.7)
# A file is of other images where, in more than this part of them, more than this part of the boxes reach beyond the
# image by more than a pixel. In a file of its own images hardly any do.
MAX_MISMATCH = 0.05


def load(
    records: Sequence, source: str, *, place: str, folder: Path | None = None, workers: int = 0
) -> list[Float32[np.ndarray, '_ 4']]:
    """Returns the boxes of images, and prints what they are, and how many objects they find.

    Args:
      records: of the images.
      source: 'selective_search', or a file .mat or .npz.
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
    if source != SELECTIVE_SEARCH and Path(source).suffix not in SUFFIXES:
        raise DataError(f'there are no proposals {source!r}: expected {SELECTIVE_SEARCH}, or a file .mat or .npz')
    found, unusable = None, {}
    if source == SELECTIVE_SEARCH:
        if folder is None:
            raise ValueError(f'proposals by {SELECTIVE_SEARCH} need a folder that keeps them')
        found, unusable = selective_search.search_records(records, folder, workers=workers)
    images = [(record.name, record.size, record.objects) for record in records]
    names, sizes, objects = zip(*images)
    if found is None:
        found = read_file(Path(source).expanduser(), names)
    what = f'proposals {source} of {place}'
    cut = clean_boxes(found, names, sizes, what)
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


def compute_recall(
    objects: Sequence[Objects],
    boxes: Sequence[Float32[np.ndarray, '_ 4']],
    thresholds: Sequence[float] = IOU_THRESHOLDS,
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


def sort_boxes(boxes: Float[np.ndarray, 'N 4']) -> Float[np.ndarray, 'N 4']:
    """Returns boxes by x1, of equal ones by y1, then x2, then y2."""
    return boxes[np.lexsort(boxes.T[::-1])]


def clean_boxes(
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
    if len(foreign := [name for name, *_, odd in rows if odd]) > MAX_MISMATCH * len(names):
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


def read_file(path: Path, names: Sequence[str]) -> list[Float64[np.ndarray, '_ 4']]:
    """Returns the boxes of images as a file has them, x1 y1 x2 y2, counted from 0.

    Where the file names its images, they may be in another order, and more.

    Args:
      path: a .mat or .npz.
      names: of the images.

    Raises:
      DataError: it is not there, is not what its ending says, or is of other images.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f'there is no file {path} of proposals; expected a .mat or .npz')
    theirs, boxes = _read_mat(path) if path.suffix == '.mat' else _read_npz(path)
    if theirs is None:
        if len(boxes) != len(names):
            raise DataError(
                f'{path} has the boxes of {len(boxes):,} images, and the split has {len(names):,}: it is of another'
                f' split'
            )
        return boxes
    if repeated := [name for name, count in Counter(theirs).items() if count > 1]:
        raise DataError(f'{path} names the image {repeated[0]} more than once')
    place = {name: n for n, name in enumerate(theirs)}
    if missing := [name for name in names if name not in place]:
        raise DataError(
            f'{path} has no boxes of {len(missing):,} of the {len(names):,} images, such as {missing[0]}; it has those'
            f' of {len(theirs):,}, such as {theirs[0] if theirs else "none"}: it is of another split'
        )
    return [boxes[place[name]] for name in names]


def write_file(path: Path, names: Sequence[str], boxes: Sequence[Float[np.ndarray, '_ 4']]) -> None:
    """Writes the .npz of images, whole or not at all.

    Args:
      path: the file.
      names: of the images.
      boxes: of each: x1 y1 x2 y2, counted from 0.

    Raises:
      DataError: the path ends otherwise, or there are not as many names as images.
    """
    if Path(path).suffix != '.npz':
        raise DataError(f'{path}: proposals are written as .npz; name a file with this ending')
    if len(names) != len(boxes):
        raise DataError(f'{path}: there are {len(names):,} names and boxes of {len(boxes):,} images, expected as many')
    whole = np.concatenate([np.zeros((0, 4)), *boxes]).astype(np.float32)
    file = io.BytesIO()
    np.savez_compressed(
        file, names=np.array(names, str), counts=np.array([len(each) for each in boxes], np.int64), boxes=whole
    )
    write_atomically(Path(path), file.getvalue())


def _clean(name, boxes, size, what):
    """Returns (an image's boxes by the rules above, how many were cut, how many left out, whether they are foreign)."""
    if not np.isfinite(boxes).all():
        raise DataError(f'{what}: the boxes of image {name} hold nan or inf, expected finite numbers')
    height, width = size
    last = np.array([width, height, width, height]) - 1
    foreign = ((boxes < -1) | (boxes > last + 1)).any(axis=1).sum() > MAX_MISMATCH * len(boxes)
    cut = np.clip(boxes, 0, last)
    # Also of boxes wholly outside, which have become a line on the border.
    kept = (boxes[:, :2] <= boxes[:, 2:]).all(axis=1) & (boxes[:, :2] <= last[2:]).all(axis=1)
    kept &= (boxes[:, 2:] >= 0).all(axis=1)
    reaching = int((cut[kept] != boxes[kept]).any(axis=1).sum())
    return sort_boxes(cut[kept].astype(np.float32)), reaching, int((~kept).sum()), foreign


def _warn(text):
    print(f'warning: {text}', file=sys.stderr, flush=True)


def _recall_text(objects, boxes):
    parts, count = compute_recall(objects, boxes)
    if not count:
        return 'there are no objects to find'
    found = ' and '.join(f'{100 * part:.1f} %' for part in parts)
    return f'they find {found} of {count:,} objects at IoU {" and ".join(map(str, IOU_THRESHOLDS))}'


def _read_npz(path):
    wanted = {'names': ('U', 1), 'counts': ('iu', 1), 'boxes': ('fiu', 2)}
    with npz.open_npz(path) as archive:
        if missing := sorted(wanted.keys() - set(npz.array_names(archive))):
            raise DataError(f'{path} has no array {missing[0]}; expected names, counts and boxes of proposals')
        names, counts, boxes = (npz.read_array(archive, name) for name in wanted)
    for (name, (kinds, rank)), array in zip(wanted.items(), (names, counts, boxes)):
        if array.dtype.kind not in kinds or array.ndim != rank:
            raise DataError(
                f'{path}: {name} is {array.dtype} {list(array.shape)}, expected names as strings [M], counts as'
                f' integers [M] and boxes as numbers [N, 4]'
            )
    if len(counts) != len(names) or (counts < 0).any() or boxes.shape != (counts.sum(), 4):
        raise DataError(
            f'{path}: {len(names):,} names, {len(counts):,} counts with a sum of {counts.sum():,} and boxes'
            f' {list(boxes.shape)} do not fit one another'
        )
    return names.tolist(), np.split(boxes.astype(np.float64), np.cumsum(counts)[:-1]) if len(counts) else []


def _read_mat(path):
    import scipy.io  # takes a moment

    try:
        held = scipy.io.loadmat(path, variable_names=['boxes', 'images'])
    except NotImplementedError as error:
        raise DataError(f'{path} is of MATLAB 7.3: write it again by save(..., "-v7")') from error
    except Exception as error:  # a damaged file leads scipy to any
        raise DataError(f'{path} cannot be read as .mat, or is damaged ({first_line(error)})') from error
    boxes = held.get('boxes')
    if boxes is None or boxes.dtype != object:
        there = 'no boxes' if boxes is None else f'boxes as {boxes.dtype} {list(boxes.shape)}'
        raise DataError(f'{path} has {there}; expected boxes, a cell for each image')
    names = None
    if 'images' in held:
        names = [_name(path, each) for each in held['images'].ravel()]
        if len(names) != boxes.size:
            raise DataError(f'{path} has {len(names):,} images and the boxes of {boxes.size:,}: it is damaged')
    return names, [_from_matlab(path, n, each) for n, each in enumerate(boxes.ravel(), 1)]


def _name(path, value):
    """Returns the name of an image in a cell, without folder and ending."""
    text = np.asarray(value).ravel()
    if text.size != 1 or text.dtype.kind != 'U':
        raise DataError(f'{path}: images holds {text.dtype} {list(text.shape)}, expected the name of an image')
    return PurePosixPath(text[0].strip()).name.removesuffix('.jpg')


def _from_matlab(path, n, boxes):
    if not boxes.size:
        return np.zeros((0, 4))
    if boxes.dtype.kind not in 'fiu' or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f'{path}: the boxes of image {n} are {boxes.dtype} {list(boxes.shape)}, expected [N, 4]')
    return boxes.astype(np.float64)[:, [1, 0, 3, 2]] - 1
