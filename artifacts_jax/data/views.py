"""Views of stored images at their own scale, for published protocols: crops, mirrored or not; no colour is changed.

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

AREA, RATIO, TRIES = (0.08, 1.0), (3 / 4, 4 / 3), 10  # of torchvision's RandomResizedCrop


def random_crop(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """A square anywhere in the image, every place as likely, mirrored half of the time."""

    def crop(key, image):
        place, flip = jax.random.split(key)
        room = jnp.array(image.shape[:2]) - size + 1
        top, left = jax.random.randint(place, (2,), 0, room)
        square = jax.lax.dynamic_slice(image, (top, left, 0), (size, size, 3))
        return _mirrored(flip, square)

    return scale_pixels(jax.vmap(crop)(keys, jnp.asarray(images)))


def centre_crop_flipped(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """The square in the middle, mirrored half of the time."""
    return scale_pixels(jax.vmap(_mirrored)(keys, _square(jnp.asarray(images), size, *_middle(images, size))))


def random_resized_crop(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """A box of any size and shape (`sample_box`), stretched to a square, bilinearly, and mirrored half of the time."""

    def crop(key, image):
        place, flip = jax.random.split(key)
        height, width = image.shape[:2]
        top, left, rows, columns = sample_box(place, (height, width))
        vertical = augment.resize_matrix(top, rows, length=height, size=size, cubic=False)
        across = augment.resize_matrix(left, columns, length=width, size=size, cubic=False)
        return _mirrored(flip, augment.resample(image, vertical, across))

    return jax.vmap(crop)(keys, jnp.asarray(images)) * 2 - 1


def sample_box(key: Key[Array, ''], shape: tuple[int, int]) -> tuple[Float32[Array, ''], ...]:
    """Draws a box of whole pixels inside an image as torchvision's RandomResizedCrop does: (top, left, height, width).

    Its area, as a part of the image's, is uniform in AREA, and the logarithm of its width by its height in RATIO's. One
    that does not fit is drawn anew; after TRIES the box is the whole image.

    Args:
      key: draws the box.
      shape: the image's (height, width).
    """
    draws, place = jax.random.split(key)
    area, ratio = jax.random.uniform(draws, (2, TRIES))
    area = (AREA[0] + (AREA[1] - AREA[0]) * area) * shape[0] * shape[1]
    ratio = jnp.exp(jnp.log(RATIO[0]) + (jnp.log(RATIO[1]) - jnp.log(RATIO[0])) * ratio)
    heights, widths = jnp.round(jnp.sqrt(area / ratio)), jnp.round(jnp.sqrt(area * ratio))
    fits = (heights >= 1) & (widths >= 1) & (heights <= shape[0]) & (widths <= shape[1])
    first = fits.argmax()
    height, width = (jnp.where(fits[first], x[first], whole) for x, whole in zip((heights, widths), shape))
    top, left = jax.random.uniform(place, (2,))
    return jnp.floor(top * (shape[0] - height + 1)), jnp.floor(left * (shape[1] - width + 1)), height, width


def centre_crop(images: Images, size: int) -> Views:
    """The square in the middle."""
    return scale_pixels(_square(jnp.asarray(images), size, *_middle(images, size)))


def ten_crops(images: Images, size: int) -> tuple[Views, ...]:
    """The four corners and the middle, and their mirror images."""
    bottom, right = images.shape[1] - size, images.shape[2] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), _middle(images, size)]
    squares = [scale_pixels(_square(jnp.asarray(images), size, *corner)) for corner in corners]
    return (*squares, *(square[:, :, ::-1] for square in squares))


def _middle(images, size):
    return tuple(round((length - size) / 2) for length in images.shape[1:3])


def _square(images, size, top, left):
    return images[:, top : top + size, left : left + size]


def _mirrored(key, image):
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)
