"""The few sizes that images are padded to, below and to the right: a program is compiled for each.

There is a canvas for images that lie, one that stand, and one for both in a batch, and that for images up to 4 : 3, as
most of VOC's are, and for longer ones. Of many scales only some have canvases of their own.
"""

from collections.abc import Sequence

LONG = 1.36  # of a canvas, longer side by shorter: 4 : 3, and a little
APART = 1.3  # ratio of the scales that have their own
STEP = 16  # pixels

Size = tuple[int, int]


def sizes(scales: Sequence[int], longest: int) -> tuple[Size, ...]:
    """Returns the canvases, (height, width) each, the smallest first; the last one holds every image.

    Args:
      scales: lengths of an image's shorter side, pixels.
      longest: what the longer one may be; none of the scales is longer.
    """
    found, last = set(), None
    for shorter in sorted(scales, reverse=True):
        if last and last < APART * shorter:
            continue
        middle = min(longest, -(-int(LONG * shorter) // STEP) * STEP)
        for longer in {middle} if last else {middle, longest}:
            found |= {(shorter, longer), (longer, shorter), (longer, longer)}
        last = shorter
    return tuple(sorted(found, key=lambda size: (size[0] * size[1], size)))


def smallest(canvases: Sequence[Size], images: Sequence[Size]) -> Size:
    """Returns the first canvas that holds all images, (height, width) each.

    Args:
      canvases: as of `sizes`.
      images: none of them larger than the last canvas.
    """
    height, width = (max(size[axis] for size in images) for axis in (0, 1))
    return next(canvas for canvas in canvases if canvas[0] >= height and canvas[1] >= width)


def described(canvases: Sequence[Size]) -> str:
    """Returns what is said of them at the start."""
    listed = ', '.join(f'{height}x{width}' for height, width in canvases)
    return f'images are padded to one of {len(canvases)} sizes, {listed}, each compiled when it first comes'
