"""Files of proposals: the published ones, and the project's own. Nothing is unpickled.

    .mat    boxes   a cell for each image: rows y1 x1 y2 x2, counted from 1
            images  a cell for each image: its name; may be left out: then they are those of the split, in its order
    .npz    names   strings [M], of the images
            counts  integers [M], the boxes that each has
            boxes   numbers [all counts, 4]: rows x1 y1 x2 y2, counted from 0

The pixels named belong to a box.
"""

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float, Float64

from artifacts_jax.data import npz
from artifacts_jax.data.errors import DataError, first_line
from artifacts_jax.files import write_atomically

SUFFIXES = ('.mat', '.npz')


def read(path: Path, names: Sequence[str]) -> list[Float64[np.ndarray, '_ 4']]:
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


def write(path: Path, names: Sequence[str], boxes: Sequence[Float[np.ndarray, '_ 4']]) -> None:
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


def _read_npz(path):
    wanted = {'names': ('U', 1), 'counts': ('iu', 1), 'boxes': ('fiu', 2)}
    with npz.opened(path) as archive:
        if missing := sorted(wanted.keys() - set(npz.members(archive))):
            raise DataError(f'{path} has no array {missing[0]}; expected names, counts and boxes of proposals')
        names, counts, boxes = (npz.read(archive, name) for name in wanted)
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
