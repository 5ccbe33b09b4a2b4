"""An image of VOC: what is said of it, and its pixels and mask, which are read when they are asked for."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Int8, UInt8

from artifacts_jax.data import decoding
from artifacts_jax.data.errors import DataError, first_line
from artifacts_jax.transfer.voc.annotations import NAMES, Objects

VOID = 255  # in a mask: of no class, as around objects
SCALED = {'L;2': 85, 'L;4': 17}  # what Pillow multiplies grey of so few bits by
LOSSY = ('JPEG', 'MPO', 'JPEG2000')  # kinds of files, as Pillow calls them, that hold no mask


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One image."""

    name: str  # as the lists of images have it
    size: tuple[int, int]  # height, width
    objects: Objects
    labels: Int8[np.ndarray, '20']  # of each class: 1 it is there, 0 not known (difficult objects only), -1 it is not
    file: Path | bytes  # of the image, or its content
    mask_file: Path | None = None

    def image(self) -> UInt8[np.ndarray, 'H W 3']:
        """Reads the image at its own size, in RGB.

        Raises:
          decoding.UnusableError: it is damaged, or its size is not what was read before.
        """
        pixels = decoding.decode_whole(self.file)
        if pixels.shape[:2] != self.size:
            raise decoding.UnusableError(f'it has {pixels.shape[:2]} rows and columns, and had {self.size}')
        return pixels

    def mask(self) -> UInt8[np.ndarray, 'H W'] | None:
        """Reads the class of each pixel: 0 background, 1 + position in NAMES, VOID; None where there is no mask.

        A file that ends in .mat is one of SBD, with the mask in GTcls.Segmentation.

        Raises:
          DataError: it is damaged, of another size than its image, or has other values.
        """
        if self.mask_file is None:
            return None
        try:
            mask = _of_sbd(self.mask_file) if self.mask_file.suffix.lower() == '.mat' else _of_image(self.mask_file)
        except Exception as error:  # as of images
            raise DataError(f'{self.mask_file}: cannot be read ({first_line(error)})') from error
        if mask.shape != self.size:
            there = ' x '.join(map(str, mask.shape))
            raise DataError(
                f'{self.mask_file}: has {there} pixels, and its image {self.size[0]} x {self.size[1]}: make the mask'
                f' anew, one value a pixel'
            )
        if (wrong := (mask > len(NAMES)) & (mask != VOID)).any():
            raise DataError(
                f'{self.mask_file}: holds {mask[wrong][0]}, expected 0 to {len(NAMES)} or {VOID}, in the palette of'
                f' VOC or as grey values'
            )
        return mask


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """An image that a caller has, as a record."""

    pixels: UInt8[np.ndarray, 'H W 3']
    name: str = 'the image'

    @property
    def size(self) -> tuple[int, int]:
        """Its height and width."""
        return self.pixels.shape[:2]

    def image(self) -> UInt8[np.ndarray, 'H W 3']:
        """Returns its pixels."""
        return self.pixels


def stored(mask: Any) -> np.ndarray:
    """Returns the numbers in a picture, opened by Pillow, as its file has them: grey of fewer than 8 bits is scaled."""
    form = str(mask.tile[0][3]) if mask.tile else ''
    return np.asarray(mask) // SCALED.get(form, 1)


def _of_image(path):
    with PIL.Image.open(path) as opened:
        return stored(opened)


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
            kind, mode, (width, height) = opened.format, opened.mode, opened.size
    except Exception as error:
        raise DataError(f'{path}: cannot be read ({first_line(error)})') from error
    if kind in LOSSY:
        raise DataError(f'{path}: is a {kind}, which changes values: make the mask anew, as PNG')
    if mode not in ('P', 'L'):
        raise DataError(
            f'{path}: is {mode}, as Pillow calls it; expected a palette (P), as VOC has it, or grey values (L), each'
            f' the number of a class'
        )
    if (height, width) != size:
        raise DataError(f'{path}: has {height} x {width} pixels, and its image {size[0]} x {size[1]}')
