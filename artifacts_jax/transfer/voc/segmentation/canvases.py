"""The few sizes that images are padded to, below and to the right: a program is compiled for each that comes.

Neither what is learned nor what is predicted of an image depends on its canvas: see models/fcn.py.
"""

from collections.abc import Sequence

STEP = 125  # pixels: most of VOC's images have sides of 375 and 500


def smallest(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns the height and width, in steps, of the canvas for images of these heights and widths."""
    height, width = (-(-max(size[axis] for size in sizes) // STEP) * STEP for axis in (0, 1))
    return height, width
