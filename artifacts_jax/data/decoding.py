"""Decodes images to RGB with Pillow, as centre crops of one size or whole.

| image | conversion |
|---|---|
| any size | centre crop to a square, resized with antialiasing; or the whole image |
| with an EXIF orientation | rotated or mirrored upright |
| grey, palette, CMYK, YCCK, another colour space that Pillow converts | converted to RGB |
| transparent | composed on white |
| 16-bit grey | scaled by the bit depth in the file (PNG sBIT, TIFF MaxSampleValue), else by the smallest fit of BITS |
| float | interpreted as [0, 1], or as [0, 255] if a value is above 1 |
| several frames or pages | the first |

An image that cannot be decoded, or that has extra channels, raises UnusableError with the reason.
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

# Extensions select the files of a folder; the type of a file is detected from its content. Pillow has AVIF since 11.3.
HEIF = ('.heic', '.heics', '.heif', '.heifs', '.hif')  # read by pillow-heif, if it is installed
SUFFIXES = (
    *('.jpg', '.jpeg', '.jpe', '.jfif', '.jif', '.mpo', '.png', '.apng', '.webp', '.avif', '.avifs', '.gif'),
    *('.bmp', '.dib', '.tif', '.tiff', '.ppm', '.pgm', '.pbm', '.pnm', '.pfm', '.jp2', '.j2k', '.tga', '.ico'),
    *HEIF,
)
BITS = (8, 10, 12, 14, 16)  # possible bit depths of 16-bit images
GAP = 2  # a JPEG is decoded at 1/2, 1/4 or 1/8 of its size if the result has at least GAP times the wanted size
ORIENTATION, SAMPLES, EXTRA_SAMPLES, MAX_SAMPLE = 0x0112, 277, 338, 281  # tags of EXIF and TIFF
TRANSPOSED = (5, 6, 7, 8)  # orientations that exchange height and width
ORIENTED = (b'Exif\0', b'tiff:Orientation')  # markers of a JPEG that may have an orientation, in EXIF or in XMP
UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}

# Pillow warns from 90 million pixels, which phone cameras exceed. Twice as many pixels are an error.
warnings.filterwarnings('ignore', category=PIL.Image.DecompressionBombWarning)
if importlib.util.find_spec('pillow_heif'):
    import pillow_heif

    pillow_heif.register_heif_opener()


class UnusableError(Exception):
    """An image cannot be used; the message gives the reason."""


def decode(image: bytes | Path | np.ndarray, size: int) -> UInt8[np.ndarray, '{size} {size} 3']:
    """Returns the centre crop of an image, resized, RGB in 0 to 255.

    Args:
      image: the content of a file, its path, or pixels, uint8 [H, W, 3].
      size: side of the result, pixels. An image of this size is returned unchanged.

    Raises:
      UnusableError: the image cannot be decoded, or its format has no rule in this module.
    """
    if isinstance(image, np.ndarray):
        return image if image.shape == (size, size, 3) else np.asarray(_crop_centre(PIL.Image.fromarray(image), size))
    return _pixels(image, size)


def decode_whole(image: bytes | Path | np.ndarray) -> UInt8[np.ndarray, 'H W 3']:
    """Returns the whole image at its original size, RGB in 0 to 255.

    Args:
      image: the content of a file, its path, or pixels, which are returned unchanged.

    Raises:
      UnusableError: the image cannot be decoded; see `decode`.
    """
    return image if isinstance(image, np.ndarray) else _pixels(image, None)


def resize_to_square(image: UInt8[np.ndarray, 'H W 3'], size: int) -> UInt8[np.ndarray, '{size} {size} 3']:
    """Returns the whole image resized to a square, with antialiasing; the aspect ratio changes."""
    return resize(image, (size, size))


def limit_size(image: UInt8[np.ndarray, 'H W 3'], size: int) -> UInt8[np.ndarray, '_ _ 3']:
    """Returns an image downscaled so that its longer side has `size` pixels; smaller images are unchanged."""
    longest = max(image.shape[:2])
    if longest <= size:
        return image
    height, width = (max(1, round(length * size / longest)) for length in image.shape[:2])
    return resize(image, (height, width))


def resize(image: UInt8[np.ndarray, 'H W 3'], size: tuple[int, int]) -> UInt8[np.ndarray, '_ _ 3']:
    """Returns an image resized bilinearly to (height, width), with antialiasing if it becomes smaller."""
    resized = PIL.Image.fromarray(image).resize(size[::-1], PIL.Image.Resampling.BILINEAR)
    return np.asarray(resized)


def read_size(image: bytes | Path) -> tuple[int, int]:
    """Returns the (height, width) of the result of decode_whole; reads only the header of the file.

    Raises:
      UnusableError: the file is not an image.
    """
    with _as_unusable(image), PIL.Image.open(image if isinstance(image, Path) else io.BytesIO(image)) as file:
        width, height = file.size
        try:
            is_transposed = file.format != 'TIFF' and file.getexif().get(ORIENTATION, 1) in TRANSPOSED
        except Exception:  # of a damaged PNG, which is read as a whole for EXIF; decode_whole reports the damage
            is_transposed = False
        return (width, height) if is_transposed else (height, width)


def read_mode(image: bytes | Path | np.ndarray) -> str:
    """Returns the Pillow mode of an image ('RGB', 'L', 'CMYK', ...), or '' if it cannot be read."""
    if isinstance(image, np.ndarray):
        return 'RGB'
    try:
        with PIL.Image.open(image if isinstance(image, Path) else io.BytesIO(image)) as file:
            return file.mode
    except Exception:  # decode reports the error
        return ''


def _pixels(image, size):
    """Returns the pixels of the resized centre crop, or of the whole image if size is None."""
    with _as_unusable(image):
        content = image.read_bytes() if isinstance(image, Path) else image
        if (pixels := _decode_plain_jpeg(content, size)) is not None:
            return (
                pixels
                if pixels.shape == (size, size, 3)
                else np.asarray(_crop_centre(PIL.Image.fromarray(pixels), size))
            )
        with PIL.Image.open(io.BytesIO(content)) as file:
            return _decode_file(file, size)


@contextlib.contextmanager
def _as_unusable(image):
    """Turns every exception that is raised while an image is read into UnusableError with the reason."""
    try:
        yield
    except UnusableError:
        raise
    except PIL.UnidentifiedImageError as error:
        raise UnusableError(_explain_unidentified(image.read_bytes() if isinstance(image, Path) else image)) from error
    except OSError as error:
        raise UnusableError(error.strerror or str(error)) from error
    # A damaged file can make Pillow's decoders raise any exception: SyntaxError, struct.error, IndexError, ...
    except Exception as error:
        raise UnusableError(f'{error}' or type(error).__name__) from error


def _decode_plain_jpeg(content, size):
    """Returns a JPEG decoded by simplejpeg, with a tenth of Pillow's overhead; None if only Pillow can read it."""
    if content[:3] != b'\xff\xd8\xff' or any(mark in content for mark in ORIENTED):
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
        if space in ('CMYK', 'YCCK') or height * width > 2 * (PIL.Image.MAX_IMAGE_PIXELS or np.inf):
            return None
        min_side = GAP * size if size else 0  # 0: full size

        return simplejpeg.decode_jpeg(content, 'RGB', min_height=min_side, min_width=min_side)
    except ValueError:  # damaged; Pillow can read some of these files
        return None


