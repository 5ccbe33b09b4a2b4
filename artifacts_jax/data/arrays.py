"""Examples of one split from .npz files, for which neither TensorFlow nor anything else need be installed.

FOLDER/SPLIT.npz, or one FILE.npz, which is the split 'train'. In each:

    image        uint8 [N, H, W, 3]
    label        integers [N], -1 where unknown; may be left out
    label_names  strings [classes]; may be left out

Images that stand uncompressed in the file, as np.savez writes them, are mapped: they take no memory of the process.
Those of another size than `config.data.size` are resized as source.py does it. Nothing is unpickled.
"""

import concurrent.futures
import dataclasses

import numpy as np
import PIL.Image
from jaxtyping import Int, Int32, UInt8
from ml_collections import ConfigDict

from artifacts_jax.data import npz, parts, places
from artifacts_jax.data.errors import DataError

HELD_OUT = 0.1  # part of 'train' that stands for 'test' where there is no other split
MOST_CLASSES = 1_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of an array of images, each made a square of `size` pixels when it is asked for.

    It stands for the array [N, size, size, 3]: it has its length, shape and type, and takes indices of its first axis.
    """

    array: UInt8[np.ndarray, 'all H W 3']
    rows: Int[np.ndarray, ' N']
    size: int
    dtype = np.dtype(np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array for which it stands."""
        return len(self.rows), self.size, self.size, 3

    @property
    def resizes(self) -> bool:
        """Whether the images have another size."""
        return self.array.shape[1:3] != (self.size, self.size)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, indices):
        images = self.array[self.rows[indices]]
        if not self.resizes:
            return images
        squares = np.empty((len(images), self.size, self.size, 3), np.uint8)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for n, image in enumerate(pool.map(lambda image: square(image, self.size), images)):
                squares[n] = image
        return squares


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
    """One split: its images, mapped or as Rows, and labels, -1 where unknown."""

    images: UInt8[np.ndarray | Rows, 'N size size 3']
    labels: Int32[np.ndarray, ' N']
    label_names: tuple[str, ...]

    @property
    def num_examples(self) -> int:
        """The examples of the split."""
        return len(self.labels)

    def decode(self) -> tuple[UInt8[np.ndarray | Rows, 'N size size 3'], Int32[np.ndarray, ' N']]:
        """Returns the images and labels; images of another size are resized, once and for all."""
        if not isinstance(self.images, Rows) or not self.images.resizes:
            return self.images, self.labels
        squares = np.empty(self.images.shape, np.uint8)
        for start in range(0, len(squares), 256):
            squares[start : start + 256] = self.images[start : start + 256]
        return squares, self.labels


def square(image: UInt8[np.ndarray, 'H W 3'], size: int) -> UInt8[np.ndarray, '{size} {size} 3']:
    """Resizes an image, with antialiasing, so that its short side has `size` pixels, and returns the central square."""
    height, width = (max(side * size // min(image.shape[:2]), size) for side in image.shape[:2])
    resized = PIL.Image.fromarray(image).resize((width, height), PIL.Image.Resampling.BILINEAR)
    top, left = (height - size) // 2, (width - size) // 2
    return np.asarray(resized)[top : top + size, left : left + size]


def named(config: ConfigDict) -> bool:
    """Whether a run's `config.data` names arrays: a folder that holds .npz files, or the path of one."""
    path = places.locate(config)
    return path is not None and (any(path.glob('*.npz')) if path.is_dir() else path.suffix == '.npz')


def open_split(config: ConfigDict, split: str) -> Arrays:
    """Opens a split; of images that are mapped, nothing is read yet.

    Where 'train' is the only split and 'test' is asked for, by `split` or by the configuration, a fixed tenth of its
    examples is 'test', and the others are 'train'.

    Args:
      config: the run's `config.data`.
      split: a split's name, or a slice of it as tfds spells it.

    Raises:
      DataError: the files or the split are not there, or do not hold what they should.
    """
    files, name = _files(places.locate(config)), parts.name_of(split)
    asked = {parts.name_of(each) for each in (split, config.train, config.probe_train, config.test)}
    cut = set(files) == {'train'} and 'test' in asked
    path = files.get('train' if cut and name == 'test' else name)
    if not path:
        raise DataError(f'{config.name} has no split {split!r}; there are: {", ".join(files)}')
    labels, label_names = _labels(files)
    labels = labels[path]
    rows = np.arange(len(labels))
    if cut:
        out = parts.held_out(rows, HELD_OUT)
        if len(rows) == 1:
            raise DataError(f'{path} has one image, of which none can be held out; expected some, or a file test.npz')
        if name == 'test':
            print(f'{path} stands alone: {out.sum():,} of its {len(out):,} images, always the same, are the split test')
        rows = rows[out if name == 'test' else ~out]
    first, end = parts.bounds(split, len(rows), place=path)
    rows = rows[first:end]
    return Arrays(_images(path, rows, config.size), labels[rows], label_names)


def _images(path, rows, size):
    """Returns rows of a file's images, mapped where they can be, else read, as an array or as Rows."""
    with npz.opened(path) as archive:
        array = npz.mapped(archive, 'image')
    together = len(rows) == rows[-1] + 1 - rows[0]
    if not isinstance(array, np.memmap) and len(rows) < len(array):  # the others need not be kept
        array, rows, together = array[rows], np.arange(len(rows)), True
    if together and array.shape[1:3] == (size, size):
        return array[rows[0] : rows[-1] + 1]
    return Rows(array, rows, size)


def _files(path):
    """Returns {split: path} of the .npz files in a folder, or of one."""
    return {each.stem: each for each in sorted(path.glob('*.npz'))} if path.is_dir() else {'train': path}


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
    with npz.opened(path) as archive:
        there = npz.members(archive)
        if 'image' not in there:
            raise DataError(
                f'{path} has no array image, but {", ".join(there) or "nothing"}: expected image, uint8 [N, H, W, 3],'
                f' in every .npz of the folder'
            )
        count = _count(path, *npz.header(archive, 'image'))
        labels, names = np.full(count, -1), ()
        if 'label' in there:
            shape, dtype = npz.header(archive, 'label')
            if dtype.kind not in 'iu' or shape != (count,):
                raise DataError(f'{path}: label is {dtype} {list(shape)}, expected integers [{count}], one an image')
            labels = npz.read(archive, 'label')
        if 'label_names' in there:
            shape, dtype = npz.header(archive, 'label_names')
            if dtype.kind != 'U' or len(shape) != 1:
                raise DataError(f'{path}: label_names is {dtype} {list(shape)}, expected strings [classes]')
            names = tuple(map(str, npz.read(archive, 'label_names')))
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
