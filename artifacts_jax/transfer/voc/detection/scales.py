"""The scale that an image is seen at: its shorter side has a given length, unless the longer one would be too long."""

import numpy as np


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


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns the height and width of an image once it is scaled: whole pixels, one at least."""
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def draw(seed: int, position: int, count: int) -> int:
    """Returns which of so many scales a training image is seen at.

    Args:
      seed: the run's.
      position: of the image among all that are trained on, from the first step on.
      count: of the scales.
    """
    return int(np.random.default_rng((seed, position)).integers(count))
