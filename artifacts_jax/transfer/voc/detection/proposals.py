"""Region proposals: the boxes in which the detector looks for objects, from selective search or from a file.

| a box | handling |
|---|---|
| reaches beyond its image | clipped to the image |
| is less than a pixel wide or high, also after clipping | skipped |
| has nan or inf | an error |

Proposal files are the published .mat files or the project's own .npz files. Nothing is unpickled.

    .mat    boxes   a cell per image: rows y1 x1 y2 x2, 1-based
            images  a cell per image: its name; if missing, the images are those of the split, in its order
    .npz    names   strings [M]: image names
            counts  integers [M]: number of boxes of each image
            boxes   numbers [sum of counts, 4]: rows x1 y1 x2 y2, 0-based

Loading prints the number of boxes, and warnings about clipped and skipped boxes. If too many boxes reach beyond their
images, the file belongs to other images, and loading raises an error. For an image without boxes, training uses only
its objects, and testing detects nothing; loading prints a warning. If no image has a box, loading raises an error.
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
# In a file for the right images, hardly any box reaches beyond its image by more than a pixel. The file belongs to
# other images if more than this fraction of the boxes does so, in more than this fraction of the images.
MAX_MISMATCH = 0.05


def load(
    records: Sequence, source: str, *, split: str, folder: Path | None = None, workers: int = 0
) -> list[Float32[np.ndarray, '_ 4']]:
    """Returns the proposals of images, and prints their number and their recall of the objects.

    Args:
      records: the records of the images.
      source: 'selective_search', or the path of a .mat or .npz file.
      split: the name of the images in messages, such as 'trainval of VOCdevkit/VOC2007'.
      folder: where selective search saves its boxes.
      workers: number of processes of selective search; 0: one per CPU.

    Returns:
      For each image the boxes x1 y1 x2 y2, 0-based, inside the image; both corner pixels belong to the box. Boxes are
      sorted by coordinates, so their order says nothing about their quality.

    Raises:
      DataError: the source does not exist, the file is damaged or belongs to other images, no image has a box, or
        OpenCV is missing.
      ValueError: selective search has no folder.
    """
    if source != SELECTIVE_SEARCH and Path(source).suffix not in SUFFIXES:
        raise DataError(f'unknown proposals {source!r}: expected {SELECTIVE_SEARCH}, or a .mat or .npz file')
    boxes, unusable = None, {}
    if source == SELECTIVE_SEARCH:
        if folder is None:
            raise ValueError(f'{SELECTIVE_SEARCH} needs a folder to save its boxes; expected folder=PATH')
        boxes, unusable = selective_search.search_records(records, folder, workers=workers)
    images = [(record.name, record.size, record.objects) for record in records]
    names, sizes, objects = zip(*images)
    if boxes is None:
        boxes = read_file(Path(source).expanduser(), names)
    title = f'proposals {source} of {split}'
    cleaned = clean_boxes(boxes, names, sizes, title)
    if without_box := [name for name, of_image in zip(names, cleaned) if not len(of_image)]:
        if len(without_box) == len(names):
            raise DataError(f'{title}: no image has a box')
        reason = f' ({unusable[without_box[0]]})' if without_box[0] in unusable else ''
        _warn(f'{title}: {len(without_box):,} of {len(names):,} images have no box, such as {without_box[0]}{reason}')
    counts = np.array([len(of_image) for of_image in cleaned])
    print(
        f'proposals of {split}: {len(cleaned):,} images, {counts.mean():,.0f} boxes per image on average'
        f' ({counts.min():,} to {counts.max():,}); {_format_recall(objects, cleaned)}',
        flush=True,
    )
    return cleaned


def compute_recall(
    objects: Sequence[Objects],
    boxes: Sequence[Float32[np.ndarray, '_ 4']],
    thresholds: Sequence[float] = IOU_THRESHOLDS,
) -> tuple[list[float | None], int]:
    """Returns (recall at each IoU threshold, in [0, 1], number of objects).

    Difficult objects are ignored, as in the evaluation of detections. Without objects, the recall is None.

    Args:
      objects: of each image.
      boxes: of each image, 0-based.
      thresholds: the minimum IoU of an object with a box.
    """
    best = []
    for truth, of_image in zip(objects, boxes, strict=True):
        object_boxes = geometry.from_voc(truth.boxes[~truth.is_difficult])
        best.append(geometry.iou(object_boxes, of_image).max(axis=1, initial=0.0))
    best = np.concatenate([np.zeros(0), *best])
    return [float((best >= threshold).mean()) if len(best) else None for threshold in thresholds], len(best)


def sort_boxes(boxes: Float[np.ndarray, 'N 4']) -> Float[np.ndarray, 'N 4']:
    """Returns the boxes sorted by x1, then y1, x2 and y2."""
    return boxes[np.lexsort(boxes.T[::-1])]


def clean_boxes(
    boxes: Sequence[Float[np.ndarray, '_ 4']], names: Sequence[str], sizes: Sequence[tuple[int, int]], title: str
) -> list[Float32[np.ndarray, '_ 4']]:
    """Returns the clipped boxes of each image, without skipped ones; warns about both.

    Args:
      boxes: of each image, numbers [_, 4].
      names: the image names.
      sizes: (height, width) of each image.
      title: the name of the boxes in messages.

    Raises:
      DataError: boxes belong to other images, or are not finite.
    """
    rows = [
        (name, *_clean(name, of_image, size, title)) for name, of_image, size in zip(names, boxes, sizes, strict=True)
    ]
    if len(mismatched := [name for name, *_, is_mismatched in rows if is_mismatched]) > MAX_MISMATCH * len(names):
        raise DataError(
            f'{title}: the boxes of {len(mismatched):,} of {len(names):,} images, such as {mismatched[0]}, reach beyond'
            f' the images: they belong to other images or image sizes, or the file has another order of coordinates'
        )
    changes = {'reach beyond their images and are clipped': 2, 'are less than a pixel wide or high and skipped': 3}
    for action, column in changes.items():
        if changed := [row for row in rows if row[column]]:
            count = sum(row[column] for row in changed)
            _warn(f'{title}: {count:,} boxes {action}, such as {changed[0][column]:,} of image {changed[0][0]}')
    return [row[1] for row in rows]


def read_file(path: Path, names: Sequence[str]) -> list[Float64[np.ndarray, '_ 4']]:
    """Returns the boxes x1 y1 x2 y2 of images from a file, 0-based.

    If the file has image names, it may have another order of images, and more images.

    Args:
      path: a .mat or .npz file.
      names: the image names.

    Raises:
      DataError: the file does not exist, is invalid, or belongs to other images.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f'proposals: there is no file {path}; expected a .mat or .npz file')
    file_names, boxes = _read_mat(path) if path.suffix == '.mat' else _read_npz(path)
    if file_names is None:
        if len(boxes) != len(names):
            raise DataError(
                f'{path} has the boxes of {len(boxes):,} images, but the split has {len(names):,}: it belongs to'
                f' another split'
            )
        return boxes
    if repeated := [name for name, count in Counter(file_names).items() if count > 1]:
        raise DataError(f'{path} has the image {repeated[0]} more than once')
    index = {name: n for n, name in enumerate(file_names)}
    if missing := [name for name in names if name not in index]:
        raise DataError(
            f'{path} has no boxes for {len(missing):,} of the {len(names):,} images, such as {missing[0]}; it has'
            f' {len(file_names):,} images, such as {file_names[0] if file_names else "none"}: it belongs to another'
            f' split'
        )
    return [boxes[index[name]] for name in names]


