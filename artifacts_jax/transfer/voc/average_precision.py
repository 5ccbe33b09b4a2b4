"""The average precision of the scores of classes, of the images for which it is known whether a class is there."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

TIE = 1e-5  # by which the score of a positive is lowered, which has to be above negatives by as much


def compute(
    scores: Float[np.ndarray, ' N'], labels: Int[np.ndarray, ' N'], *, tie: float = TIE, interpolated: bool = False
) -> float | None:
    """Returns the average precision of one class, in [0, 1], None where no image has it.

    Args:
      scores: any finite numbers, higher where the class is likelier.
      labels: 1 it is there, -1 it is not, 0 not known, which is left out.
      tie: see TIE. Equal scores count at once, whatever it is. Source: philkr/voc-classification.
      interpolated: whether the precision at a recall is the best at this or a higher one, as VOC's from 2010 on.

    Raises:
      ValueError: a score is not finite.
    """
    from sklearn import metrics  # takes seconds

    known = labels != 0
    there = labels[known] == 1
    if not there.any():
        return None
    lowered = scores[known].astype(np.float64) - tie * there
    if not interpolated:
        return float(metrics.average_precision_score(there, lowered))
    precision, recall, _ = metrics.precision_recall_curve(there, lowered)
    return float(-np.diff(recall) @ np.maximum.accumulate(precision)[:-1])  # the recall falls


def compute_per_class(
    scores: Float[np.ndarray, 'N K'], labels: Int[np.ndarray, 'N K'], *, tie: float = TIE, interpolated: bool = False
) -> list[float | None]:
    """Returns what of_class does of each class."""
    return [compute(*columns, tie=tie, interpolated=interpolated) for columns in zip(scores.T, labels.T)]


def mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean over the classes that have one, None where none has."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
