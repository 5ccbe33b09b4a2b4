"""Compares confusion matrices and metrics with scikit-learn's, on maps of random labels."""

import numpy as np
import pytest
from sklearn import metrics

from artifacts_jax.transfer import confusion


@pytest.mark.parametrize('seed', range(3))
def test_metrics_equal_scikit_learns(seed):
    random = np.random.default_rng(seed)
    truth = random.integers(0, 21, (40, 30)).astype(np.uint8)
    predicted = np.where(random.random((40, 30)) < 0.6, truth, random.integers(0, 21, (40, 30))).astype(np.uint8)
    truth[random.random((40, 30)) < 0.1] = 255
    counts = confusion.compute_matrix(truth, predicted, 21)
    known = truth != 255
    pair = truth[known], predicted[known]
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(*pair, labels=range(21)))
    np.testing.assert_allclose(confusion.iou(counts), metrics.jaccard_score(*pair, labels=range(21), average=None))
    assert confusion.mean_iou(counts) == pytest.approx(metrics.jaccard_score(*pair, average='macro'))
    assert confusion.pixel_accuracy(counts) == pytest.approx(metrics.accuracy_score(*pair))
    assert confusion.mean_accuracy(counts) == pytest.approx(metrics.balanced_accuracy_score(*pair))


def test_matrices_of_images_are_added_not_averaged():
    first, second = (
        confusion.compute_matrix(np.array(x), np.array(y), 2) for x, y in (([0, 0, 1], [0, 1, 1]), ([1], [1]))
    )
    np.testing.assert_array_equal(first + second, [[1, 1], [0, 2]])
    assert confusion.mean_iou(first + second) == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_absent_classes_are_excluded_from_means():
    counts = confusion.compute_matrix(np.array([0, 0, 1, 255]), np.array([0, 2, 1, 9]), 4)
    np.testing.assert_array_equal(
        confusion.iou(counts), [0.5, 1, 0, np.nan]
    )  # class 2 is predicted, but not in the truth
    assert confusion.mean_iou(counts) == 0.5
    assert confusion.mean_accuracy(counts) == 0.75
    nothing = confusion.compute_matrix(np.array([255]), np.array([0]), 4)
    assert all(np.isnan(f(nothing)) for f in (confusion.mean_iou, confusion.pixel_accuracy, confusion.mean_accuracy))


def test_a_prediction_outside_the_classes_raises():
    with pytest.raises(ValueError, match='predicted is 4, expected 0 to 3'):
        confusion.compute_matrix(np.array([0, 1]), np.array([0, 4]), 4)
