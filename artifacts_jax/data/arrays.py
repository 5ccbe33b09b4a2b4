"""Data sets in NumPy's files, FOLDER/SPLIT.npz or one .npz, read without TensorFlow.

A file has `image` [N, H, W, 3] uint8 and, if there are, `label` [N], integers, -1 where it is not known, and
`label_names`, text. What np.savez writes is mapped: an image is read from disk when it is needed. What
np.savez_compressed writes is read whole.

Where there is only a split 'train', a tenth of it is held out as 'test'.
"""

import dataclasses
import functools
import re
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Int, Int32, UInt8
from ml_collections import ConfigDict

from artifacts_jax.data.source import DataError, locate

HELD_OUT = 0.1  # of 'train', where there is no 'test'
EXPECTED = 'expected uint8 [N, H, W, 3], RGB from 0 to 255'


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some images of an array, cut to squares of one size when they are asked for."""

    images: UInt8[np.ndarray, 'N H W 3']
    rows: Int[np.ndarray, ' n']
    size: int

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index: slice | Int[np.ndarray, ' m']) -> UInt8[np.ndarray, 'm {self.size} {self.size} 3']:
        return squares(self.images[self.rows[index]], self.size)


def squares(images: UInt8[np.ndarray, 'N H W 3'], size: int) -> UInt8[np.ndarray, 'N {size} {size} 3']:
    """Returns the central squares of images resized, with antialiasing, so that the short side has `size` pixels."""
    height, width = images.shape[1:3]
    if height == width == size:
        return np.asarray(images)
    short = min(height, width)
    target = max(width * size // short, size), max(height * size // short, size)
    left, top = ((length - size) // 2 for length in target)
    resized = (PIL.Image.fromarray(image).resize(target, PIL.Image.Resampling.BILINEAR) for image in images)
    cut = [np.asarray(image)[top : top + size, left : left + size] for image in resized]
    return np.stack(cut) if cut else np.zeros((0, size, size, 3), np.uint8)


def files(config: ConfigDict) -> dict[str, Path]:
    """Returns {split: its file} of the run's `config.data`, {} if it names no such data."""
    place = locate(config)
    if place is None:
        return {}
    if place.is_dir():
        return {path.stem: path for path in sorted(place.glob('*.npz'))}
    return {'train': place} if place.suffix == '.npz' else {}


def load(
    config: ConfigDict, split: str
) -> tuple[UInt8[np.ndarray, 'N size size 3'] | Rows, Int32[np.ndarray, ' N'], tuple[str, ...]]:
    """Returns (images, labels, -1 where there is none, names of the classes) of a split.

    Args:
      config: the run's `config.data`.
      split: such as 'train', or 'train[:90%]'.

    Raises:
      DataError: there is no such split, or its file does not hold what it should.
    """
    found = files(config)
    name, cut = _parse(config, split)
    held_out = _is_cut(config, found)
    if name not in found and not (held_out and name == 'test'):
        raise DataError(f'{config.name} has no split {name!r}; there are: {", ".join(found)}')
    path = found['train' if held_out else name]
    limit = config.memory_limit_gb * 1e9
    images, labels = _images(path, limit), _labels(path)
    rows = np.arange(len(images))
    if labels is not None and labels.shape != rows.shape:
        raise DataError(f'{path}: label {list(labels.shape)} should be [{len(rows)}], one for each image')
    if held_out:
        rows = _part(rows, name, path)
    rows = rows[cut(len(rows))]
    if not len(rows):
        raise DataError(f'split {split!r} of {config.name} is empty')
    names = _names(tuple(found.values()))
    labels = np.full(len(rows), -1, np.int32) if labels is None else labels[rows].astype(np.int32)
    if len(rows) == len(images) and images.shape[1:3] == (config.size, config.size):
        return images, labels, names
    chosen = Rows(images, rows, config.size)
    fits = config.loading == 'memory' or (config.loading == 'auto' and len(rows) * config.size**2 * 3 <= limit)
    return chosen[:] if fits else chosen, labels, names


def _parse(config, split):
    """Returns (name of a split, function of its length that cuts it)."""
    found = re.fullmatch(r'(\w+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?', split)
    if not found:
        raise DataError(f"{config.name} has no split {split!r}: write a file's name, or cut it, as 'train[:90%]'")

    def place(text, count):
        if text is None:
            return None
        return round(int(text[:-1]) * count / 100) if text.endswith('%') else int(text)

    return found[1], lambda count: slice(place(found[2], count), place(found[3], count))