def write_file(path: Path, names: Sequence[str], boxes: Sequence[Float[np.ndarray, '_ 4']]) -> None:
    """Writes a .npz file of proposals atomically.

    Args:
      path: the file.
      names: the image names.
      boxes: of each image: x1 y1 x2 y2, 0-based.

    Raises:
      DataError: the file extension is not .npz, or the numbers of names and images differ.
    """
    if Path(path).suffix != '.npz':
        raise DataError(f'{path}: proposals are written as .npz; choose a file with this extension')
    if len(names) != len(boxes):
        raise DataError(f'{path}: {len(names):,} names and boxes of {len(boxes):,} images; expected equal numbers')
    all_boxes = np.concatenate([np.zeros((0, 4)), *boxes]).astype(np.float32)
    file = io.BytesIO()
    np.savez_compressed(
        file,
        names=np.array(names, str),
        counts=np.array([len(of_image) for of_image in boxes], np.int64),
        boxes=all_boxes,
    )
    write_atomically(Path(path), file.getvalue())


def _clean(name, boxes, size, title):
    """Returns (cleaned boxes of an image, number of clipped ones, number of skipped ones, whether they do not fit)."""
    if not np.isfinite(boxes).all():
        raise DataError(f'{title}: the boxes of image {name} contain nan or inf; expected finite numbers')
    height, width = size
    last = np.array([width, height, width, height]) - 1
    is_mismatched = ((boxes < -1) | (boxes > last + 1)).any(axis=1).sum() > MAX_MISMATCH * len(boxes)
    clipped = np.clip(boxes, 0, last)
    # Boxes that are completely outside are skipped too: clipping makes them a line on the border.
    valid = (boxes[:, :2] <= boxes[:, 2:]).all(axis=1) & (boxes[:, :2] <= last[2:]).all(axis=1)
    valid &= (boxes[:, 2:] >= 0).all(axis=1)
    num_clipped = int((clipped[valid] != boxes[valid]).any(axis=1).sum())
    return sort_boxes(clipped[valid].astype(np.float32)), num_clipped, int((~valid).sum()), is_mismatched


