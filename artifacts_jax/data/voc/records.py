"""An image with the objects or the mask that are annotated in it; pixels and masks are read when they are asked for.

A mask is a picture as large as its image, with a palette or in grey. Its values are the classes, and VOID is none.
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

VOID = 255  # in a mask: of no class, as around objects
MODES = ('P', 'L', '1')  # as Pillow calls a palette, grey values, and black and white
SCALED = {'L;2': 85, 'L;4': 17}  # what Pillow multiplies grey of so few bits by
LOSSY = ('JPEG', 'MPO', 'JPEG2000')  # kinds of files, as Pillow calls them, that hold no mask
LOOKED_AT = 16  # images of a split at the most, until one can be used


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One image."""

    name: str  # as the lists of images have it
    file: Path | bytes | UInt8[np.ndarray, 'H W 3']  # of the image, its content, or its pixels
    size: tuple[int, ...] | None = None  # height, width, where they are known
    objects: Objects = NO_OBJECTS
    labels: Int8[np.ndarray, '20'] | None = None  # of each class: 1 it is there, 0 not known (difficult), -1 it is not
    mask_file: Path | bytes | None = None  # or its content
    classes: int = VOID  # that masks may have

    def read_image(self) -> UInt8[np.ndarray, 'H W 3']:
        """Reads the image at its own size, in RGB.

        Raises:
          decoding.UnusableError: it is damaged, or its size is not what was read before.
        """
        pixels = decoding.decode_whole(self.file)
        if self.size and pixels.shape[:2] != self.size:
            raise decoding.UnusableError(f'it has {pixels.shape[:2]} rows and columns, and had {self.size}')
        return pixels

    def read_mask(self) -> UInt8[np.ndarray, 'H W'] | None:
        """Reads the class of each pixel, None where there is no mask.

        A file that ends in .mat is one of SBD, with the mask in GTcls.Segmentation.

        Raises:
          DataError: it is damaged, no mask, of another size than its image, or has other values.
        """
        if self.mask_file is None:
            return None
        place = str(self.mask_file) if isinstance(self.mask_file, Path) else f'the mask of {self.name}'
        try:
            if isinstance(self.mask_file, Path) and self.mask_file.suffix.lower() == '.mat':
                mask = _of_sbd(self.mask_file)
            else:
                with PIL.Image.open(_readable(self.mask_file)) as opened:
                    _check_kind(opened, place)
                    mask = _stored(opened)
        except DataError:
            raise
        except Exception as error:  # as of images
            raise DataError(f'{place}: cannot be read ({first_line(error)})') from error
        size = self.size or decoding.read_size(self.file)  # type: ignore[arg-type]  # pixels come with their size
        if mask.shape != size:
            there = ' x '.join(map(str, mask.shape))
            raise DataError(
                f'{place}: has {there} pixels, and its image {size[0]} x {size[1]}: make the mask anew, one value a'
                f' pixel'
            )
        if (wrong := (mask >= self.classes) & (mask != VOID)).any():
            raise DataError(
                f'{place}: holds {mask[wrong][0]}, expected 0 to {self.classes - 1} or {VOID}, in the palette of VOC or'
                f' as grey values'
            )
        return mask.astype(np.uint8)


def check_mask(path: Path, size: tuple[int, int]) -> None:
    """Looks at the beginning of a mask's file.

    Args:
      path: the file.
      size: (height, width) of its image.

    Raises:
      DataError: it is no image, or of another size or kind than a mask.
    """
    try:
        with PIL.Image.open(path) as opened:
            _check_kind(opened, str(path), MODES[:2])
            width, height = opened.size
    except DataError:
        raise
    except Exception as error:
        raise DataError(f'{path}: cannot be read ({first_line(error)})') from error
    if (height, width) != size:
        raise DataError(f'{path}: has {height} x {width} pixels, and its image {size[0]} x {size[1]}')


def check_images(records: Sequence, place: str) -> None:
    """Raises DataError if none of some images of a split can be used.

    Args:
      records: with name and read_image().
      place: the split, for the message.
    """
    problems = []
    for row in np.unique(np.linspace(0, len(records) - 1, LOOKED_AT).astype(int)).tolist():
        record = records[row]
        try:
            record.read_image()
            return
        except decoding.UnusableError as error:
            problems.append(f'{record.name} ({error})')
    raise DataError(f'none of {len(problems):,} images of {place} can be used: {"; ".join(problems[:3])}')


def check_masks(records: Sequence, place: str, *, classes: int, images: int = 1, workers: int = 0) -> None:
    """Reads all masks, but for those of damaged images, which are reported when they are read.

    Args:
      records: with name, read_image() and read_mask().
      place: the split, for messages.
      classes: how many classes pixels must have.
      images: how many images must have pixels with a class.
      workers: threads, 0: as many as there are CPUs.

    Raises:
      DataError: a mask is not what it should be, no image can be used, or there are fewer classes or images.
    """
    check_images(records, place)

    def there(row):
        try:
            return set(np.bincount(records[row].read_mask().reshape(-1)).nonzero()[0].tolist()) - {VOID}
        except decoding.UnusableError:
            return set()

    with concurrent.futures.ThreadPoolExecutor(workers or host.cpus()) as pool:
        found = list(pool.map(there, range(len(records))))
    if (count := len(set().union(*found))) < classes:
        raise DataError(
            f'the pixels of {place} have {"one class" if count else "no class"}, expected {classes} or more; {VOID} is'
            f' none: where it stands for a class, write another value'
        )
    if (count := sum(map(bool, found))) < images:
        raise DataError(f'{count:,} images of {place} have pixels of a class, expected {images} or more')


def _readable(file):
    return file if isinstance(file, Path) else io.BytesIO(file)


def _check_kind(opened, place, modes=MODES):
    """Raises DataError if a picture, opened by Pillow, is none that can be a mask."""
    if opened.format in LOSSY:
        raise DataError(f'{place}: is a {opened.format}, which changes values: make the mask anew, as PNG')
    if opened.mode not in modes:
        raise DataError(
            f'{place}: is {opened.mode}, as Pillow calls it; expected a palette (P), as VOC has it, or grey values (L),'
            f' each the number of a class'
        )


def _stored(mask):
    """Returns the numbers in a picture, opened by Pillow, as its file has them: grey of fewer than 8 bits is scaled."""
    form = str(mask.tile[0][3]) if mask.tile else ''
    return np.asarray(mask) // SCALED.get(form, 1)


def _of_sbd(path):
    import scipy.io

    content = scipy.io.loadmat(path, variable_names=['GTcls'])
    if 'GTcls' not in content or 'Segmentation' not in (content['GTcls'].dtype.names or ()):
        raise ValueError('there is no GTcls.Segmentation in it')
    values = content['GTcls']['Segmentation'][0, 0]
    with np.errstate(invalid='ignore'):  # of nan, which is refused below
        mask = values.astype(np.uint8)
    if (wrong := mask != values).any():
        raise ValueError(f'it holds {values[wrong][0]}, expected whole numbers from 0 to 255')
    return mask
