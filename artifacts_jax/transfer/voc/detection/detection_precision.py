"""The average precision of detections, by the rules of VOC's devkit.

Detections of a class are taken by their scores, those of equal scores as they come. Each is judged by the object of its
class that it overlaps most, the first of several:

| the object | the detection |
|---|---|
| overlaps it by less than 0.5, or there is none | is a miss |
| is difficult | counts as neither |
| was hit before | is a miss |
| else | is a hit |

Python's ports of the devkit, but not the devkit itself, want an overlap of more than 0.5.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from artifacts_jax.transfer.voc.annotations import NAMES, Objects
from artifacts_jax.transfer.voc.detection import overlaps
from artifacts_jax.transfer.voc.detection.detections import Detections, counted_from_1

OVERLAP = 0.5
# 0:0.1:1, which MATLAB builds from both ends. As a float, 3 * 0.1 is more than 3 of 10 objects.
LEVELS = np.array([n * 0.1 if n <= 5 else 1 - (10 - n) * 0.1 for n in range(11)])


def of_classes(
    objects: Sequence[Objects], found: Sequence[Detections], *, area: bool = False, rounded: bool = True
) -> list[float | None]:
    """Returns the average precision of each of VOC's classes, in [0, 1]; average_precision.mean makes one number of it.

    None stands for a class of which there is no object that is not difficult.

    Args:
      objects: of each image.
      found: in each image, in the same order, which decides between equal scores.
      area: whether it is the area under the curve of precision over recall, as of VOC2010 and later, or the mean
        precision at eleven recalls, as of VOC2007 to 2009. In both the precision at a recall is the best at this or a
        higher one.
      rounded: whether scores and boxes are those of the devkit's files, of which published numbers are.

    Raises:
      ValueError: there are not as many images in both, or a score or box is not finite.
    """
    if len(objects) != len(found):
        raise ValueError(f'there are objects of {len(objects)} images and detections of {len(found)}, expected as many')
    rows = [counted_from_1(one, rounded=rounded) for one in found]
    return [_of_class(label, objects, found, rows, area) for label in range(len(NAMES))]


def _of_class(label, objects, found, rows, area):
    scores, best, judged, before = [], [], [], 0
    for truth, one, (image_scores, boxes) in zip(objects, found, rows):
        mine, theirs = one.labels == label, truth.labels == label
        best_of, judgement = _judge(boxes[mine], truth.boxes[theirs], truth.is_difficult[theirs])
        scores.append(image_scores[mine])
        best.append(best_of + before)
        judged.append(judgement)
        before += theirs.sum()
    positives = sum(int(((truth.labels == label) & ~truth.is_difficult).sum()) for truth in objects)
    if not positives:
        return None
    scores, best, judged = map(np.concatenate, (scores, best, judged))
    order = np.argsort(-scores, kind='stable')
    best, judged = best[order], judged[order]
    hit = np.zeros(len(order), bool)
    candidates = np.flatnonzero(judged == 1)
    hit[candidates[np.unique(best[candidates], return_index=True)[1]]] = True  # the first of each object's
    return curve_precision(hit[judged >= 0], positives, area=area)


def _judge(boxes, truth, is_difficult):
    """Returns (the object that each box overlaps most, 1: a hit if it is the first, 0: a miss, -1: neither)."""
    if not len(truth):
        return np.zeros(len(boxes), int), np.zeros(len(boxes), int)
    overlap = overlaps.pairs(boxes, truth)
    best = overlap.argmax(axis=1)
    return best, np.where(overlap.max(axis=1) < OVERLAP, 0, np.where(is_difficult[best], -1, 1))


def curve_precision(hit: Bool[np.ndarray, ' N'], positives: int, *, area: bool = False) -> float:
    """Returns the average precision of detections, in [0, 1].

    Args:
      hit: whether each detection is one, the best first.
      positives: how many objects there are to be hit.
      area: as in of_classes.
    """
    recall = np.cumsum(hit) / positives
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if area:
        return float(np.diff(recall, prepend=0.0) @ best)
    reached = np.searchsorted(recall, LEVELS)  # the first that has so much recall; where none has, precision is 0
    return float(np.append(best, 0.0)[reached].sum() / len(LEVELS))
