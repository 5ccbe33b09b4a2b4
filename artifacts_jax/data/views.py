"""Views of stored images at their own scale, for published protocols: crops, mirrored or not; no colour is changed.

Images are uint8 [B, H, W, 3] and views float32 [B, size, size, 3] in [-1, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key, UInt8

from artifacts_jax.data import augment

Images = UInt8[Array | np.ndarray, 'B H W 3']
Views = Float32[Array, 'B S S 3']

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # of torchvision's RandomResizedCrop


def random(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """A square anywhere in the image, every place as likely, mirrored half of the time."""

    def crop(key, image):
        place, flip = jax.random.split(key)
        room = jnp.array(image.shape[:2]) - size + 1
        top, left = jax.random.randint(place, (2,), 0, room)
        square = jax.lax.dynamic_slice(image, (top, left, 0), (size, size, 3))
        return _mirrored(flip, square)

    return _to_network(jax.vmap(crop)(keys, jnp.asarray(images)))


def centre_mirrored(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """The square in the middle, mirrored half of the time."""
    return _to_network(jax.vmap(_mirrored)(keys, _square(jnp.asarray(images), *_middle(images, size), size)))


def resized(keys: Key[Array, ' B'], images: Images, size: int) -> Views:
    """A box of any size and shape, stretched to a square and mirrored half of the time: torchvision's, bilinear."""

    def crop(key, image):
        box, flip = jax.random.split(key)
        height, width = image.shape[:2]
        top, left, rows, columns = augment.sample_crop(box, shape=(height, width), area=AREA, aspect=ASPECT)
        vertical = augment.resize_matrix(top, rows, length=height, size=size, cubic=False)
        across = augment.resize_matrix(left, columns, length=width, size=size, cubic=False)
        return _mirrored(flip, augment.resample(image, vertical, across))

    return jax.vmap(crop)(keys, jnp.asarray(images)) * 2 - 1


def centre(images: Images, size: int) -> Views:
    """The square in the middle."""
    return _to_network(_square(jnp.asarray(images), *_middle(images, size), size))


def ten(images: Images, size: int) -> tuple[Views, ...]:
    """The four corners and the middle, and their mirror images."""
    bottom, right = images.shape[1] - size, images.shape[2] - size
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), _middle(images, size)]
    squares = [_to_network(_square(jnp.asarray(images), *corner, size)) for corner in corners]
    return (*squares, *(square[:, :, ::-1] for square in squares))


def _middle(images, size):
    return tuple(round((length - size) / 2) for length in images.shape[1:3])


def _square(images, top, left, size):
    return images[:, top : top + size, left : left + size]


def _mirrored(key, image):
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def _to_network(images):
    return images.astype(jnp.float32) / 127.5 - 1
