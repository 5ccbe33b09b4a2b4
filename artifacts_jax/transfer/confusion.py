"""Confusion matrices of pixels, and the metrics of semantic segmentation.

A matrix has a row for each true class and a column for each predicted class. The matrices of several images are added.
A metric is computed from all pixels of the images together; it is not a mean over images. Source:
shelhamer/fcn.berkeleyvision.org, score.py.
"""

import numpy as np
from jaxtyping import Float64, Int64, Integer


def compute_matrix(
    truth: Integer[np.ndarray, '*N'], predicted: Integer[np.ndarray, '*N'], classes: int
) -> Int64[np.ndarray, '{classes} {classes}']:
    """Returns the confusion matrix, in pixels.

    Args:
      truth: the true class of each pixel; pixels without a class, such as 255, are ignored.
      predicted: the predicted class of each pixel, in [0, classes).
      classes: the number of classes.

    Raises:
      ValueError: the prediction for a pixel with a true class is not in [0, classes).
    """
    has_class = truth < classes
    truth, predicted = truth[has_class].astype(np.int64), predicted[has_class].astype(np.int64)
    if predicted.size and not (predicted.min() >= 0 and predicted.max() < classes):
        raise ValueError(f'predicted is {predicted.max()}, expected 0 to {classes - 1}')
    return np.bincount(classes * truth + predicted, minlength=classes**2).reshape(classes, classes)


def iou(counts: Int64[np.ndarray, 'K K']) -> Float64[np.ndarray, ' K']:
    """Returns the intersection over union (IoU) of each class, in [0, 1].

    It is nan for an absent class: one that is neither in the truth nor in the prediction.
    """
    correct = np.diag(counts)
    return _ratio(correct, counts.sum(0) + counts.sum(1) - correct)


def mean_iou(counts: Int64[np.ndarray, 'K K']) -> float:
    """Returns the mean IoU over the classes that are not absent, in [0, 1]; nan if all are absent."""
    return _mean(iou(counts))


def pixel_accuracy(counts: Int64[np.ndarray, 'K K']) -> float:
    """Returns the fraction of correct pixels, in [0, 1]; nan if there are no pixels."""
    return float(_ratio(np.trace(counts), counts.sum()))


def mean_accuracy(counts: Int64[np.ndarray, 'K K']) -> float:
    """Returns the mean class accuracy over the classes in the truth, in [0, 1]; nan if there are none."""
    return _mean(_ratio(np.diag(counts), counts.sum(1)))


def _ratio(numerator, denominator):
    """Returns numerator / denominator, nan where the denominator is 0."""
    denominator = np.asarray(denominator, np.float64)
    return np.where(denominator > 0, numerator / np.where(denominator > 0, denominator, 1.0), np.nan)


def _mean(values):
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float('nan')