def _decode_file(image, size):
    _check_channels(image)
    has_16_bit_colour = any(';16' in str(tile[3]) for tile in image.tile) and len(image.getbands()) > 1
    bits = _significant_bits(image)
    if size:
        image.draft(None, (GAP * size, GAP * size))
    image.load()
    if has_16_bit_colour and max(high for _, high in image.getextrema()[:3]) < 2 ** (BITS[-2] - 8):
        # Pillow keeps only the upper 8 bits of each value, so small values cannot be scaled up.
        raise UnusableError(
            f'it has 16 bits, but its values use at most {BITS[-2]}, so their intended range is unknown: convert it to'
            f' 8 bits'
        )
    orientation = image.getexif().get(ORIENTATION, 1)  # Pillow already rotates a TIFF
    square = _to_rgb(_crop_centre(_to_8_bits(image, bits), size))
    if orientation in UPRIGHT:
        square = square.transpose(UPRIGHT[orientation])
    return np.asarray(square)


def _check_channels(image):
    """Raises UnusableError for a TIFF with extra channels, such as infrared, which Pillow would drop."""
    tags = getattr(image, 'tag_v2', {})
    extra = tags.get(EXTRA_SAMPLES, ())
    if 0 in (extra if isinstance(extra, tuple) else (extra,)):
        raise UnusableError(f'it has {tags.get(SAMPLES)} channels, expected grey or RGB, with or without alpha')


