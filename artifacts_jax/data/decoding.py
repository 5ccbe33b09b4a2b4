"""Images as people have them, decoded to RGB by Pillow, as squares of one size or as they are.

| an image | becomes |
|---|---|
| of any size | its central square, resized with antialiasing, unless the whole is asked for |
| turned, by its EXIF orientation | upright |
| grey, of a palette, CMYK, YCCK, of another colour space that Pillow converts | RGB |
| transparent | laid on white |
| grey, of 16 bits | scaled by the bits that its file names (PNG's sBIT, TIFF's MaxSampleValue), or the fewest of BITS |
| of floats | in [0, 1] or, if there are larger ones, in [0, 255] |
| of several pictures | its first |

What cannot be read so, or only with a band too many or too few, raises UnusableError with a reason.
"""

import contextlib
import importlib.util
import io
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import simplejpeg
from jaxtyping import UInt8

# Of the names of files; what a file is, its content tells. Pillow has AVIF since 11.3.
HEIF = ('.heic', '.heics', '.heif', '.heifs', '.hif')  # by pillow-heif, where it is installed
SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.mpo', '.png', '.apng', '.webp', '.avif', '.avifs', '.gif'),
    *('.bmp', '.dib', '.tif', '.tiff', '.ppm', '.pgm', '.pbm', '.pnm', '.pfm', '.jp2', '.j2k', '.tga', '.ico'),
    *HEIF,
)
BITS = (8, 10, 12, 14, 16)
GAP = 2  # a JPEG is decoded at half its size while this is so many times the wanted one, or more
ORIENTATION, SAMPLES, EXTRA_SAMPLES, MAX_SAMPLE = 0x0112, 277, 338, 281  # tags of EXIF and TIFF
LYING = (5, 6, 7, 8)  # orientations that exchange height and width
TURNED = (b'Exif\0', b'tiff:Orientation')  # stand in a JPEG that may say how it is turned, the latter in XMP
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

# Of images with more pixels than Pillow likes, from 90 millions, which telephones make. Twice as many are an error.
warnings.filterwarnings('ignore', category=PIL.Image.DecompressionBombWarning)
if importlib.util.find_spec('pillow_heif'):
    import pillow_heif

    pillow_heif.register_heif_opener()


class UnusableError(Exception):
    """An image that cannot be used; the message says why."""


def decode(image: bytes | Path | np.ndarray, size: int) -> UInt8[np.ndarray, '{size} {size} 3']:
    """Returns the central square of an image, in RGB, 0 to 255.

    Args:
      image: a file's content, its path, or pixels, uint8 [H, W, 3].
      size: side of the square, pixels. An image of just this size keeps its pixels.

    Raises:
      UnusableError: it is no image, or one that no rule of this module says how to read.
    """
    if isinstance(image, np.ndarray):
        return image if image.shape == (size, size, 3) else np.asarray(_square(PIL.Image.fromarray(image), size))
    return _pixels(image, size)


def decode_whole(image: bytes | Path | np.ndarray) -> UInt8[np.ndarray, 'H W 3']:
    """Returns the whole of an image at its own size, in RGB, 0 to 255.

    Args:
      image: a file's content, its path, or pixels, which are returned as they are.

    Raises:
      UnusableError: as decode does.
    """
    return image if isinstance(image, np.ndarray) else _pixels(image, None)


def resize_to_square(image: UInt8[np.ndarray, 'H W 3'], size: int) -> UInt8[np.ndarray, '{size} {size} 3']:
    """Returns the whole of an image as a square, antialiased."""
    return resize(image, (size, size))


def limit_size(image: UInt8[np.ndarray, 'H W 3'], size: int) -> UInt8[np.ndarray, '_ _ 3']:
    """Returns an image scaled down, antialiased, such that its larger side has so many pixels; a smaller one stays."""
    longest = max(image.shape[:2])
    if longest <= size:
        return image
    height, width = (max(1, round(length * size / longest)) for length in image.shape[:2])
    return resize(image, (height, width))


def resize(image: UInt8[np.ndarray, 'H W 3'], size: tuple[int, int]) -> UInt8[np.ndarray, '_ _ 3']:
    """Returns an image of this height and width, bilinearly, antialiased where it is smaller."""
    resized = PIL.Image.fromarray(image).resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(resized)


def read_size(image: bytes | Path) -> tuple[int, int]:
    """Returns the (height, width) that decode_whole gives an image, of which it reads no more than the beginning.

    Raises:
      UnusableError: it is no image.
    """
    with _reasons(image), PIL.Image.open(image if isinstance(image, Path) else io.BytesIO(image)) as opened:
        width, height = opened.size
        try:
            turned = opened.format != 'TIFF' and opened.getexif().get(ORIENTATION, 1) in LYING
        except Exception:  # of a PNG, all of which is read for it: decode_whole says what is damaged
            turned = False
        return (width, height) if turned else (height, width)


def read_mode(image: bytes | Path | np.ndarray) -> str:
    """Returns what pixels an image has, as Pillow calls it ('RGB', 'L', 'CMYK', ...), '' where it cannot be read."""
    if isinstance(image, np.ndarray):
        return 'RGB'
    try:
        with PIL.Image.open(image if isinstance(image, Path) else io.BytesIO(image)) as opened:
            return opened.mode
    except Exception:  # as in decode, which says it
        return ''


