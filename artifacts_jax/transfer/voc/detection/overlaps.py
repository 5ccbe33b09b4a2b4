"""How far boxes overlap, on the host. They are x1 y1 x2 y2, and the pixels named belong to a box."""

import numpy as np
from jaxtyping import Float, Float64


def pairs(first: Float[np.ndarray, 'N 4'], second: Float[np.ndarray, 'M 4']) -> Float64[np.ndarray, 'N M']:
    """Returns the intersection over the union of each of N boxes with each of M, in [0, 1].

    A side is x2 - x1 + 1 pixels long, as VOC's devkit has it. What is no pixel wide or high overlaps nothing.

    Args:
      first: boxes.
      second: boxes whose pixels are counted from the same number.
    """
    first, second = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(first[..., 2:], second[..., 2:]) - np.maximum(first[..., :2], second[..., :2]) + 1
    shared = np.maximum(sides, 0).prod(axis=-1)
    union = _areas(first) + _areas(second) - shared
    return shared / np.where(shared > 0, union, 1)


def _areas(boxes):
    return (boxes[..., 2:] - boxes[..., :2] + 1).prod(axis=-1)
