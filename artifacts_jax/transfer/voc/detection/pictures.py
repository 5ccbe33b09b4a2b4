"""The figure of what a detector finds: photographs of a split with boxes, classes and scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from artifacts_jax.drawing import boxes as drawn
from artifacts_jax.transfer.voc.annotations import NAMES
from artifacts_jax.transfer.voc.detection.detections import Detections

FILE = 'detections.png'
COUNT = 9  # photographs
LEAST = 0.5  # score of a box that is drawn
MOST = 15  # boxes in a photograph, the best


def draw(path: Path, records: Sequence, found: dict[int, Detections], *, step: int) -> None:
    """Writes the PNG file; of images in which nothing is found it says so.

    Args:
      path: the file.
      records: of the split.
      found: {position in the split: Detections} of the images to draw; where there are none, nothing is written.
      step: of the detector.
    """
    photographs = [photograph(records[row].image(), each, NAMES) for row, each in found.items()]
    if photographs:
        title = f'Detections after {step:,} updates, scores of {LEAST} and more'
        drawn.draw(path, photographs, classes=NAMES, title=title)


def photograph(
    pixels: UInt8[np.ndarray, 'H W 3'], found: Detections, names: Sequence[str], least: float = LEAST
) -> drawn.Photograph:
    """Returns an image with the best of what is found in it, to be drawn.

    Args:
      pixels: the image.
      found: in it.
      names: of the classes.
      least: the score of a box that is drawn.
    """
    order = np.argsort(-found.scores, kind='stable')[:MOST]
    order = order[found.scores[order] >= least]
    caption = '' if len(order) else f'nothing of a score of {least:g} or more'
    labels = [names[label] for label in found.labels[order]]
    return drawn.Photograph(pixels, found.boxes[order], labels, found.scores[order].tolist(), caption)
