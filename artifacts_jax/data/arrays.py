"""Opens data sets of .npz files: FOLDER/SPLIT.npz, or one FILE.npz, which is the split 'train'.

| array | content | required |
|---|---|---|
| image | uint8 [N, H, W, 3] | yes |
| label | integers [N], -1 where unknown | no |
| label_names | strings [classes] | no |

Uncompressed images, as np.savez writes them, are memory-mapped: they use only the page cache. Nothing is unpickled.
"""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from artifacts_jax.data import npz
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.sources import Example

MAX_CLASSES = 1_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """One split: its images, memory-mapped if they are uncompressed, and labels, -1 where unknown."""

    path: Path
    images: UInt8[np.ndarray, 'N H W 3']
    labels: Int32[np.ndarray, ' N']
    label_names: tuple[str, ...]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Example(self.images[index], int(self.labels[index]), f'image {index:,} of {self.path}')


def open_arrays(path: Path) -> dict[str, Arrays]:
    """Returns {split: arrays} of a folder of .npz files, or of one file; reads no memory-mapped image.

    Raises:
      DataError: a file is invalid.
    """
    files = {file.stem: file for file in sorted(path.glob('*.npz'))} if path.is_dir() else {'train': path}
    labels, label_names = _load_labels(files)
    return {split: Arrays(file, _load_images(file), labels[file], label_names) for split, file in files.items()}


def _load_images(path):
    with npz.open_npz(path) as archive:
        return npz.map_array(archive, 'image')


def _load_labels(files):
    """Returns ({path: labels int32 [N]}, label_names), after a check of all arrays; all splits share label_names."""
    contents = {path: _read_labels(path) for path in files.values()}
    names = {path: names for path, (_, names) in contents.items() if names}
    if len(set(names.values())) > 1:
        raise DataError(f'{" and ".join(map(str, names))} have different label_names; expected the same in all files')
    label_names = next(iter(names.values()), ())
    for path, (labels, _) in contents.items():
        wrong = labels[(labels < -1) | (labels >= (len(label_names) or MAX_CLASSES))]
        if len(wrong):
            classes = f'0 to {len(label_names) - 1} by label_names' if label_names else 'classes 0, 1, 2, ...'
            raise DataError(f'{path}: label holds {wrong[0]}, expected {classes}, or -1 for unknown')
    largest = max(int(labels.max()) for labels, _ in contents.values())
    labels = {path: labels.astype(np.int32) for path, (labels, _) in contents.items()}
    return labels, label_names or tuple(map(str, range(largest + 1)))


def _read_labels(path):
    """Returns (labels, label_names) of a file, with the defaults -1 and (), or raises DataError."""
    with npz.open_npz(path) as archive:
        arrays = npz.array_names(archive)
        if 'image' not in arrays:
            raise DataError(
                f'{path} has no array image; it has {", ".join(arrays) or "no arrays"}; expected image, uint8'
                f' [N, H, W, 3], in every .npz of the folder'
            )
        count = _count_images(path, *npz.read_header(archive, 'image'))
        labels, names = np.full(count, -1), ()
        if 'label' in arrays:
            shape, dtype = npz.read_header(archive, 'label')
            if dtype.kind not in 'iu' or shape != (count,):
                raise DataError(
                    f'{path}: label is {dtype} {list(shape)}, expected integers [{count}], one for each image'
                )
            labels = npz.read_array(archive, 'label')
        if 'label_names' in arrays:
            shape, dtype = npz.read_header(archive, 'label_names')
            if dtype.kind != 'U' or len(shape) != 1:
                raise DataError(f'{path}: label_names is {dtype} {list(shape)}, expected strings [classes]')
            names = tuple(map(str, npz.read_array(archive, 'label_names')))
    return labels, names


def _count_images(path, shape, dtype):
    """Returns the number of images of an array with this shape and type; raises DataError if it is invalid."""
    advice = None
    if dtype.hasobject:
        advice = 'object arrays are not unpickled; stack images of one size with np.stack'
    elif dtype.kind == 'f':
        advice = 'if 1.0 is white, (image * 255).round().astype(np.uint8)'
    elif dtype != np.uint8:
        advice = 'image.astype(np.uint8), if all values are 0 to 255'
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
