"""How often one class was taken for another, counted over the pixels of a set, and what is said of it.

A matrix has a row for each true class and a column for each predicted one. Those of several images add up: a measure
is of all their pixels together, and no mean over images. Source: shelhamer/fcn.berkeleyvision.org, score.py.
"""

import numpy as np
from jaxtyping import Float64, Int64, Integer


def compute_matrix(
    truth: Integer[np.ndarray, '*N'], predicted: Integer[np.ndarray, '*N'], classes: int
) -> Int64[np.ndarray, '{classes} {classes}']:
    """Returns the counts of pixels.

    Args:
      truth: the class of each pixel; those of none, such as 255, are left out.
      predicted: in [0, classes).
      classes: how many.

    Raises:
      ValueError: something else was predicted where there is a true class.
    """
    known = truth < classes
    truth, predicted = truth[known].astype(np.int64), predicted[known].astype(np.int64)
    if predicted.size and not (predicted.min() >= 0 and predicted.max() < classes):
        raise ValueError(f'predicted is {predicted.max()}, expected 0 to {classes - 1}')
    return np.bincount(classes * truth + predicted, minlength=classes**2).reshape(classes, classes)


def iou(counts: Int64[np.ndarray, 'K K']) -> Float64[np.ndarray, ' K']:
    """Returns the intersection over the union of each class, in [0, 1], nan of one neither there nor predicted."""
    right = np.diag(counts)
    return _ratio(right, counts.sum(0) + counts.sum(1) - right)


def mean_iou(counts: Int64[np.ndarray, 'K K']) -> float:
    """Returns the mean over the classes that have one, nan where none has."""
    return _mean(iou(counts))


def pixel_accuracy(counts: Int64[np.ndarray, 'K K']) -> float:
    """Returns the part of the pixels that were taken for what they are, nan where there is none."""
    return float(_ratio(np.trace(counts), counts.sum()))


def mean_accuracy(counts: Int64[np.ndarray, 'K K']) -> float:
    """Returns the mean of that part over the classes that are there, nan where none is."""
    return _mean(_ratio(np.diag(counts), counts.sum(1)))


def _ratio(part, whole):
    whole = np.asarray(whole, np.float64)
    return np.where(whole > 0, part / np.where(whole > 0, whole, 1.0), np.nan)


def _mean(values):
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')
