"""The figure of what a detector finds: photographs of a split with boxes, classes and scores."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

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
    photographs = []
    for row, each in found.items():
        order = np.argsort(-each.scores, kind='stable')[:MOST]
        order = order[each.scores[order] >= LEAST]
        names = [NAMES[label] for label in each.labels[order]]
        caption = '' if len(order) else f'nothing of a score of {LEAST} or more'
        scores = each.scores[order].tolist()
        photographs.append(drawn.Photograph(records[row].image(), each.boxes[order], names, scores, caption))
    if photographs:
        title = f'Detections after {step:,} updates, scores of {LEAST} and more'
        drawn.draw(path, photographs, classes=NAMES, title=title)
