"""How large images are seen: the scales of the presets, and the few sizes that scaled images are padded to.

At a scale an image's shorter side has a given length, unless the longer one would be too long. A program is compiled
for each padded size. There is one for images that lie, one for those that stand, and one for both in a batch, and that
for images up to 4 : 3, as most of VOC's are, and for longer ones. Of many scales only some have sizes of their own.

Source: rbgirshick/fast-rcnn, experiments/cfgs/multiscale.yml and lib/utils/blob.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

ASPECT_RATIO = 1.36  # of a padded size, longer side by shorter: 4 : 3, and a little
MIN_SCALE_RATIO = 1.3  # ratio of the scales that have their own
SIZE_MULTIPLE = 16  # pixels

Size = tuple[int, int]


class Preset(NamedTuple):
    """The scales, and the schedule."""

    scales: tuple[int, ...]  # lengths of an image's shorter side, pixels
    longest: int  # what the longer side may be
    steps: int = 40_000
    rate: float = 1e-3
    dropped: int = 30_000  # updates at the first rate


PRESETS = {
    'single_scale': Preset((600,), 1000),
    'multi_scale': Preset((480, 576, 688, 864, 1200), 2000),
}


def resolve_scales(config: ConfigDict) -> tuple[dict[str, tuple[int, ...]], int]:
    """Returns ({'train', 'test'}: lengths of images' shorter side, the most that their longer one may be)."""
    options, preset = config.voc_detection, PRESETS[config.voc_detection.preset]
    train = tuple(options.scales) if any(options.scales) else preset.scales
    test = tuple(options.test_scales) if any(options.test_scales) else train
    return {'train': train, 'test': test}, options.longest or preset.longest


def compute_scale(size: tuple[int, int], shorter: int, longest: int) -> float:
    """Returns what an image's sides, and its boxes' coordinates, are multiplied by.

    Args:
      size: the image's height and width, pixels.
      shorter: what the shorter side shall be.
      longest: what the longer one may be, after rounding.
    """
    scale = shorter / min(size)
    return longest / max(size) if round(scale * max(size)) > longest else scale


def compute_scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns the height and width of an image once it is scaled: whole pixels, one at least."""
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def sample_scale(seed: int, position: int, count: int) -> int:
    """Returns which of so many scales a training image is seen at.

    Args:
      seed: the run's.
      position: of the image among all that are trained on, from the first step on.
      count: of the scales.
    """
    return int(np.random.default_rng((seed, position)).integers(count))


def compute_padded_sizes(scales: Sequence[int], longest: int) -> tuple[Size, ...]:
    """Returns the padded sizes, (height, width) each, the smallest first; the last one holds every image.

    Args:
      scales: lengths of an image's shorter side, pixels.
      longest: what the longer one may be; none of the scales is longer.
    """
    found, last = set(), None
    for shorter in sorted(scales, reverse=True):
        if last and last < MIN_SCALE_RATIO * shorter:
            continue
        middle = min(longest, -(-int(ASPECT_RATIO * shorter) // SIZE_MULTIPLE) * SIZE_MULTIPLE)
        for longer in {middle} if last else {middle, longest}:
            found |= {(shorter, longer), (longer, shorter), (longer, longer)}
        last = shorter
    return tuple(sorted(found, key=lambda size: (size[0] * size[1], size)))


def choose_padded_size(sizes: Sequence[Size], images: Sequence[Size]) -> Size:
    """Returns the first size that holds all images, (height, width) each.

    Args:
      sizes: as of `padded_sizes`.
      images: none of them larger than the last size.
    """
    height, width = (max(size[axis] for size in images) for axis in (0, 1))
    return next(size for size in sizes if size[0] >= height and size[1] >= width)


def describe_padded_sizes(sizes: Sequence[Size]) -> str:
    """Returns what is said of them at the start."""
    listed = ', '.join(f'{height}x{width}' for height, width in sizes)
    return f'images are padded to one of {len(sizes)} sizes, {listed}, each compiled when it first comes'
