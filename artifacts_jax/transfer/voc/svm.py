"""Linear support vector machines (SVMs) on frozen features, one for each class of VOC07.

An SVM is trained on all images, or in low-shot training on k images with the class. Source: VISSL's benchmark.

| case | rule |
|---|---|
| image with only difficult objects of a class, training on all images | negative |
| the same image in low-shot training and in testing | ignored |
| average precision in testing | interpolated |
| average precision for choosing C | not interpolated |

Differences from VISSL: images with equal scores share one threshold, and NumPy samples the low-shot images.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Int, Int8

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.training import results
from artifacts_jax.transfer.voc import average_precision

COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)  # values of C
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
NEGATIVES = 19  # negatives for each positive, in low-shot training
WEIGHTS = {1: 2, -1: 1}  # class weights of positives and negatives
FOLDS = 3  # of the cross-validation that chooses C

Features = Float[np.ndarray, 'N D']
Labels = Int8[np.ndarray, 'N 20']


def normalise(features: Features) -> Float64[np.ndarray, 'N D']:
    """Returns L2-normalised features; those of norm 0 are unchanged."""
    features = features.astype(np.float64)
    return features / (np.linalg.norm(features, axis=1, keepdims=True) + 1e-5)


def train_on_all(
    features: Features,
    labels: Labels,
    test_features: Float[np.ndarray, 'M D'],
    test_labels: Int8[np.ndarray, 'M 20'],
    *,
    seed: int,
    costs: Sequence[float] = COSTS,
    iterations: int = 2000,
) -> dict:
    """Trains on all images and tests. The C of each class is chosen by cross-validation with three folds.

    Args:
      features: features of the training images, in the order of VOC's list, which determines the folds.
      labels: labels of the training images: 1 if an image has the class, -1 if not, 0 if unknown.
      test_features: features of the test images.
      test_labels: labels of the test images.
      seed: seed of the solver, which visits the examples in a random order.
      costs: candidate values of C.
      iterations: maximum number of iterations of a fit.

    Returns:
      {'map': in %, 'ap': {class: in %, or None if fewer than three training images or no test image have the class},
      'cost': {class: its C}, 'fits': number of fits, 'unconverged': number of fits that did not converge}.
    """
    features, test_features = normalise(features), normalise(test_features)
    fits, chosen = _Fits(seed, iterations), {}
    precisions: dict[str, float | None] = {}
    for name, target, test_target in zip(NAMES, np.where(labels == 1, 1, -1).T, test_labels.T):
        precisions[name] = None
        if not _is_trainable(target, test_target):
            continue
        chosen[name] = max(costs, key=partial(_cross_validate, fits, features, target))
        scores = fits.fit(features, target, chosen[name]).decision_function(test_features)
        precision = average_precision.compute(scores, test_target, tie=0.0, interpolated=True)
        precisions[name] = results.to_percent(precision)
    return {'map': average_precision.mean(precisions.values()), 'ap': precisions, 'cost': chosen, **fits.count()}


def train_low_shot(
    features: Features,
    labels: Labels,
    test_features: Float[np.ndarray, 'M D'],
    test_labels: Int8[np.ndarray, 'M 20'],
    *,
    seed: int,
    shots: Sequence[int] = SHOTS,
    draws: int = 5,
    costs: Sequence[float] = COSTS,
    iterations: int = 2000,
) -> dict:
    """Trains on k images with a class and 19 k images without it, for several random samples of images, and tests.

    Args:
      features: as of train_on_all.
      labels: as of train_on_all.
      test_features: as of train_on_all.
      test_labels: as of train_on_all.
      seed: seed of the random samples, and of the solver.
      shots: the values of k.
      draws: number of random samples for each k.
      costs: candidate values of C. As in the source, the C of each k is the best by the mean on the TEST images.
      iterations: as of train_on_all.

    Returns:
      {'shots': {k: {'mean', 'deviation' (ddof = 0), 'least', 'most': mAP over the samples, in %; 'cost': C}}, 'fits',
      'unconverged'}.

    Raises:
      DataError: a class of the test images has fewer positive or negative training images than a sample needs.
    """
    features, test_features = normalise(features), normalise(test_features)
    check_enough(labels, test_labels, shots)
    classes = _list_tested(test_labels)
    fits, by_shot = _Fits(seed, iterations), {}
    for shot in shots:
        maps = np.zeros((draws, len(costs)))
        for draw in range(draws):
            random = np.random.default_rng((seed, shot, draw))
            rows = {n: _sample_rows(random, labels[:, n], shot) for n in classes}
            for column, cost in enumerate(costs):
                values = []
                for n in classes:
                    model = fits.fit(features[rows[n]], labels[rows[n], n], cost)
                    scores = model.decision_function(test_features)
                    values.append(average_precision.compute(scores, test_labels[:, n], tie=0.0, interpolated=True))
                maps[draw, column] = results.to_percent(average_precision.mean(values))
        best = int(maps.mean(axis=0).argmax())
        best_maps = maps[:, best]
        by_shot[shot] = {
            **{'mean': float(best_maps.mean()), 'deviation': float(best_maps.std())},
            **{'least': float(best_maps.min()), 'most': float(best_maps.max()), 'cost': costs[best]},
        }
    return {'shots': by_shot, **fits.count()}


def check_enough(labels: Labels, test_labels: Int8[np.ndarray, 'M 20'], shots: Sequence[int]) -> None:
    """Raises DataError if a class of the test images has too few training images for low-shot training.

    Args:
      labels: labels of the training images.
      test_labels: labels of the test images.
      shots: the values of k; a sample has k positives and 19 k negatives.
    """
    shot, classes = max(shots), _list_tested(test_labels)
    counts = {label: (labels[:, classes] == label).sum(axis=0) for label in (1, -1)}
    most = int(min((counts[1].min(), counts[-1].min() // NEGATIVES))) if classes else shot
    remedy = "remove 'low_shot' from voc_svm.parts"
    remedy = f'set voc_svm.shots to at most {most}, or {remedy}' if most else remedy
    for column, n in enumerate(classes):
        for kind, label, needed in (('with', 1, shot), ('without', -1, NEGATIVES * shot)):
            if (count := counts[label][column]) < needed:
                raise DataError(
                    f'voc_svm.shots={tuple(shots)}: there are {count:,} training images {kind} the class {NAMES[n]},'
                    f' but k = {shot} needs {needed:,}; {remedy}'
                )


def check_trainable(labels: Labels, test_labels: Int8[np.ndarray, 'M 20']) -> None:
    """Raises DataError if no class of the test images has enough training images for training on all images."""
    if not any(_is_trainable(*columns) for columns in zip(labels.T, test_labels.T)):
        raise DataError(
            f'no class of the test images has {FOLDS} or more training images with it and {FOLDS} or more without it,'
            f" which training on all images needs; remove 'all' from voc_svm.parts, or choose a larger split"
        )


def _is_trainable(labels, test_labels):
    """Returns whether a class has enough positives and negatives for the folds, and a positive test image."""
    is_positive = labels == 1
    return is_positive.sum() >= FOLDS and (~is_positive).sum() >= FOLDS and (test_labels == 1).any()


def _list_tested(labels):
    """Returns the indices of the classes that test images have."""
    return [n for n in range(len(NAMES)) if (labels[:, n] == 1).any()]


class _Fits:
    """Fits classifiers, and counts the fits that do not converge."""

    def __init__(self, seed, iterations):
        self.seed, self.iterations = seed, iterations
        self.total = self.unconverged = 0

    def fit(self, features: Features, target: Int[np.ndarray, ' N'], cost: float) -> Any:
        """Returns a classifier trained on a target of 1 and -1."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.svm import LinearSVC

        model = LinearSVC(
            C=cost,
            class_weight=WEIGHTS,
            dual=True,
            loss='squared_hinge',
            max_iter=self.iterations,
            random_state=self.seed,
        )
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)  # such fits are counted instead
            model.fit(features, target)
        self.total += 1
        self.unconverged += int(model.n_iter_ >= self.iterations)
        return model

    def count(self) -> dict[str, int]:
        """Returns {'fits': number of fits, 'unconverged': number of fits that did not converge}."""
        return {'fits': self.total, 'unconverged': self.unconverged}


def _cross_validate(fits, features, target, cost):
    """Returns the mean over three folds of the average precision of a classifier trained on the other folds."""
    from sklearn.model_selection import StratifiedKFold

    values = []
    for others, fold in StratifiedKFold(FOLDS).split(features, target):
        scores = fits.fit(features[others], target[others], cost).decision_function(features[fold])
        values.append(average_precision.compute(scores, target[fold], tie=0.0))
    return sum(values) / FOLDS


def _sample_rows(random, labels, shot):
    """Samples the rows of `shot` positives, and of 19 times as many negatives."""
    counts = {1: shot, -1: NEGATIVES * shot}
    return np.concatenate([random.choice(np.flatnonzero(labels == x), counts[x], replace=False) for x in counts])
