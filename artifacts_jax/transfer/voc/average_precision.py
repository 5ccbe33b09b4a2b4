"""The average precision (AP) of class scores. Images with an unknown label for a class are ignored."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

TIE = 1e-5  # subtracted from the scores of positives, so a positive must exceed a negative by more than this


def compute(
    scores: Float[np.ndarray, ' N'], labels: Int[np.ndarray, ' N'], *, tie: float = TIE, interpolated: bool = False
) -> float | None:
    """Returns the average precision of one class, in [0, 1]; None if no image has the class.

    Args:
      scores: finite scores of the images; higher means that the class is more likely.
      labels: 1 if an image has the class, -1 if not, 0 if unknown; images with 0 are ignored.
      tie: see TIE. Images with equal scores share one threshold, for any value of `tie`. Source:
        philkr/voc-classification.
      interpolated: whether the precision at a recall is the maximum at this or a higher recall, as in VOC since 2010.

    Raises:
      ValueError: a score is not finite.
    """
    from sklearn import metrics  # imported here because it takes seconds

    known = labels != 0
    is_positive = labels[known] == 1
    if not is_positive.any():
        return None
    lowered = scores[known].astype(np.float64) - tie * is_positive
    if not interpolated:
        return float(metrics.average_precision_score(is_positive, lowered))
    precision, recall, _ = metrics.precision_recall_curve(is_positive, lowered)
    return float(-np.diff(recall) @ np.maximum.accumulate(precision)[:-1])  # scikit-learn's recall is decreasing


def compute_per_class(
    scores: Float[np.ndarray, 'N K'], labels: Int[np.ndarray, 'N K'], *, tie: float = TIE, interpolated: bool = False
) -> list[float | None]:
    """Returns the average precision of each class, as `compute` does for one class."""
    return [compute(*columns, tie=tie, interpolated=interpolated) for columns in zip(scores.T, labels.T)]


def mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean over the classes that have a value; None if no class has one."""
    present = [value for value in values if value is not None]
    return sum(present) / len(present) if present else None
