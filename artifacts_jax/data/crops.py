"""Random crops for VOC classification, in training and testing: squares of random size and position, with flips.

Output pixel x samples the source coordinate S (x - side / 2) + W / 2 + shift, or -S (x - side / 2) + W / 2 + shift if
it is flipped. S is the number of source pixels for one output pixel. The coordinate of a pixel is its index from 0,
without an offset of a half. Sampling is bilinear, without antialiasing. Between the last pixel and the edge of the
image the value is that of the last pixel. Outside the image the value is 0 after the means are subtracted.

Source: philkr/voc-classification. Its layer, in philkr/caffe, also moves a crop to whole pixels if S differs from 1 or
2 by 0.001 or less (about one crop in a thousand).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int32, Key, UInt8, UInt32

SIDE = 227  # of a crop, pixels
SCALES = (0.5, 2.0)  # range of S: source pixels for one pixel of the crop


class Crops(NamedTuple):
    """The crop boxes of a batch of images; row x of a crop is at source row top + scale x."""

    scale: Float32[Array, ' B']
    top: Float32[Array, ' B']
    left: Float32[Array, ' B']
    flip: Bool[Array, ' B']


def sample_boxes(
    keys: Key[Array, ' B'] | UInt32[Array, 'B 2'],
    sizes: Int32[Array | np.ndarray, 'B 2'],
    *,
    side: int = SIDE,
    scales: tuple[float, float] = SCALES,
) -> Crops:
    """Samples a crop box for each image, as a function of its own key only.

    S is uniform in [min(scales[0], largest), largest], where largest = min(scales[1], shorter side / side), so the crop
    fits into the image. Its position is uniform inside the image. It is flipped with probability 0.5.

    Args:
      keys: one for each image, typed or raw.
      sizes: heights and widths of the images.
      side: of the crop, pixels.
      scales: range of S, source pixels for one pixel of the crop.
    """

    def sample(key, size):
        uniform = jax.random.uniform(key, (4,))
        largest = jnp.minimum(scales[1], size.min() / side)
        smallest = jnp.minimum(scales[0], largest)
        scale = smallest + (largest - smallest) * uniform[0]
        room = jnp.maximum(size - side * scale, 0.0)
        return Crops(scale, room[0] * uniform[1], room[1] * uniform[2], uniform[3] < 0.5)

    return jax.vmap(sample)(keys, sizes)


def extract_crops(
    images: UInt8[Array | np.ndarray, 'B H W 3'],
    sizes: Int32[Array | np.ndarray, 'B 2'],
    crops: Crops,
    *,
    mean: Float[Array | np.ndarray, '3'],
    side: int = SIDE,
) -> Float32[Array, 'B {side} {side} 3']:
    """Returns crops of images minus the means, in [0, 255] - mean.

    Args:
      images: padded at the bottom and at the right.
      sizes: heights and widths of the images without padding.
      crops: the crop boxes.
      mean: of each channel, RGB, in [0, 255].
      side: of the crops, pixels.
    """

    means = jnp.asarray(mean, jnp.float32)[None, None]

    def extract(image, size, crop):
        upper, lower, down, inside_y = _axis(crop.top, crop.scale, size[0], side, flip=False)
        before, after, right, inside_x = _axis(crop.left, crop.scale, size[1], side, flip=crop.flip)

        def gather(y, x):
            return image[y[:, None], x[None, :]].astype(jnp.float32)

        # On CPU, gathering pixels is 5x faster than two products with matrices of weights.
        down, right = down[:, None, None], right[None, :, None]
        top = (1 - right) * gather(upper, before) + right * gather(upper, after)
        bottom = (1 - right) * gather(lower, before) + right * gather(lower, after)
        pixels = (1 - down) * top + down * bottom - means
        return jnp.where((inside_y[:, None] & inside_x[None, :])[..., None], pixels, 0.0)

    return jax.vmap(extract)(images, sizes, crops)


def random_crops(
    keys: Key[Array, ' B'] | UInt32[Array, 'B 2'],
    images: UInt8[Array | np.ndarray, 'B H W 3'],
    sizes: Int32[Array | np.ndarray, 'B 2'],
    *,
    mean: Float[Array | np.ndarray, '3'],
    side: int = SIDE,
    scales: tuple[float, float] = SCALES,
) -> Float32[Array, 'B {side} {side} 3']:
    """Returns random crops: `extract_crops` of the boxes of `sample_boxes`."""
    return extract_crops(images, sizes, sample_boxes(keys, sizes, side=side, scales=scales), mean=mean, side=side)


def _axis(start, scale, length, side, *, flip):
    """Returns, for each pixel of an axis: its two source pixels, the weight of the second, and if it is inside."""
    index = jnp.arange(side, dtype=jnp.float32)
    source = start + scale * jnp.where(flip, side - index, index)  # flips about the centre, side / 2
    before = jnp.clip(jnp.floor(source), 0, length - 1).astype(jnp.int32)
    after = jnp.minimum(before + 1, length - 1)
    return before, after, source - before, (source >= 0) & (source < length)