def _to_8_bits(image, bits):
    """Returns an 8-bit image that can be interpolated, converted from palette, 1-bit, 16-bit or float values."""
    if image.mode.startswith('I') or image.mode == 'F':
        values = np.asarray(image)
        return PIL.Image.fromarray((values * (255 / _white_value(values, bits)) + 0.5).astype(np.uint8))
    if image.has_transparency_data:
        return image.convert('RGBA')
    if image.mode in ('L', 'RGB', 'CMYK'):
        return image
    return image.convert('L' if image.mode == '1' else 'RGB')


def _white_value(values, bits):
    """Returns the value of white in an image of floats, or of integers of more than 8 bits."""
    lowest, highest = values.min(), values.max()
    if not (lowest >= 0 and np.isfinite(highest)):
        raise UnusableError(f'its values are from {lowest:g} to {highest:g}, expected finite values from 0')
    if values.dtype.kind == 'f':
        if highest > 255:
            raise UnusableError(f'its values are floats of up to {highest:g}, expected [0, 1] or [0, 255]')
        return 255 if highest > 1 else 1
    fitting = [depth for depth in (bits, *BITS) if depth and highest < 2**depth]
    if not fitting:
        raise UnusableError(f'its values are up to {highest}, expected at most {BITS[-1]} bits')
    return 2 ** fitting[0] - 1


def _significant_bits(image):
    """Returns the number of used bits of a value that the file states, or None."""
    if max_value := getattr(image, 'tag_v2', {}).get(MAX_SAMPLE):
        return int(max_value[0] if isinstance(max_value, tuple) else max_value).bit_length()
    if image.format == 'PNG':
        position = image.fp.tell()
        image.fp.seek(0)
        head = image.fp.read(4096)  # sBIT precedes the palette and the pixels
        image.fp.seek(position)
        start = head.find(b'sBIT')
        if 0 <= start < len(head) - 4:
            return head[start + 4]
    return None


def _crop_centre(image, size):
    """Returns the centre crop of an image, resized, or the whole image if size is None.

    Only the pixels of the crop are computed, so very long images cost no extra memory.
    """
    if size is None or image.size == (size, size):
        return image
    side = min(image.size)
    left, top = ((length - side) / 2 for length in image.size)
    # Pillow antialiases within the box.
    return image.resize((size, size), PIL.Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))


def _to_rgb(image):
    if image.mode in ('RGBA', 'RGBa', 'LA'):
        image = image.convert('RGBA')
        return PIL.Image.alpha_composite(PIL.Image.new('RGBA', image.size, 'white'), image).convert('RGB')
    return image.convert('RGB')


def _explain_unidentified(content):
    """Returns the reason why Pillow does not recognise a file."""
    if not content:
        return 'it is empty'
    if content[4:8] == b'ftyp' and not importlib.util.find_spec('pillow_heif'):
        return 'it is HEIC, which needs pillow-heif: pip install pillow-heif'
    if content[:4] in (b'II*\0', b'MM\0*'):
        return 'it is a TIFF with unsupported channels or bits; expected grey or RGB, with or without alpha'
    return 'it is not an image that Pillow reads, or its first bytes are damaged'
