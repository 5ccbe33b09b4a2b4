"""Detections: the result files of VOC's devkit, average precision, and the figure of detections.

A line of comp3_det_SPLIT_CLASS.txt is a detection: the image's name, the score with three decimals, and x1 y1 x2 y2
with one decimal, 1-based. Published results are computed from these rounded numbers. Rounding creates ties, and in a
tie the detection that comes first ranks higher.

Average precision follows the devkit's rules. The detections of a class are ranked by score; ties keep their order. Each
detection is matched with the object of its class that it overlaps most, the first one in ties:

| the matched object | the detection is |
|---|---|
| has an IoU below 0.5, or there is no object | a false positive |
| is difficult | ignored |
| was already matched by a better detection | a false positive |
| any other | a true positive |

Python ports of the devkit require an IoU above 0.5; the devkit itself requires 0.5 or more.
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

# comp3: detectors that are trained on VOC's trainval, or on other data without VOC's test images.
FILE_NAME = 'comp3_det_{split}_{name}.txt'
SCORE_DECIMALS, BOX_DECIMALS = 3, 1
MIN_IOU = 0.5  # of a detection with its object
# MATLAB computes 0:0.1:1 from both ends, and so does this line: the float 3 * 0.1 is greater than a recall of 3/10.
RECALL_LEVELS = np.array([n * 0.1 if n <= 5 else 1 - (10 - n) * 0.1 for n in range(11)])
FIGURE = 'detections.png'
NUM_PHOTOGRAPHS = 9  # in the figure
MIN_SCORE = 0.5  # boxes with lower scores are not drawn
MAX_BOXES = 15  # per photograph: the boxes with the highest scores
LINE_FORMAT = '{} {:.3f} {:.1f} {:.1f} {:.1f} {:.1f}\n'


class Detections(NamedTuple):
    """The detections in an image."""

    labels: Int[np.ndarray, ' N']  # positions in NAMES
    scores: Float[np.ndarray, ' N']  # confidences
    boxes: Float[np.ndarray, 'N 4']  # x1 y1 x2 y2, 0-based; both corner pixels belong to the box


def to_devkit_format(
    detections: Detections, *, rounded: bool = True
) -> tuple[Float64[np.ndarray, ' N'], Float64[np.ndarray, 'N 4']]:
    """Returns the (scores, 1-based boxes) of an image, as in the devkit's files.

    Args:
      detections: of the image, in float32, for which the rounded numbers equal those that printf writes.
      rounded: whether to round to the decimals of the devkit's files.

    Raises:
      ValueError: a score or a box is not finite.
    """
    scores, boxes = detections.scores.astype(np.float64), detections.boxes.astype(np.float64) + 1
    if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
        raise ValueError('the scores or boxes of detections contain nan or inf; expected finite numbers')
    if rounded:
        scores, boxes = _round(scores, SCORE_DECIMALS), _round(boxes, BOX_DECIMALS)
    return scores, boxes


def write_devkit_files(folder: Path, split: str, names: Sequence[str], detections: Sequence[Detections]) -> list[Path]:
    """Writes the devkit's result files and returns their paths: one per class, also without detections.

    Args:
      folder: the folder of the files, such as VOCdevkit/results/VOC2007/Main.
      split: the split of the images, such as 'test'.
      names: the image names, as in the list of the split.
      detections: one per image, in the order of `names`.

    Raises:
      ValueError: the numbers of names and of detections differ, or a number is not finite.
    """
    if len(names) != len(detections):
        raise ValueError(f'{len(names)} names and detections of {len(detections)} images; expected equal numbers')
    lines = [[] for _ in NAMES]
    for name, of_image in zip(names, detections):
        scores, boxes = to_devkit_format(of_image)
        for label, score, corners in zip(of_image.labels.tolist(), scores.tolist(), boxes.tolist()):
            lines[label].append(LINE_FORMAT.format(name, score, *corners))
    paths = [Path(folder) / FILE_NAME.format(split=split, name=class_name) for class_name in NAMES]
    for path, class_lines in zip(paths, lines):
        write_atomically(path, ''.join(class_lines))
    return paths


def compute_average_precisions(
    objects: Sequence[Objects],
    detections: Sequence[Detections],
    *,
    area_under_curve: bool = False,
    rounded: bool = True,
) -> list[float | None]:
    """Returns the average precision of each of VOC's classes, in [0, 1]; average_precision.mean computes their mean.

    It is None for a class whose objects are all difficult, or that has no object.

    Args:
      objects: the ground truth, one per image.
      detections: one per image, in the same order, which decides ties of scores.
      area_under_curve: True computes the area under the precision-recall curve, as since VOC2010; False computes the
        mean precision at 11 recall levels, as in VOC2007 to VOC2009. In both, the precision at a recall is the maximum
        over this and all higher recalls.
      rounded: whether to round scores and boxes as in the devkit's files, from which published numbers are computed.

    Raises:
      ValueError: the numbers of images differ, or a score or box is not finite.
    """
    if len(objects) != len(detections):
        raise ValueError(
            f'objects of {len(objects)} images and detections of {len(detections)}; expected equal numbers'
        )
    converted = [to_devkit_format(of_image, rounded=rounded) for of_image in detections]
    return [
        _compute_class_precision(label, objects, detections, converted, area_under_curve) for label in range(len(NAMES))
    ]


def _compute_class_precision(label, objects, detections, converted, area_under_curve):
    """Returns the average precision of a class, None without objects to find."""
    scores, matched, outcomes, num_objects = [], [], [], 0
    for truth, of_image, (image_scores, boxes) in zip(objects, detections, converted):
        is_detected, is_object = of_image.labels == label, truth.labels == label
        matches, outcome = _match(boxes[is_detected], truth.boxes[is_object], truth.is_difficult[is_object])
        scores.append(image_scores[is_detected])
        matched.append(matches + num_objects)
        outcomes.append(outcome)
        num_objects += is_object.sum()
    num_positives = sum(int(((truth.labels == label) & ~truth.is_difficult).sum()) for truth in objects)
    if not num_positives:
        return None
    scores, matched, outcomes = map(np.concatenate, (scores, matched, outcomes))
    order = np.argsort(-scores, kind='stable')
    matched, outcomes = matched[order], outcomes[order]
    is_true_positive = np.zeros(len(order), bool)
    candidates = np.flatnonzero(outcomes == 1)
    # Only the first detection of each object is a true positive.
    is_true_positive[candidates[np.unique(matched[candidates], return_index=True)[1]]] = True
    return compute_average_precision(is_true_positive[outcomes >= 0], num_positives, area_under_curve=area_under_curve)


def _match(boxes, truth, is_difficult):
    """Returns (the object that each box overlaps most, its outcome).

    The outcome is 1 for a true positive if the box is the first match of its object, 0 for a false positive, and -1 for
    a box to ignore.
    """
    if not len(truth):
        return np.zeros(len(boxes), int), np.zeros(len(boxes), int)
    iou = geometry.iou(boxes, truth)
    matches = iou.argmax(axis=1)
    return matches, np.where(iou.max(axis=1) < MIN_IOU, 0, np.where(is_difficult[matches], -1, 1))


def compute_average_precision(
    is_true_positive: Bool[np.ndarray, ' N'], num_positives: int, *, area_under_curve: bool = False
) -> float:
    """Returns the average precision of detections, in [0, 1].

    Args:
      is_true_positive: of each detection, by descending score.
      num_positives: the number of objects to find.
      area_under_curve: as in compute_average_precisions.
    """
    recall = np.cumsum(is_true_positive) / num_positives
    precision = np.cumsum(is_true_positive) / np.arange(1, len(is_true_positive) + 1)
    max_precision = np.maximum.accumulate(precision[::-1])[::-1]
    if area_under_curve:
        return float(np.diff(recall, prepend=0.0) @ max_precision)
    # The first detection that reaches each recall level; if none does, the precision is 0.
    first = np.searchsorted(recall, RECALL_LEVELS)
    return float(np.append(max_precision, 0.0)[first].sum() / len(RECALL_LEVELS))


def plot_detections(path: Path, records: Sequence, detections: dict[int, Detections], *, step: int) -> None:
    """Writes a figure of images with their detections; writes nothing without images.

    Args:
      path: the PNG file.
      records: the records of the split.
      detections: {position in the split: Detections} of the images to plot.
      step: the step of the detector.
    """
    panels = [make_photograph(records[row].read_image(), of_image, NAMES) for row, of_image in detections.items()]
    if panels:
        title = f'Detections after {step:,} updates, scores of {MIN_SCORE} and more'
        photographs.draw(path, panels, classes=NAMES, title=title)


def make_photograph(
    pixels: UInt8[np.ndarray, 'H W 3'], detections: Detections, names: Sequence[str], min_score: float = MIN_SCORE
) -> photographs.Photograph:
    """Returns an image with its best detections, for drawing.

    Args:
      pixels: the image.
      detections: of the image.
      names: the class names.
      min_score: the lowest score of a box that is drawn.
    """
    order = np.argsort(-detections.scores, kind='stable')[:MAX_BOXES]
    order = order[detections.scores[order] >= min_score]
    caption = '' if len(order) else f'no detection with a score of {min_score:g} or more'
    labels = [names[label] for label in detections.labels[order]]
    return photographs.Photograph(pixels, detections.boxes[order], labels, detections.scores[order].tolist(), caption)


def _round(values, decimals):
    """Returns rounded values; they equal printf's for float32 values, whose product with 10**decimals is exact."""
    return np.rint(values * 10**decimals) / 10**decimals
