"""What is detected in images: the files by which VOC's devkit takes it, its average precision, and its figure.

In comp3_det_SPLIT_CLASS.txt each line is a detection: the image's name, the score to three decimals, and x1 y1 x2 y2 to
one, counted from 1. The tables that were published are of such numbers: rounding makes scores equal, and what comes
first then counts as better.

The average precision is by the devkit's rules. Detections of a class are taken by their scores, those of equal scores
as they come. Each is judged by the object of its class that it overlaps most, the first of several:

| the object | the detection |
|---|---|
| overlaps it by less than 0.5, or there is none | is a miss |
| is difficult | counts as neither |
| was hit before | is a miss |
| else | is a hit |

Python's ports of the devkit, but not the devkit itself, want an overlap of more than 0.5.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, UInt8

from artifacts_jax.data.voc.annotations import NAMES, Objects
from artifacts_jax.drawing import boxes as photographs
from artifacts_jax.files import write_atomically
from artifacts_jax.models import boxes as geometry

FILE_NAME = 'comp3_det_{split}_{name}.txt'  # comp3: learned from VOC's own trainval, or from other data than its test
SCORE_DECIMALS, BOX_DECIMALS = 3, 1
MIN_IOU = 0.5
# 0:0.1:1, which MATLAB builds from both ends. As a float, 3 * 0.1 is more than 3 of 10 objects.
RECALL_LEVELS = np.array([n * 0.1 if n <= 5 else 1 - (10 - n) * 0.1 for n in range(11)])
FIGURE = 'detections.png'
NUM_PHOTOGRAPHS = 9  # in it
MIN_SCORE = 0.5  # score of a box that is drawn
MAX_BOXES = 15  # boxes in a photograph, the best
LINE_FORMAT = '{} {:.3f} {:.1f} {:.1f} {:.1f} {:.1f}\n'


class Detections(NamedTuple):
    """What is found in an image."""

    labels: Int[np.ndarray, ' N']  # positions in NAMES
    scores: Float[np.ndarray, ' N']  # higher where it is likelier
    boxes: Float[np.ndarray, 'N 4']  # x1 y1 x2 y2; pixels are counted from 0, and those named belong to the box


def to_devkit_format(
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


def write_devkit_files(folder: Path, split: str, names: Sequence[str], found: Sequence[Detections]) -> list[Path]:
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
        scores, boxes = to_devkit_format(one)
        for label, score, corners in zip(one.labels.tolist(), scores.tolist(), boxes.tolist()):
            lines[label].append(LINE_FORMAT.format(image, score, *corners))
    paths = [Path(folder) / FILE_NAME.format(split=split, name=name) for name in NAMES]
    for path, each in zip(paths, lines):
        write_atomically(path, ''.join(each))
    return paths


def compute_average_precisions(
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
    rows = [to_devkit_format(one, rounded=rounded) for one in found]
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
    return compute_average_precision(hit[judged >= 0], positives, area=area)


def _judge(boxes, truth, is_difficult):
    """Returns (the object that each box overlaps most, 1: a hit if it is the first, 0: a miss, -1: neither)."""
    if not len(truth):
        return np.zeros(len(boxes), int), np.zeros(len(boxes), int)
    overlap = geometry.iou(boxes, truth)
    best = overlap.argmax(axis=1)
    return best, np.where(overlap.max(axis=1) < MIN_IOU, 0, np.where(is_difficult[best], -1, 1))


def compute_average_precision(hit: Bool[np.ndarray, ' N'], positives: int, *, area: bool = False) -> float:
    """Returns the average precision of detections, in [0, 1].

    Args:
      hit: whether each detection is one, the best first.
      positives: how many objects there are to be hit.
      area: as in compute_average_precisions.
    """
    recall = np.cumsum(hit) / positives
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    if area:
        return float(np.diff(recall, prepend=0.0) @ best)
    reached = np.searchsorted(recall, RECALL_LEVELS)  # the first that has this recall; without one, precision is 0
    return float(np.append(best, 0.0)[reached].sum() / len(RECALL_LEVELS))


def plot_detections(path: Path, records: Sequence, found: dict[int, Detections], *, step: int) -> None:
    """Writes the PNG file; of images in which nothing is found it says so.

    Args:
      path: the file.
      records: of the split.
      found: {position in the split: Detections} of the images to draw; where there are none, nothing is written.
      step: of the detector.
    """
    shown = [make_photograph(records[row].read_image(), each, NAMES) for row, each in found.items()]
    if shown:
        title = f'Detections after {step:,} updates, scores of {MIN_SCORE} and more'
        photographs.draw(path, shown, classes=NAMES, title=title)


def make_photograph(
    pixels: UInt8[np.ndarray, 'H W 3'], found: Detections, names: Sequence[str], least: float = MIN_SCORE
) -> photographs.Photograph:
    """Returns an image with the best of what is found in it, to be drawn.

    Args:
      pixels: the image.
      found: in it.
      names: of the classes.
      least: the score of a box that is drawn.
    """
    order = np.argsort(-found.scores, kind='stable')[:MAX_BOXES]
    order = order[found.scores[order] >= least]
    caption = '' if len(order) else f'nothing of a score of {least:g} or more'
    labels = [names[label] for label in found.labels[order]]
    return photographs.Photograph(pixels, found.boxes[order], labels, found.scores[order].tolist(), caption)


def _rounded(values, decimals):
    """Returns values rounded as printf does, of the numbers of which it is exact: float32 times a power of ten."""
    return np.rint(values * 10**decimals) / 10**decimals
