import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from artifacts_jax.transfer.voc import average_precision


def by_hand(scores, labels, interpolated):
    """Returns the average precision, computed threshold by threshold; equal scores share a threshold."""
    known = [(score, label == 1) for score, label in zip(scores, labels) if label]
    steps = sorted({score for score, _ in known}, reverse=True)
    found = [[there for score, there in known if score >= step] for step in steps]
    precision = [sum(above) / len(above) for above in found]
    if interpolated:
        precision = [max(precision[n:]) for n in range(len(steps))]
    gained = np.diff([0, *(sum(above) for above in found)])
    return (gained * precision).sum() / gained.sum()


@pytest.mark.parametrize('interpolated', [False, True])
@pytest.mark.parametrize('levels', [3, 1000])
def test_average_precision_is_the_mean_precision_at_the_positives(interpolated, levels):
    random = np.random.default_rng(0)
    for _ in range(20):
        labels = random.choice([-1, 0, 1], 40)
        labels[:2] = 1, -1
        scores = random.integers(0, levels, 40) / levels * 1.0
        found = average_precision.compute(scores, labels, interpolated=interpolated)
        np.testing.assert_allclose(found, by_hand(scores, labels, interpolated), rtol=1e-12)


def test_ties_count_as_wrong_and_unknown_labels_are_ignored():
    labels = np.array([1, -1, 0])
    hardly = np.array([1.000001, 1.0, 9.0])
    assert average_precision.compute(hardly, labels) == 0.5
    assert average_precision.compute(hardly, labels, tie=0.0) == 1.0


def test_without_ties_average_precision_equals_scikit_learns():
    random = np.random.default_rng(1)
    scores, labels = random.normal(size=(50, 4)), random.choice([-1, 1], (50, 4))
    np.testing.assert_allclose(
        average_precision.compute_per_class(scores, labels),
        [average_precision_score(labels[:, n] == 1, scores[:, n]) for n in range(4)],
    )


def test_a_class_without_images_is_excluded_from_the_mean():
    scores = np.array([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]])
    labels = np.array([[-1, 1, 0], [-1, -1, 0]])
    found = average_precision.compute_per_class(scores, labels)
    assert found == [None, 1.0, None]
    assert average_precision.mean(found) == 1.0
    assert average_precision.mean([0.5, 1.0, None]) == 0.75
    assert average_precision.mean([None]) is None


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(ValueError, match='NaN'):
        average_precision.compute(np.array([np.nan, 1.0]), np.array([1, -1]))