def _warn(text):
    print(f'warning: {text}', file=sys.stderr, flush=True)


def _format_recall(objects, boxes):
    recalls, count = compute_recall(objects, boxes)
    if not count:
        return 'the images have no objects'
    text = ', '.join(f'{100 * recall:.1f} % at IoU {threshold}' for recall, threshold in zip(recalls, IOU_THRESHOLDS))
    return f'recall of {count:,} objects: {text}'


def _read_npz(path):
    expected = {'names': ('U', 1), 'counts': ('iu', 1), 'boxes': ('fiu', 2)}
    with npz.open_npz(path) as archive:
        if missing := sorted(expected.keys() - set(npz.array_names(archive))):
            raise DataError(f'{path} has no array {missing[0]}; expected the arrays names, counts and boxes')
        names, counts, boxes = (npz.read_array(archive, name) for name in expected)
    for (name, (kinds, rank)), array in zip(expected.items(), (names, counts, boxes)):
        if array.dtype.kind not in kinds or array.ndim != rank:
            raise DataError(
                f'{path}: {name} is {array.dtype} {list(array.shape)}; expected names as strings [M], counts as'
                f' integers [M] and boxes as numbers [N, 4]'
            )
    if len(counts) != len(names) or (counts < 0).any() or boxes.shape != (counts.sum(), 4):
        raise DataError(
            f'{path}: {len(names):,} names, {len(counts):,} counts with a sum of {counts.sum():,} and boxes'
            f' {list(boxes.shape)} do not agree'
        )
    return names.tolist(), np.split(boxes.astype(np.float64), np.cumsum(counts)[:-1]) if len(counts) else []


def _read_mat(path):
    import scipy.io  # slow to import

    try:
        content = scipy.io.loadmat(path, variable_names=['boxes', 'images'])
    except NotImplementedError as error:
        raise DataError(
            f'{path} has the format of MATLAB 7.3, which is not supported: save it with save(..., "-v7")'
        ) from error
    except Exception as error:  # scipy raises various types for damaged files
        raise DataError(f'{path} cannot be read as .mat, or is damaged ({first_line(error)})') from error
    boxes = content.get('boxes')
    if boxes is None or boxes.dtype != object:
        problem = 'no boxes' if boxes is None else f'boxes as {boxes.dtype} {list(boxes.shape)}'
        raise DataError(f'{path} has {problem}; expected boxes, a cell per image')
    names = None
    if 'images' in content:
        names = [_read_name(path, cell) for cell in content['images'].ravel()]
        if len(names) != boxes.size:
            raise DataError(f'{path} has {len(names):,} images and the boxes of {boxes.size:,}: it is damaged')
    return names, [_read_boxes(path, n, cell) for n, cell in enumerate(boxes.ravel(), 1)]


def _read_name(path, cell):
    """Returns the image name in a cell, without folder and extension."""
    text = np.asarray(cell).ravel()
    if text.size != 1 or text.dtype.kind != 'U':
        raise DataError(f'{path}: images has {text.dtype} {list(text.shape)}; expected the name of an image')
    return PurePosixPath(text[0].strip()).name.removesuffix('.jpg')


def _read_boxes(path, n, boxes):
    """Returns the boxes of image number n as x1 y1 x2 y2, 0-based."""
    if not boxes.size:
        return np.zeros((0, 4))
    if boxes.dtype.kind not in 'fiu' or boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f'{path}: the boxes of image {n} are {boxes.dtype} {list(boxes.shape)}; expected [N, 4]')
    return boxes.astype(np.float64)[:, [1, 0, 3, 2]] - 1