def _is_cut(config, found):
    """Returns whether the run's 'test' is cut from its 'train'."""
    return config.test.partition('[')[0] == 'test' and 'test' not in found and 'train' in found


def _part(rows, name, path):
    """Returns those rows of 'train' that are held out, or the others: as good as random, and always the same."""
    scrambled = rows.astype(np.uint64) * np.uint64(2654435761) % np.uint64(2**32)
    order = np.argsort(scrambled, kind='stable')
    count = max(1, round(HELD_OUT * len(rows)))
    if count == len(rows):
        raise DataError(f'{path} has one image, of which none can be held out: add a test.npz')
    _tell(path, count, len(rows) - count)
    return np.sort(order[:count] if name == 'test' else order[count:])


@functools.cache
def _tell(path, count, rest):
    print(f'{path}: {count:,} images are held out as test, the other {rest:,} are train', flush=True)


def _names(paths):
    """Returns the names of the classes, the same for all files of a data set; () if there are no labels."""
    names, most, least = (), -1, 0
    for path in paths:
        here, labels = _read(path, 'label_names'), _labels(path)
        if here is not None:
            if here.ndim != 1 or here.dtype.kind not in 'US':
                raise DataError(f'{path}: label_names is {_kind(here)}, expected text [classes]')
            here = tuple(x.decode() if isinstance(x, bytes) else str(x) for x in here)
            if names and names != here:
                raise DataError(f'{path}: label_names differ from those of {paths[0].parent}: all files need the same')
            names = here
        if labels is not None and len(labels):
            most, least = max(most, int(labels.max())), min(least, int(labels.min()))
    if least < -1 or (names and most >= len(names)):
        last = len(names) - 1 if names else '...'
        raise DataError(f'{paths[0].parent}: labels from {least} to {most}, expected 0 to {last}, or -1')
    return names or tuple(map(str, range(most + 1)))


def _labels(path):
    """Returns the labels of a file, None if it has none."""
    labels = _read(path, 'label')
    if labels is not None and (labels.ndim != 1 or labels.dtype.kind not in 'iu'):
        raise DataError(f'{path}: label is {_kind(labels)}, expected integers [N]')
    return labels


def _images(path, limit):
    images = _read(path, 'image', limit)
    if images is None:
        raise DataError(f'{path} has no array `image`, but: {", ".join(_members(path)) or "nothing"}; {EXPECTED}')
    advice = ''
    if images.dtype.kind == 'f':
        advice = '; of floating point in [0, 1]: (255 * image).round().astype(np.uint8)'
    elif images.ndim == 4 and images.shape[1] == 3:
        advice = '; put the channels last: image.transpose(0, 2, 3, 1)'
    elif images.ndim == 4 and images.shape[-1] == 4:
        advice = '; drop the alpha channel: image[..., :3]'
    elif images.ndim == 3 or (images.ndim == 4 and images.shape[-1] == 1):
        advice = '; of grey make three channels'
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
        raise DataError(f'{path}: image is {_kind(images)}, {EXPECTED}{advice}')
    return images


def _kind(array):
    return f'{array.dtype} {list(array.shape)}'


def _members(path):
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix('.npy') for name in archive.namelist()]


def _read(path, name, limit=np.inf):
    """Returns an array of a file, None if it has none of that name: mapped if it is stored, else read.

    Its checksum is looked at where the array is smaller than the limit, bytes; larger ones would take long.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if f'{name}.npy' not in archive.namelist():
                return None
            member = archive.getinfo(f'{name}.npy')
            stored = member.compress_type == zipfile.ZIP_STORED
            if not stored and member.file_size > limit:
                raise DataError(
                    f'{path} is compressed, and {name} has {member.file_size / 1e9:.1f} GB, more than'
                    f' data.memory_limit_gb: write it with np.savez, which is read in parts'
                )
            if not stored or member.file_size <= limit:
                with archive.open(member) as file:
                    if not stored:
                        return np.lib.format.read_array(file, allow_pickle=False)
                    while file.read(1 << 24):  # which compares the checksum at the end
                        pass
        return _mapped(path, member)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DataError(f'{path} cannot be read ({error}): {EXPECTED}, written with np.savez') from error


def _mapped(path, member):
    """Returns an array that is stored in an archive, mapped."""
    with path.open('rb') as file:
        file.seek(member.header_offset + 26)
        lengths = np.frombuffer(file.read(4), '<u2')  # of the member's name, and of what else is said of it
        file.seek(int(lengths.sum()), 1)
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype.hasobject:
            raise ValueError('it holds Python objects, which are not read')
        if 0 in shape or shape == ():
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, 'r', file.tell(), shape, 'F' if fortran else 'C')
