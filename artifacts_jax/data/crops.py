"""The crops of VOC's classification, in training and testing: square, of random size and place, mirrored or not.

Output pixel x looks at source coordinate S (x - side / 2) + W / 2 + shift, or -S (x - side / 2) + ... where it is
mirrored: S source pixels to one of the output, and a pixel's coordinate is its number from 0, without a half. It is
interpolated bilinearly, without antialiasing. Beyond the last pixel, up to the image's end, that pixel counts; what
lies outside the image is 0 after the means are subtracted.

Source: philkr/voc-classification, whose layer, in philkr/caffe, also moves the one crop in a thousand whose S is 0.001
or less from 1 or 2 to whole pixels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Key, UInt8, UInt32

SIDE = 227  # of a crop, pixels
SCALES = (0.5, 2.0)  # source pixels of one of the crop's


class Crops(NamedTuple):
    """The squares of a batch of images; the first row of a crop is at `top`, and row x is at top + scale x."""

    scale: Float32[Array, ' B']
    top: Float32[Array, ' B']
    left: Float32[Array, ' B']
    mirror: Bool[Array, ' B']


def sample_boxes(
    keys: Key[Array, ' B'] | UInt32[Array, 'B 2'],
    sizes: Int32[Array | np.ndarray, 'B 2'],
    *,
    side: int = SIDE,
    scales: tuple[float, float] = SCALES,
) -> Crops:
    """Draws a crop of each image, as a function of its own key only.

    S is uniform in [min(scales[0], most), most], where most = min(scales[1], the image's smaller side / side), so that
    the crop fits. Its place is uniform inside the image. Half of the crops are mirrored.

    Args:
      keys: one for each image, typed or raw.
      sizes: the images' heights and widths.
      side: of the crop, pixels.
      scales: the least and the most source pixels of one of the crop's.
    """

    def one(key, size):
        draws = jax.random.uniform(key, (4,))
        most = jnp.minimum(scales[1], size.min() / side)
        least = jnp.minimum(scales[0], most)
        scale = least + (most - least) * draws[0]
        room = jnp.maximum(size - side * scale, 0.0)
        return Crops(scale, room[0] * draws[1], room[1] * draws[2], draws[3] < 0.5)

    return jax.vmap(one)(keys, sizes)


def extract_crops(
    images: UInt8[Array | np.ndarray, 'B H W 3'],
    sizes: Int32[Array | np.ndarray, 'B 2'],
    crops: Crops,
    *,
    mean: Float[Array | np.ndarray, '3'],
    side: int = SIDE,
) -> Float32[Array, 'B {side} {side} 3']:
    """Returns crops of images less the means, so in [0, 255] - mean.

    Args:
      images: padded below and to the right.
      sizes: their heights and widths there.
      crops: which.
      mean: of each channel, RGB, in [0, 255].
      side: of the crops, pixels.
    """

    means = jnp.asarray(mean, jnp.float32)[None, None]

    def one(image, size, crop):
        upper, lower, down, inside_y = _axis(crop.top, crop.scale, size[0], side, mirror=False)
        before, after, right, inside_x = _axis(crop.left, crop.scale, size[1], side, mirror=crop.mirror)

        def at(y, x):
            return image[y[:, None], x[None, :]].astype(jnp.float32)

        # On CPU, gathers of whole pixels take a fifth of the time of two products with matrices of weights.
        down, right = down[:, None, None], right[None, :, None]
        top = (1 - right) * at(upper, before) + right * at(upper, after)
        bottom = (1 - right) * at(lower, before) + right * at(lower, after)
        pixels = (1 - down) * top + down * bottom - means
        return jnp.where((inside_y[:, None] & inside_x[None, :])[..., None], pixels, 0.0)

    return jax.vmap(one)(images, sizes, crops)


def random_crops(
    keys: Key[Array, ' B'] | UInt32[Array, 'B 2'],
    images: UInt8[Array | np.ndarray, 'B H W 3'],
    sizes: Int32[Array | np.ndarray, 'B 2'],
    *,
    mean: Float[Array | np.ndarray, '3'],
    side: int = SIDE,
    scales: tuple[float, float] = SCALES,
) -> Float32[Array, 'B {side} {side} 3']:
    """Returns what `cut` does of the crops that `draw` draws."""
    return extract_crops(images, sizes, sample_boxes(keys, sizes, side=side, scales=scales), mean=mean, side=side)


def _axis(start, scale, length, side, *, mirror):
    """Returns, for each pixel of a crop's axis, the two that it lies between, how far, and whether it is inside."""
    place = jnp.arange(side, dtype=jnp.float32)
    source = start + scale * jnp.where(mirror, side - place, place)  # about the centre, which is side / 2
    before = jnp.clip(jnp.floor(source), 0, length - 1).astype(jnp.int32)
    after = jnp.minimum(before + 1, length - 1)
    return before, after, source - before, (source >= 0) & (source < length)
