"""What is found in an image, and the files by which VOC's devkit takes it.

In comp3_det_SPLIT_CLASS.txt each line is a detection: the image's name, the score to three decimals, and x1 y1 x2 y2 to
one, counted from 1. The tables that were published are of such numbers: rounding makes scores equal, and what comes
first then counts as better.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int

from artifacts_jax.files import write_atomically
from artifacts_jax.transfer.voc.annotations import NAMES

FILE = 'comp3_det_{split}_{name}.txt'  # comp3: learned from VOC's own trainval, or from other data than its test
SCORE_DECIMALS, BOX_DECIMALS = 3, 1
LINE = '{} {:.3f} {:.1f} {:.1f} {:.1f} {:.1f}\n'


class Detections(NamedTuple):
    """What is found in an image."""

    labels: Int[np.ndarray, ' N']  # positions in NAMES
    scores: Float[np.ndarray, ' N']  # higher where it is likelier
    boxes: Float[np.ndarray, 'N 4']  # x1 y1 x2 y2; pixels are counted from 0, and those named belong to the box


def counted_from_1(
    found: Detections, *, rounded: bool = True
) -> tuple[Float64[np.ndarray, ' N'], Float64[np.ndarray, 'N 4']]:
    """Returns the scores and boxes of an image as VOC has them: counted from 1.

    Args:
      found: what is found, in float32: then its rounded numbers are those that printf writes.
      rounded: whether they are the decimals of the devkit's files, or all that there are.

    Raises:
      ValueError: a score or a box is not finite.
    """
    scores, boxes = found.scores.astype(np.float64), found.boxes.astype(np.float64) + 1
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise ValueError('the scores or boxes of detections hold nan or inf, expected finite numbers')
    if rounded:
        scores, boxes = _rounded(scores, SCORE_DECIMALS), _rounded(boxes, BOX_DECIMALS)
    return scores, boxes


def write(folder: Path, split: str, names: Sequence[str], found: Sequence[Detections]) -> list[Path]:
    """Writes the devkit's files of detections, one for each class, empty where nothing is found; returns their paths.

    Args:
      folder: gets the files, such as VOCdevkit/results/VOC2007/Main.
      split: which the images are of, such as 'test'.
      names: of the images, as the list of the split has them.
      found: in each of these.

    Raises:
      ValueError: there are not as many names as images, or a number is not finite.
    """
    if len(names) != len(found):
        raise ValueError(f'there are {len(names)} names and detections of {len(found)} images, expected as many')
    lines = [[] for _ in NAMES]
    for image, one in zip(names, found):
        scores, boxes = counted_from_1(one)
        for label, score, corners in zip(one.labels.tolist(), scores.tolist(), boxes.tolist()):
            lines[label].append(LINE.format(image, score, *corners))
    paths = [Path(folder) / FILE.format(split=split, name=name) for name in NAMES]
    for path, each in zip(paths, lines):
        write_atomically(path, ''.join(each))
    return paths


def _rounded(values, decimals):
    """Returns values rounded as printf does, of the numbers of which it is exact: float32 times a power of ten."""
    return np.rint(values * 10**decimals) / 10**decimals
