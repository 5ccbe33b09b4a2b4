"""Augmentation: turns uint8 images into float32 images in [-1, 1], the input of the networks.

The crop, the resize and the flip are linear and separable: together they are one matrix for an image's rows
and one for its columns, and every image is resampled once, by two matrix products.

Source: the 2018 code's STL-10 pipeline. It resizes with TensorFlow 1's point-sampled kernels. There is no
antialiasing here either, but pixel centres lie at half-integers and the cubic is that of TensorFlow 2.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Float32, Int32, Key, ScalarLike, UInt8, UInt32
from ml_collections import ConfigDict

CROP_TRIES = 10

Images = UInt8[Array | np.ndarray, 'B H W 3']
Range = tuple[ScalarLike, ScalarLike]  # (minimum, maximum)


def train(
    keys: Key[Array, ' B'] | UInt32[Array, 'B 2'],
    images: Images,
    *,
    size: int,
    crop_area: Range,
    crop_aspect: Range,
    flip: bool,
    brightness: ScalarLike,
    saturation: Range,
) -> Float32[Array, 'B {size} {size} 3']:
    """Returns randomly cropped, resized, flipped and recoloured images; each depends only on its own key.

    Args:
      keys: one for each example, typed or raw.
      images: in [0, 255].
      size: side of the result, pixels. The resize is bilinear or bicubic with probability 0.5 each.
      crop_area: range of the crop's area, as a fraction of the image's area.
      crop_aspect: range of the crop's width / height.
      flip: whether to flip images horizontally with probability 0.5.
      brightness: largest shift, for images in [0, 1]; the shift is uniform in [-brightness, brightness].
      saturation: range of the saturation factor; brightness and saturation change in a random order.

    Returns:
      Images in [-1, 1].

    Raises:
      ValueError: if the images are not uint8 [B, H, W, 3].
    """
    _check(images)

    def augment(key, image):
        crop_key, uniform_key = jax.random.split(key)
        uniform = jax.random.uniform(uniform_key, (5,))
        shape = image.shape[:2]
        top, left, height, width = sample_crop(crop_key, shape=shape, area=crop_area, aspect=crop_aspect)
        cubic = uniform[0] < 0.5
        rows = resize_matrix(top, height, length=shape[0], size=size, cubic=cubic)
        columns = resize_matrix(left, width, length=shape[1], size=size, cubic=cubic)
        if flip:
            columns = jnp.where(uniform[1] < 0.5, columns[::-1], columns)
        image = resample(image, rows, columns)

        shift = brightness * (2 * uniform[2] - 1)
        factor = saturation[0] + (saturation[1] - saturation[0]) * uniform[3]
        # One pass for both orders: the shift is added either before or after the change of saturation.
        before = jnp.where(uniform[4] < 0.5, shift, 0.0)
        return _to_unit_range(adjust_saturation(image + before, factor) + (shift - before))

    return jax.vmap(augment)(keys, images)


def test(images: Images, *, size: int, test_crop: float) -> Float32[Array, 'B {size} {size} 3']:
    """Returns the centre crop of each image, resized bilinearly.

    Args:
      images: in [0, 255].
      size: side of the result, pixels.
      test_crop: side of the crop as a fraction of the image's side, in (0, 1]; rounded as in tf.image.central_crop.

    Returns:
      Images in [-1, 1].

    Raises:
      ValueError: if the images are not uint8 [B, H, W, 3].
    """
    _check(images)
    matrices = []
    for length in images.shape[1:3]:
        start = int((length - length * test_crop) / 2)
        matrices.append(resize_matrix(start, length - 2 * start, length=length, size=size, cubic=False))
    rows, columns = matrices
    return jax.vmap(lambda image: _to_unit_range(resample(image, rows, columns)))(images)


def sample_crop(
    key: Key[Array, ''] | UInt32[Array, '2'], *, shape: tuple[int, int], area: Range, aspect: Range
) -> tuple[Int32[Array, ''], ...]:
    """Samples a box of whole pixels inside the image, as tf.image.sample_distorted_bounding_box does.

    The aspect ratio is uniform in its range. The height is then uniform between the smallest and the largest height
    for which the area is in its range (up to rounding to pixels) and the box fits into the image. If no height is
    possible, the aspect ratio is sampled again; after `CROP_TRIES` tries the box is the whole image.

    Args:
      key: the random key.
      shape: the image's (height, width).
      area: range of the box's area, as a fraction of the image's area.
      aspect: range of the box's width / height.

    Returns:
      top, left, height and width.
    """
    tries_key, position_key = jax.random.split(key)
    tries = jax.random.uniform(tries_key, (2, CROP_TRIES))
    position = jax.random.uniform(position_key, (2,))
    aspects = aspect[0] + (aspect[1] - aspect[0]) * tries[0]  # type: ignore[operator, call-overload]  # no bool
    smallest, largest = (jnp.round(jnp.sqrt(a * shape[0] * shape[1] / aspects)) for a in area)
    largest = jnp.minimum(jnp.minimum(largest, shape[0]), jnp.floor((shape[1] + 0.5) / aspects))
    fits = smallest <= largest
    heights = smallest + jnp.floor(tries[1] * (largest - smallest + 1))
    first = jnp.argmax(fits)
    height = jnp.where(fits[first], heights[first], shape[0])
    width = jnp.where(fits[first], jnp.round(heights[first] * aspects[first]), shape[1])
    height = jnp.clip(height, 1, shape[0])
    width = jnp.clip(width, 1, shape[1])
    top = jnp.floor(position[0] * (shape[0] - height + 1))
    left = jnp.floor(position[1] * (shape[1] - width + 1))
    return tuple(x.astype(jnp.int32) for x in (top, left, height, width))


def resize_matrix(
    start: ScalarLike, extent: ScalarLike, *, length: int, size: int, cubic: Bool[ArrayLike, '']
) -> Float32[Array, '{size} {length}']:
    """Returns the matrix that crops and resizes one axis of an image, without antialiasing.

    Its rows sum to 1. Pixels outside the crop have weight 0.

    Args:
      start: first pixel of the crop.
      extent: length of the crop, pixels.
      length: of the axis, pixels.
      size: of the result, pixels.
      cubic: whether the kernel is Keys' cubic with a = -0.5 (bicubic); else it is the triangle (bilinear).
    """
    centres = (jnp.arange(size) + 0.5) * (extent / size) - 0.5 + start
    pixels = jnp.arange(length)
    distance = jnp.abs(centres[:, None] - pixels[None, :])
    triangle = jnp.maximum(0.0, 1.0 - distance)
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    keys_cubic = jnp.where(distance < 1.0, near, jnp.where(distance < 2.0, far, 0.0))
    inside = (pixels >= start) & (pixels < start + extent)
    weights = jnp.where(inside[None, :], jnp.where(cubic, keys_cubic, triangle), 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def resample(
    image: UInt8[Array | np.ndarray, 'H W C'], rows: Float[Array, 'M H'], columns: Float[Array, 'N W']
) -> Float32[Array, 'M N C']:
    """Returns an image resampled by two matrices, one for its rows and one for its columns.

    Args:
      image: in [0, 255].
      rows: maps H rows to M rows.
      columns: maps W columns to N columns.

    Returns:
      The image, nominally in [0, 1]; a cubic kernel can exceed this range.
    """
    # The default precision of accelerators has 8 to 11 bits of mantissa, which is too low for pixels.
    einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)
    image = einsum('mh,hwc->mwc', rows, image.astype(jnp.float32) / 255)
    return einsum('nw,mwc->mnc', columns, image)


def adjust_saturation(image: Float[Array, '*shape 3'], factor: ScalarLike) -> Float[Array, '*shape 3']:
    """Returns an image with its HSV saturation multiplied and clipped to [0, 1], as tf.image.adjust_saturation.

    A conversion to HSV is not needed. If hue and value stay fixed, the new colour lies on the line from the old
    colour to the grey of its value: value - (value - rgb) * (new saturation / old saturation).

    Args:
      image: RGB, nominally in [0, 1].
      factor: at least 0.
    """
    value = image.max(axis=-1, keepdims=True)
    spread = value - image.min(axis=-1, keepdims=True)
    largest = jnp.maximum(value, 0.0) / jnp.where(
        spread > 0, spread, 1.0
    )  # the factor for which the new saturation is 1
    return value - (value - image) * jnp.minimum(factor, largest)


def _to_unit_range(image):
    return jnp.clip(image * 2 - 1, -1, 1)


def _check(images):
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != jnp.uint8:
        raise ValueError(f'images are {images.dtype} {images.shape}, expected uint8 [B, H, W, 3]')


def training_view(config: ConfigDict, keys: Key[Array, ' B'], images: Images) -> Float32[Array, 'B S S 3']:
    """Returns the training images of the networks: `train` with the options of a run's config."""
    options = config.augment
    return train(
        keys,
        images,
        size=config.model.image_size,
        crop_area=options.crop_area,
        crop_aspect=options.crop_aspect,
        flip=options.flip,
        brightness=options.brightness,
        saturation=options.saturation,
    )


def test_view(config: ConfigDict, images: Images) -> Float32[Array, 'B S S 3']:
    """Returns the test images of the networks: `test` with the options of a run's config."""
    return test(images, size=config.model.image_size, test_crop=config.augment.test_crop)
