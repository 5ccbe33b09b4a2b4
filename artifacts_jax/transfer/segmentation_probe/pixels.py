"""From a grid of features to pixels, bilinearly, as where a grid's cells divide an image's area evenly.

A linear classifier of what lies between cells is the same as one of the cells whose scores are stretched to the image's
size: so it is learned from some pixels of each image, and judges all of them.
"""

import numpy as np
from jaxtyping import Float32, Int, UInt8

from artifacts_jax.transfer.voc.records import VOID


def draw(
    mask: UInt8[np.ndarray, 'H W'], count: int, random: np.random.Generator
) -> tuple[Int[np.ndarray, 'N 2'], Int[np.ndarray, ' N']]:
    """Returns (rows and columns of pixels, their classes): so many that have a class, or all if there are fewer."""
    known = np.flatnonzero(mask != VOID)
    chosen = random.choice(known, min(count, len(known)), replace=False)
    return np.stack(np.unravel_index(chosen, mask.shape), axis=1), mask.reshape(-1)[chosen].astype(np.int64)


def sample(
    grid: Float32[np.ndarray, 'h w C'], places: Int[np.ndarray, 'N 2'], size: tuple[int, int]
) -> Float32[np.ndarray, 'N C']:
    """Returns the features of pixels.

    Args:
      grid: of the image.
      places: rows and columns of the pixels.
      size: the image's height and width.
    """
    (top, bottom, below), (left, right, beside) = (
        _between(places[:, axis], size[axis], grid.shape[axis]) for axis in (0, 1)
    )
    below, beside = below[:, None], beside[:, None]
    upper = grid[top, left] * (1 - beside) + grid[top, right] * beside
    lower = grid[bottom, left] * (1 - beside) + grid[bottom, right] * beside
    return upper * (1 - below) + lower * below


def stretched(grid: Float32[np.ndarray, 'h w K'], size: tuple[int, int]) -> Float32[np.ndarray, 'H W K']:
    """Returns what `sample` does of all pixels of an image of this height and width."""
    rows, columns = (_weights(size[axis], grid.shape[axis]) for axis in (0, 1))
    height, width, classes = grid.shape
    tall = (rows @ grid.reshape(height, -1)).reshape(size[0], width, classes)
    return np.matmul(columns[None], tall)


def _between(places, length, cells):
    """Returns (the cells on both sides of pixels, how near they are to the second one, in [0, 1])."""
    position = np.clip((places + 0.5) * cells / length - 0.5, 0, cells - 1)
    first = np.minimum(position.astype(int), max(cells - 2, 0))
    return first, np.minimum(first + 1, cells - 1), (position - first).astype(np.float32)


def _weights(length, cells):
    """Returns what each cell adds to each pixel, [length, cells]."""
    first, second, near = _between(np.arange(length), length, cells)
    weights, rows = np.zeros((length, cells), np.float32), np.arange(length)
    weights[rows, first] += 1 - near
    weights[rows, second] += near
    return weights
