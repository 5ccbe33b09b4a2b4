"""Checks the images of callers and converts them to network inputs; ambiguous images raise an error."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, UInt8

from artifacts_jax.models.discriminator import scale_pixels

LIKE = 'expected images [B, H, W, 3], RGB with the channels last'
LIKE_ONE = 'expected one image [H, W, 3], RGB with the channels last'
ADVICE = {  # by the number of channels
    1: 'repeat the grey channel three times: {}.repeat(3, axis=-1)',
    4: 'drop the alpha channel: {}[..., :3]',
}
ROUNDING = 1e-4  # floating point values may lie outside the range by this fraction of it


Images = UInt8[Array | np.ndarray, 'B H W 3'] | Float[Array | np.ndarray, 'B H W 3']


def check_range(value_range: Any) -> tuple[float, float]:
    """Returns the range of floating point images as (low, high).

    Raises:
      ValueError: value_range is not a pair of increasing finite numbers.
    """
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low = high = 0.0
    if not low < high < np.inf:
        raise ValueError(f'value_range={value_range!r}: expected (low, high), such as (-1, 1), (0, 1) or (0, 255)')
    return low, high


def to_network(images: Any, value_range: tuple[float, float] = (-1.0, 1.0), size: int | None = None) -> Images:
    """Returns images [B, H, W, 3] in the form that `scale` takes: uint8 in [0, 255] or floating point in [-1, 1].

    Args:
      images: an array, or a value that NumPy can convert to one. Integers of any type are values from 0 to 255.
      value_range: (low, high) of floating point images.
      size: the expected height and width; None accepts any.

    Raises:
      ValueError: the shape, type or range is wrong; the message gives the expected one. The values of traced arrays,
        as in a jitted function, are unknown and not checked.
    """
    if not isinstance(images, jax.Array):
        try:
            images = np.asarray(images)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(
                f'{type(images).__name__} cannot be converted to an array ({error}): {LIKE}, all of the same size'
            ) from error
    _check_shape(images.shape, size)
    if images.dtype == np.uint8:
        return images
    if jnp.issubdtype(images.dtype, jnp.integer):
        _check_values(images, 0, 255, 'integers are values from 0 to 255')
        return images.astype(np.uint8)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f'images of type {images.dtype}: expected integers from 0 to 255, or floating point')
    low, high = value_range
    tolerance = ROUNDING * (high - low)
    advice = f'floating point images lie in [{low:g}, {high:g}], or load with another value_range, such as (0, 255)'
    minimum = _check_values(images, low - tolerance, high + tolerance, advice)
    if (low, high) == (-1.0, 1.0) and minimum is not None and minimum >= 0:
        warnings.warn('no value is below 0: if the images are in [0, 1], load with value_range=(0, 1)', stacklevel=3)
    return images if (low, high) == (-1.0, 1.0) else (images - low) * (2 / (high - low)) - 1


def to_pixels(image: Any, value_range: tuple[float, float] = (-1.0, 1.0)) -> UInt8[np.ndarray, 'H W 3']:
    """Returns one image as uint8 from 0 to 255; floating point values are rounded.

    Args:
      image: [H, W, 3], of the types that `to_network` accepts.
      value_range: as for `to_network`.

    Raises:
      ValueError: the shape, type or range is wrong.
    """
    try:
        shape = np.shape(image)
    except ValueError as error:
        raise ValueError(f'{type(image).__name__} cannot be converted to an array ({error}): {LIKE_ONE}') from error
    if len(shape) != 3 or shape[-1] != 3 or 0 in shape:
        advice = ''
        if len(shape) == 3 and shape[-1] in (1, 4):
            advice = '; ' + ADVICE[shape[-1]].format('image')
        elif len(shape) == 3 and shape[0] == 3:
            advice = '; put the channels last: image.transpose(1, 2, 0)'
        elif len(shape) == 4:
            advice = '; pass the images one by one'
        raise ValueError(f'an image of shape {list(shape)}: {LIKE_ONE}{advice}')
    pixels = np.asarray(to_network(np.asarray(image)[None], value_range)[0])
    return pixels if pixels.dtype == np.uint8 else np.rint((pixels + 1) * 127.5).clip(0, 255).astype(np.uint8)


def scale(images: Images) -> Float32[Array, 'B H W 3']:
    """Returns images of `to_network` as float32 in [-1, 1]."""
    return scale_pixels(images) if images.dtype == jnp.uint8 else jnp.asarray(images, jnp.float32)


def _check_shape(shape, size):
    advice = ''
    if len(shape) == 3 and shape[-1] in (1, 3, 4):
        advice = '; make a batch of one image: images[None]'
    elif len(shape) == 4 and shape[-1] == 4:
        advice = '; ' + ADVICE[4].format('images')
    elif len(shape) == 4 and shape[1] == 3 and shape[-1] != 3:
        advice = '; put the channels last: images.transpose(0, 2, 3, 1)'
    elif len(shape) == 4 and shape[-1] == 1:
        advice = '; ' + ADVICE[1].format('images')
    if len(shape) != 4 or shape[-1] != 3 or advice or 0 in shape:
        raise ValueError(f'images of shape {list(shape)}: {LIKE}{advice or ", at least one"}')
    if size is not None and shape[1:3] != (size, size):
        raise ValueError(f'images of {shape[1]} x {shape[2]} pixels: the classifier was trained on {size} x {size}')


def _check_values(images, low, high, advice):
    """Returns the smallest value, None for traced arrays; raises ValueError if a value lies outside [low, high]."""
    if isinstance(images, jax.core.Tracer):
        return None
    library = jnp if isinstance(images, jax.Array) else np
    minimum, maximum = float(library.min(images)), float(library.max(images))
    if not (low <= minimum and maximum <= high):  # also true for NaN
        raise ValueError(f'images of type {images.dtype} with values from {minimum:g} to {maximum:g}: {advice}')
    return minimum
