"""An image with its annotated objects or its segmentation mask; pixels and masks are read on demand.

A mask is an image file of the same size, in palette or grey mode. Its values are classes; VOID means no class.
"""

import concurrent.futures
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from jaxtyping import Int8, UInt8

from artifacts_jax.data import decoding
from artifacts_jax.data.errors import DataError, first_line
from artifacts_jax.data.voc.annotations import NO_OBJECTS, Objects
from artifacts_jax.devices import host

VOID = 255  # value of a mask for pixels without a class, such as the borders of objects
MODES = ('P', 'L', '1')  # Pillow modes of a mask: palette, grey, 1-bit
GREY_FACTORS = {'L;2': 85, 'L;4': 17}  # Pillow multiplies grey values of 2 and 4 bits by these factors
LOSSY = ('JPEG', 'MPO', 'JPEG2000')  # file formats that change the values of a mask
CHECKED_IMAGES = 16  # at most so many images of a split are checked, until one can be used


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One image, with its objects or its mask."""

    name: str  # as in the image list
    file: Path | bytes | UInt8[np.ndarray, 'H W 3']  # path, content, or pixels of the image
    size: tuple[int, ...] | None = None  # (height, width), if known
    objects: Objects = NO_OBJECTS
    labels: Int8[np.ndarray, '20'] | None = None  # of each class: 1 present, 0 unknown (difficult), -1 not present
    mask_file: Path | bytes | None = None  # path or content of the mask
    classes: int = VOID  # number of classes that the mask may have

    def read_image(self) -> UInt8[np.ndarray, 'H W 3']:
        """Returns the image at its original size, RGB.

        Raises:
          decoding.UnusableError: the image is damaged, or its size differs from `size`.
        """
        pixels = decoding.decode_whole(self.file)
        if self.size and pixels.shape[:2] != self.size:
            raise decoding.UnusableError(f'its height and width are {pixels.shape[:2]}, but were {self.size} before')
        return pixels

    def read_mask(self) -> UInt8[np.ndarray, 'H W'] | None:
        """Returns the class of each pixel, or None if the image has no mask.

        A .mat file is a file of SBD, with the mask in GTcls.Segmentation.

        Raises:
          DataError: the mask is damaged, has the wrong type or size, or has invalid values.
        """
        if self.mask_file is None:
            return None
        name = str(self.mask_file) if isinstance(self.mask_file, Path) else f'the mask of {self.name}'
        try:
            if isinstance(self.mask_file, Path) and self.mask_file.suffix.lower() == '.mat':
                mask = _read_sbd(self.mask_file)
            else:
                with PIL.Image.open(_to_readable(self.mask_file)) as image:
                    _check_type(image, name)
                    mask = _read_values(image)
        except DataError:
            raise
        except Exception as error:  # Pillow and SciPy can raise any exception for a damaged file
            raise DataError(f'{name}: cannot be read ({first_line(error)})') from error
        size = self.size or decoding.read_size(self.file)  # type: ignore[arg-type]  # pixels come with their size
        if mask.shape != size:
            mask_size = ' x '.join(map(str, mask.shape))
            raise DataError(
                f'{name}: the mask has {mask_size} pixels, but its image {size[0]} x {size[1]}: write the mask again,'
                f' with one value for each pixel'
            )
        if (wrong := (mask >= self.classes) & (mask != VOID)).any():
            raise DataError(
                f'{name}: the mask has the value {mask[wrong][0]}; expected 0 to {self.classes - 1} or {VOID}, as'
                f' palette indices or grey values'
            )
        return mask.astype(np.uint8)


def check_mask(path: Path, size: tuple[int, int]) -> None:
    """Checks the header of a mask file.

    Args:
      path: the file.
      size: (height, width) of its image.

    Raises:
      DataError: the file is not an image, or has the wrong size or type for a mask.
    """
    try:
        with PIL.Image.open(path) as image:
            _check_type(image, str(path), MODES[:2])
            width, height = image.size
    except DataError:
        raise
    except Exception as error:
        raise DataError(f'{path}: cannot be read ({first_line(error)})') from error
    if (height, width) != size:
        raise DataError(f'{path}: the mask has {height} x {width} pixels, but its image {size[0]} x {size[1]}')


def check_images(records: Sequence, split: str) -> None:
    """Raises DataError if none of the checked images of a split can be used.

    Args:
      records: with name and read_image().
      split: name of the split, for the message.
    """
    problems = []
    for row in np.unique(np.linspace(0, len(records) - 1, CHECKED_IMAGES).astype(int)).tolist():
        record = records[row]
        try:
            record.read_image()
            return
        except decoding.UnusableError as error:
            problems.append(f'{record.name} ({error})')
    raise DataError(f'{split}: none of the {len(problems):,} checked images can be used: {"; ".join(problems[:3])}')


def check_masks(records: Sequence, split: str, *, classes: int, images: int = 1, workers: int = 0) -> None:
    """Reads and checks all masks; those of damaged images are ignored, because reading an image reports the damage.

    Args:
      records: with name, read_image() and read_mask().
      split: name of the split, for messages.
      classes: minimum number of classes in all masks.
      images: minimum number of images that have pixels with a class.
      workers: threads, 0: one for each CPU.

    Raises:
      DataError: a mask is invalid, no checked image can be used, or there are too few classes or images.
    """
    check_images(records, split)

    def read_classes(row):
        try:
            return set(np.bincount(records[row].read_mask().reshape(-1)).nonzero()[0].tolist()) - {VOID}
        except decoding.UnusableError:
            return set()

    with concurrent.futures.ThreadPoolExecutor(workers or host.cpus()) as pool:
        classes_of = list(pool.map(read_classes, range(len(records))))
    if (count := len(set().union(*classes_of))) < classes:
        raise DataError(
            f'{split}: the pixels have {"one class" if count else "no class"}; expected {classes} or more; {VOID} means'
            f' no class, so use another value for a class'
        )
    if (count := sum(map(bool, classes_of))) < images:
        raise DataError(f'{split}: {count:,} images have pixels with a class; expected {images} or more')


def _to_readable(file):
    return file if isinstance(file, Path) else io.BytesIO(file)


def _check_type(image, name, modes=MODES):
    """Raises DataError if the file format or the mode of a Pillow image is not that of a mask."""
    if image.format in LOSSY:
        raise DataError(f'{name}: the format {image.format} changes values: write the mask again as PNG')
    if image.mode not in modes:
        raise DataError(
            f'{name}: the Pillow mode is {image.mode}; expected a palette (P), as in VOC, or grey values (L), where'
            f' each value is a class'
        )


def _read_values(image):
    """Returns the values in the file of a Pillow image, without Pillow's scaling of 2-bit and 4-bit grey."""
    raw_mode = str(image.tile[0][3]) if image.tile else ''
    return np.asarray(image) // GREY_FACTORS.get(raw_mode, 1)


def _read_sbd(path):
    """Returns the mask in a .mat file of SBD."""
    import scipy.io

    content = scipy.io.loadmat(path, variable_names=['GTcls'])
    if 'GTcls' not in content or 'Segmentation' not in (content['GTcls'].dtype.names or ()):
        raise ValueError('it has no GTcls.Segmentation')
    values = content['GTcls']['Segmentation'][0, 0]
    with np.errstate(invalid='ignore'):  # of NaN, which raises an error below
        mask = values.astype(np.uint8)
    if (wrong := mask != values).any():
        raise ValueError(f'it holds {values[wrong][0]}; expected whole numbers from 0 to 255')
    return mask