def _pixels(image, size):
    """Returns the pixels of an image's central square, or of the whole where the size is None."""
    with _reasons(image):
        content = image.read_bytes() if isinstance(image, Path) else image
        if (pixels := _plain_jpeg(content, size)) is not None:
            return pixels if pixels.shape == (size, size, 3) else np.asarray(_square(PIL.Image.fromarray(pixels), size))
        with PIL.Image.open(io.BytesIO(content)) as opened:
            return _decoded(opened, size)


@contextlib.contextmanager
def _reasons(image):
    """Raises UnusableError, with the reason, for whatever is raised while an image is read."""
    try:
        yield
    except UnusableError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise UnusableError(_unidentified(image.read_bytes() if isinstance(image, Path) else image)) from error
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    # Pillow's decoders raise whatever a damaged file leads them to: SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise UnusableError(f'{error}' or type(error).__name__) from error


def _plain_jpeg(content, size):
    """Returns the pixels of a JPEG that simplejpeg reads as Pillow does, with a tenth of its overhead, else None."""
    if content[:3] != b'\xff\xd8\xff' or any(mark in content for mark in TURNED):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
        if space in ('CMYK', 'YCCK') or height * width > 2 * (PIL.Image.MAX_IMAGE_PIXELS or np.inf):
            return None
        least = GAP * size if size else 0  # 0: nothing is halved
        return simplejpeg.decode_jpeg(content, 'RGB', min_height=least, min_width=least)
    except ValueError:  # of damage, also where Pillow finds a way
        return None


def _decoded(image, size):
    _check_bands(image)
    deep = any(';16' in str(tile[3]) for tile in image.tile) and len(image.getbands()) > 1
    bits = _significant_bits(image)
    if size:
        image.draft(None, (GAP * size, GAP * size))
    image.load()
    if deep and max(high for _, high in image.getextrema()[:3]) < 2 ** (BITS[-2] - 8):
        # Of each value Pillow keeps the upper half, which cannot be scaled any more.
        raise UnusableError(
            f'it has 16 bits, of which its values fill {BITS[-2]} at most, and how bright they are meant is not known:'
            f' convert it to 8 bits'
        )
    orientation = image.getexif().get(ORIENTATION, 1)  # of a TIFF, Pillow has turned it already
    square = _rgb(_square(_scaled(image, bits), size))
    if orientation in UPRIGHT:
        square = square.transpose(UPRIGHT[orientation])
    return np.asarray(square)


def _check_bands(image):
    """Raises UnusableError for a TIFF of which Pillow would drop bands, such as infrared."""
    tags = getattr(image, 'tag_v2', {})
    extra = tags.get(EXTRA_SAMPLES, ())
    if 0 in (extra if isinstance(extra, tuple) else (extra,)):
        raise UnusableError(f'it has {tags.get(SAMPLES)} bands, expected grey or RGB, with or without alpha')


def _scaled(image, bits):
    """Returns an image whose pixels have 8 bits and can be interpolated: no palette, no bits, no 16-bit numbers."""
    if image.mode.startswith('I') or image.mode == 'F':
        values = np.asarray(image)
        return PIL.Image.fromarray((values * (255 / _white(values, bits)) + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert('RGBA')
    if image.mode in ('L', 'RGB', 'CMYK'):
        return image
    return image.convert('L' if image.mode == '1' else 'RGB')


def _white(values, bits):
    """Returns the value that is white in an image of integers of more than 8 bits, or of floats."""
    least, most = values.min(), values.max()
    if not (least >= 0 and np.isfinite(most)):
        raise UnusableError(f'its values are from {least:g} to {most:g}, expected none below 0')
    if values.dtype.kind == 'f':
        if most > 255:
            raise UnusableError(f'its values are floats of up to {most:g}, expected [0, 1] or [0, 255]')
        return 255 if most > 1 else 1
    fitting = [each for each in (bits, *BITS) if each and most < 2**each]
    if not fitting:
        raise UnusableError(f'its values are up to {most}, expected at most {BITS[-1]} bits')
    return 2 ** fitting[0] - 1


def _significant_bits(image):
    """Returns how many bits of a value an image's file says are used, None where it does not say."""
    if most := getattr(image, 'tag_v2', {}).get(MAX_SAMPLE):
        return int(most[0] if isinstance(most, tuple) else most).bit_length()
    if image.format == 'PNG':
        place = image.fp.tell()
        image.fp.seek(0)
        head = image.fp.read(4096)  # sBIT precedes the palette and the pixels
        image.fp.seek(place)
        found = head.find(b'sBIT')
        if 0 <= found < len(head) - 4:
            return head[found + 4]
    return None


def _square(image, size):
    """Returns the central square of an image, resized; only what it needs is computed, however long an image is.

    The whole image is what it returns where the size is None.
    """
    if size is None or image.size == (size, size):
        return image
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    # Pillow antialiases within the box.
    return image.resize((size, size), PIL.Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _rgb(image):
    if image.mode in ('RGBA', 'RGBa', 'LA'):
        image = image.convert('RGBA')
        return PIL.Image.alpha_composite(PIL.Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image.convert('RGB')


def _unidentified(content):
    """Returns why Pillow cannot tell what a file is."""
    if not content:
        return 'it is empty'
    if content[4:8] == b'ftyp' and not importlib.util.find_spec('pillow_heif'):
        return 'HEIC is read with pillow-heif: pip install pillow-heif'
    if content[:4] in (b'II*\0', b'MM\0*'):
        return 'a TIFF of other bands or bits than grey or RGB, with or without alpha'
    return 'it is no image that Pillow reads, or is damaged at its beginning'
