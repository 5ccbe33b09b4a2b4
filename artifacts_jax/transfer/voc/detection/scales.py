"""The image scales of the presets, and the sizes to which scaled images are padded.

A scale is the length of an image's shorter side. If the longer side would exceed `longest`, the image is scaled to this
length of the longer side instead.

Each padded size is compiled separately, so there are only a few. There are sizes for landscape images, for portrait
images, and for batches with both; each for images up to the aspect ratio 4:3, as most of VOC's, and for longer images.
With several scales, a scale that is close to a larger one uses the sizes of the larger one.

Source: rbgirshick/fast-rcnn, experiments/cfgs/multiscale.yml and lib/utils/blob.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

ASPECT_RATIO = 1.36  # longer by shorter side of a padded size: slightly more than 4:3
MIN_SCALE_RATIO = 1.3  # two scales have separate padded sizes if their ratio is at least this
SIZE_MULTIPLE = 16  # pixels; the longer side of a padded size is a multiple of it

Size = tuple[int, int]


class Preset(NamedTuple):
    """The scales and the schedule of a protocol."""

    scales: tuple[int, ...]  # lengths of an image's shorter side, pixels
    longest: int  # maximum length of the longer side, pixels
    steps: int = 40_000
    learning_rate: float = 1e-3
    drop_step: int = 30_000  # the learning rate drops after this number of updates


PRESETS = {
    'single_scale': Preset((600,), 1000),
    'multi_scale': Preset((480, 576, 688, 864, 1200), 2000),
}


def resolve_scales(config: ConfigDict) -> tuple[dict[str, tuple[int, ...]], int]:
    """Returns ({'train': scales, 'test': scales}, maximum length of the longer side), in pixels."""
    options, preset = config.voc_detection, PRESETS[config.voc_detection.preset]
    train = tuple(options.scales) if any(options.scales) else preset.scales
    test = tuple(options.test_scales) if any(options.test_scales) else train
    return {'train': train, 'test': test}, options.longest or preset.longest


def compute_scale(size: tuple[int, int], shorter: int, longest: int) -> float:
    """Returns the factor on an image's size and on the coordinates of its boxes.

    Args:
      size: (height, width) of the image, pixels.
      shorter: the length of the scaled shorter side, pixels.
      longest: the maximum length of the scaled longer side after rounding, pixels.
    """
    scale = shorter / min(size)
    return longest / max(size) if round(scale * max(size)) > longest else scale


def compute_scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Returns the (height, width) of a scaled image, rounded to integers, at least 1."""
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def sample_scale(seed: int, position: int, count: int) -> int:
    """Returns the index of a random scale for a training image.

    Args:
      seed: the seed of the run.
      position: the position of the image in the sequence of all training images, from the first step on.
      count: the number of scales.
    """
    return int(np.random.default_rng((seed, position)).integers(count))


def compute_padded_sizes(scales: Sequence[int], longest: int) -> tuple[Size, ...]:
    """Returns the padded sizes (height, width), in ascending order of area; every scaled image fits into the last one.

    Args:
      scales: lengths of an image's shorter side, pixels.
      longest: the maximum length of the longer side, pixels; at least the largest scale.
    """
    sizes, last = set(), None
    for shorter in sorted(scales, reverse=True):
        if last and last < MIN_SCALE_RATIO * shorter:
            continue
        middle = min(longest, -(-int(ASPECT_RATIO * shorter) // SIZE_MULTIPLE) * SIZE_MULTIPLE)
        for longer in {middle} if last else {middle, longest}:
            sizes |= {(shorter, longer), (longer, shorter), (longer, longer)}
        last = shorter
    return tuple(sorted(sizes, key=lambda size: (size[0] * size[1], size)))


def choose_padded_size(sizes: Sequence[Size], images: Sequence[Size]) -> Size:
    """Returns the first padded size into which all images fit.

    Args:
      sizes: the result of `compute_padded_sizes`.
      images: (height, width) of each scaled image; all fit into the last size.
    """
    height, width = (max(size[axis] for size in images) for axis in (0, 1))
    return next(size for size in sizes if size[0] >= height and size[1] >= width)


def describe_padded_sizes(sizes: Sequence[Size]) -> str:
    """Returns a message about the padded sizes, for the log."""
    text = ', '.join(f'{height}x{width}' for height, width in sizes)
    return f'images are padded to one of {len(sizes)} sizes ({text}); each size is compiled when it is first used'
