"""Examples of one split from .npz files, for which neither TensorFlow nor anything else need be installed.

FOLDER/SPLIT.npz, or one FILE.npz, which is the split 'train'. In each:

    image        uint8 [N, H, W, 3]
    label        integers [N], -1 where unknown; may be left out
    label_names  strings [classes]; may be left out

Images that stand uncompressed in the file, as np.savez writes them, are mapped: they take no memory of the process.
Nothing is unpickled.
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from artifacts_jax.data import npz
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.sources import Example

MOST_CLASSES = 1_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """One split: its images, mapped where they can be, and labels, -1 where unknown."""

    path: Path
    images: UInt8[np.ndarray, 'N H W 3']
    labels: Int32[np.ndarray, ' N']
    label_names: tuple[str, ...]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Example(self.images[index], int(self.labels[index]), f'image {index:,} of {self.path}')


def open_arrays(path: Path) -> dict[str, Arrays]:
    """Opens a folder of .npz files, or one; of images that are mapped, nothing is read yet.

    Raises:
      DataError: a file does not hold what it should.
    """
    files = {each.stem: each for each in sorted(path.glob('*.npz'))} if path.is_dir() else {'train': path}
    labels, label_names = _labels(files)
    return {split: Arrays(each, _images(each), labels[each], label_names) for split, each in files.items()}


def _images(path):
    with npz.open_npz(path) as archive:
        return npz.map_array(archive, 'image')


def _labels(files):
    """Returns ({path: labels int32 [N]}, label_names), which all splits share, after a check of all that they hold."""
    held = {path: _check(path) for path in files.values()}
    names = {path: names for path, (_, names) in held.items() if names}
    if len(set(names.values())) > 1:
        raise DataError(f'{" and ".join(map(str, names))} have different label_names, expected the same in each')
    found = next(iter(names.values()), ())
    for path, (labels, _) in held.items():
        wrong = labels[(labels < -1) | (labels >= (len(found) or MOST_CLASSES))]
        if len(wrong):
            classes = f'0 to {len(found) - 1} by label_names' if found else 'classes 0, 1, 2, ...'
            raise DataError(f'{path}: label holds {wrong[0]}, expected {classes}, or -1 for unknown')
    most = max(int(labels.max()) for labels, _ in held.values())
    return {path: x.astype(np.int32) for path, (x, _) in held.items()}, found or tuple(map(str, range(most + 1)))


def _check(path):
    """Returns a file's (labels, label_names), -1 and () where there are none, or raises DataError."""
    with npz.open_npz(path) as archive:
        there = npz.array_names(archive)
        if 'image' not in there:
            raise DataError(
                f'{path} has no array image, but {", ".join(there) or "nothing"}: expected image, uint8 [N, H, W, 3],'
                f' in every .npz of the folder'
            )
        count = _count(path, *npz.read_header(archive, 'image'))
        labels, names = np.full(count, -1), ()
        if 'label' in there:
            shape, dtype = npz.read_header(archive, 'label')
            if dtype.kind not in 'iu' or shape != (count,):
                raise DataError(f'{path}: label is {dtype} {list(shape)}, expected integers [{count}], one an image')
            labels = npz.read_array(archive, 'label')
        if 'label_names' in there:
            shape, dtype = npz.read_header(archive, 'label_names')
            if dtype.kind != 'U' or len(shape) != 1:
                raise DataError(f'{path}: label_names is {dtype} {list(shape)}, expected strings [classes]')
            names = tuple(map(str, npz.read_array(archive, 'label_names')))
    return labels, names


def _count(path, shape, dtype):
    """Returns how many images an array of this shape and type holds, or raises DataError: it holds none."""
    advice = None
    if dtype.hasobject:
        advice = 'objects are not unpickled; make images of one size with np.stack'
    elif dtype.kind == 'f':
        advice = 'if 1.0 is white, (image * 255).round().astype(np.uint8)'
    elif dtype != np.uint8:
        advice = 'image.astype(np.uint8), if it holds no others than 0 to 255'
    elif len(shape) == 3 or (len(shape) == 4 and shape[3] == 1):
        advice = 'grey images need three channels: np.repeat(image.reshape(*image.shape[:3], 1), 3, axis=3)'
    elif len(shape) == 4 and shape[3] == 4:
        advice = 'alpha is not used: image[..., :3]'
    elif len(shape) == 4 and shape[1] == 3 != shape[3]:
        advice = 'channels come last: image.transpose(0, 2, 3, 1)'
    elif len(shape) != 4 or shape[3] != 3:
        advice = 'one array of RGB images'
    elif 0 in shape:
        advice = 'at least one image of at least one pixel'
    if advice:
        raise DataError(f'{path}: image is {dtype} {list(shape)}, expected uint8 [N, H, W, 3] in 0..255 ({advice})')
    return shape[0]
