"""Crops of stored images for published protocols, with and without horizontal flips; colours are unchanged.

Images are uint8 [B, H, W, 3] and views float32 [B, size, size, 3] in [-1, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key, UInt8

from artifacts_jax.data import augment
from artifacts_jax.models.discriminator import scale_pixels

Images = UInt8[Array | np.ndarray, 'B H W 3']
Views = Float32[Array, 'B S S 3']

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # the defaults of torchvision's RandomResizedCrop


def random_crop(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """Returns a square crop at a uniformly random position, flipped horizontally with probability 0.5."""

    def crop(key, image):
        position_key, flip_key = jax.random.split(key)
        room = jnp.array(image.shape[:2]) - size + 1
        top, left = jax.random.randint(position_key, (2,), 0, room)
        square = jax.lax.dynamic_slice(image, (top, left, 0), (size, size, 3))
        return _randomly_flip(flip_key, square)

    return scale_pixels(jax.vmap(crop)(keys, jnp.asarray(images)))


def centre_crop_flipped(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """Returns the centre crop, flipped horizontally with probability 0.5."""
    return scale_pixels(jax.vmap(_randomly_flip)(keys, _crop(jnp.asarray(images), size, *_centre_corner(images, size))))


def random_resized_crop(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """Returns a random resized crop (see `sample_box`), bilinear, flipped horizontally with probability 0.5."""

    def crop(key, image):
        box_key, flip_key = jax.random.split(key)
        height, width = image.shape[:2]
        top, left, rows, columns = sample_box(box_key, (height, width))
        vertical = augment.resize_matrix(top, rows, length=height, size=size, cubic=False)
        horizontal = augment.resize_matrix(left, columns, length=width, size=size, cubic=False)
        return _randomly_flip(flip_key, augment.resample(image, vertical, horizontal))

    return jax.vmap(crop)(keys, jnp.asarray(images)) * 2 - 1


def sample_box(key: Key[Array, ''], shape: tuple[int, int]) -> tuple[Float32[Array, ''], ...]:
    """Samples a box of whole pixels inside an image, as torchvision's RandomResizedCrop.

    The area, as a fraction of the image, is uniform in AREA. The logarithm of width / height is uniform in the range of
    RATIO. A box that does not fit is sampled again; after TRIES tries the box is the whole image.

    Args:
      key: the random key.
      shape: the (height, width) of the image.

    Returns:
      (top, left, height, width), pixels.
    """
    size_key, position_key = jax.random.split(key)
    area, ratio = jax.random.uniform(size_key, (2, TRIES))
    area = (AREA[0] + (AREA[1] - AREA[0]) * area) * shape[0] * shape[1]
    ratio = jnp.exp(jnp.log(RATIO[0]) + (jnp.log(RATIO[1]) - jnp.log(RATIO[0])) * ratio)
    heights, widths = jnp.round(jnp.sqrt(area / ratio)), jnp.round(jnp.sqrt(area * ratio))
    fits = (heights >= 1) & (widths >= 1) & (heights <= shape[0]) & (widths <= shape[1])
    first = fits.argmax()
    height, width = (jnp.where(fits[first], x[first], whole) for x, whole in zip((heights, widths), shape))
    top, left = jax.random.uniform(position_key, (2,))
    return jnp.floor(top * (shape[0] - height + 1)), jnp.floor(left * (shape[1] - width + 1)), height, width


def centre_crop(images: Images, size: int) -> Views:
    """Returns the centre crop."""
    return scale_pixels(_crop(jnp.asarray(images), size, *_centre_corner(images, size)))


def ten_crops(images: Images, size: int) -> tuple[Views, ...]:
    """Returns ten crops: the four corners and the centre, and their horizontal flips."""
    bottom, right = images.shape[1] - size, images.shape[2] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), _centre_corner(images, size)]
    squares = [scale_pixels(_crop(jnp.asarray(images), size, *corner)) for corner in corners]
    return (*squares, *(square[:, :, ::-1] for square in squares))


def _centre_corner(images, size):
    return tuple(round((length - size) / 2) for length in images.shape[1:3])


def _crop(images, size, top, left):
    return images[:, top : top + size, left : left + size]


def _randomly_flip(key, image):
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)
