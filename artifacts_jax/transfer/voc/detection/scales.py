"""The scale that an image is seen at: its shorter side has a given length, unless the longer one would be too long."""

import jax
from jaxtyping import Array, Int32, Key, UInt32


def scale_of(size: tuple[int, int], shorter: int, longest: int) -> float:
    """Returns what an image's sides, and its boxes' coordinates, are multiplied by.

    Source: rbgirshick/fast-rcnn, lib/utils/blob.py.

    Args:
      size: the image's height and width, pixels.
      shorter: what the shorter side shall be.
      longest: what the longer one may be, after rounding.
    """
    scale = shorter / min(size)
    return longest / max(size) if round(scale * max(size)) > longest else scale


def draw(keys: Key[Array, ' B'] | UInt32[Array, 'B 2'], count: int) -> Int32[Array, ' B']:
    """Returns for each image, as a function of its own key, which of so many scales it is trained at."""
    return jax.vmap(lambda key: jax.random.randint(key, (), 0, count))(keys)
