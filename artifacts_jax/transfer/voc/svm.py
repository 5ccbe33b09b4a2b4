"""Linear support vector machines on frozen features, one for each class of VOC07: all images, or k with each class.

Source: VISSL's benchmark. There and here an image that has only difficult objects of a class is none of it in training
on all images, and is left out of low-shot training and of testing; and average precision is interpolated in testing,
but not where C is chosen. Other than there equal scores count at once, and NumPy makes the draws.
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

COSTS = (0.01, 0.1, 1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 50.0, 100.0, 1000.0)  # C
SHOTS = (1, 2, 4, 8, 16, 32, 64, 96)
NEGATIVES = 19  # to one positive, in low-shot training
WEIGHTS = {1: 2, -1: 1}
FOLDS = 3

Features = Float[np.ndarray, 'N D']
Labels = Int8[np.ndarray, 'N 20']


def normalise(features: Features) -> Float64[np.ndarray, 'N D']:
    """Returns features of length 1, those of length 0 as they are."""
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
    """Trains on all images, with the C of each class that is best in three folds of them, and tests.

    Args:
      features: of the training images, one after another as they are in the list, which decides the folds.
      labels: of them: 1 the class is there, 0 not known, -1 it is not.
      test_features: of the test images.
      test_labels: of them.
      seed: of the solver, which takes examples in a random order.
      costs: what C is chosen from.
      iterations: after which a fit ends that has not converged.

    Returns:
      {'map': in %, 'ap': {class: in %, None of one that fewer than three training images or no test image have},
      'cost': {class: its C}, 'fits': how many were made, 'unconverged': how many of them did not converge}.
    """
    features, test_features = normalise(features), normalise(test_features)
    fits, chosen = _Fits(seed, iterations), {}
    found: dict[str, float | None] = {}
    for name, target, test_target in zip(NAMES, np.where(labels == 1, 1, -1).T, test_labels.T):
        found[name] = None
        if not _learned(target, test_target):
            continue
        chosen[name] = max(costs, key=partial(_in_folds, fits, features, target))
        scores = fits.fit(features, target, chosen[name]).decision_function(test_features)
        found[name] = results.to_percent(average_precision.compute(scores, test_target, tie=0.0, interpolated=True))
    return {'map': average_precision.mean(found.values()), 'ap': found, 'cost': chosen, **fits.count()}


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
    """Trains on k images with a class and 19 k without it, drawn anew for each class, several times, and tests.

    Arguments are those of all_images, and

    Args:
      seed: of the draws, and of the solver.
      shots: the values of k.
      draws: for each of them.
      costs: what C is chosen from: as in the source, for each k the best by the mean on the TEST images.

    Returns:
      {'shots': {k: {'mean', 'deviation' (divided by the draws), 'least', 'most' of the draws' map, in %, 'cost'}},
      'fits', 'unconverged'}.

    Raises:
      DataError: fewer images have, or have not, a class that test images have, than are to be drawn.
    """
    features, test_features = normalise(features), normalise(test_features)
    check_enough(labels, test_labels, shots)
    classes = _tested(test_labels)
    fits, found = _Fits(seed, iterations), {}
    for shot in shots:
        maps = np.zeros((draws, len(costs)))
        for draw in range(draws):
            random = np.random.default_rng((seed, shot, draw))
            rows = {n: _drawn(random, labels[:, n], shot) for n in classes}
            for place, cost in enumerate(costs):
                values = []
                for n in classes:
                    model = fits.fit(features[rows[n]], labels[rows[n], n], cost)
                    scores = model.decision_function(test_features)
                    values.append(average_precision.compute(scores, test_labels[:, n], tie=0.0, interpolated=True))
                maps[draw, place] = results.to_percent(average_precision.mean(values))
        best = int(maps.mean(axis=0).argmax())
        column = maps[:, best]
        found[shot] = {
            **{'mean': float(column.mean()), 'deviation': float(column.std())},
            **{'least': float(column.min()), 'most': float(column.max()), 'cost': costs[best]},
        }
    return {'shots': found, **fits.count()}


def check_enough(labels: Labels, test_labels: Int8[np.ndarray, 'M 20'], shots: Sequence[int]) -> None:
    """Raises DataError if fewer images have, or have not, a class that test images have, than low-shot training draws.

    Arguments as of low_shot.
    """
    shot, classes = max(shots), _tested(test_labels)
    counts = {label: (labels[:, classes] == label).sum(axis=0) for label in (1, -1)}
    most = int(min((counts[1].min(), counts[-1].min() // NEGATIVES))) if classes else shot
    way = "leave 'low_shot' out of voc_svm.parts"
    way = f'give at most {most} in voc_svm.shots, or {way}' if most else way
    for place, n in enumerate(classes):
        for what, label, wanted in (('have', 1, shot), ('have not', -1, NEGATIVES * shot)):
            if (count := counts[label][place]) < wanted:
                raise DataError(
                    f'{count:,} training images {what} the class {NAMES[n]}, and low-shot training on {shot} of a'
                    f' class, as voc_svm.shots={tuple(shots)} asks, draws {wanted:,}: {way}'
                )


def check_trainable(labels: Labels, test_labels: Int8[np.ndarray, 'M 20']) -> None:
    """Raises DataError if training on all images can learn no class that test images have."""
    if not any(_learned(*each) for each in zip(labels.T, test_labels.T)):
        raise DataError(
            f'no class of the test images is in {FOLDS} training images or more, and not in {FOLDS} or more, as'
            f" training on all images needs: leave 'all' out of voc_svm.parts, or name a larger split"
        )


def _learned(labels, test_labels):
    """Returns whether the folds of training have a class, and not, and a test image has it."""
    there = labels == 1
    return there.sum() >= FOLDS and (~there).sum() >= FOLDS and (test_labels == 1).any()


def _tested(labels):
    """Returns the classes that test images have."""
    return [n for n in range(len(NAMES)) if (labels[:, n] == 1).any()]


class _Fits:
    """Fits classifiers, and counts those that do not converge."""

    def __init__(self, seed, iterations):
        self.seed, self.iterations = seed, iterations
        self.made = self.unconverged = 0

    def fit(self, features: Features, target: Int[np.ndarray, ' N'], cost: float) -> Any:
        """Returns the classifier of a target of 1 and -1."""
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
            warnings.simplefilter('ignore', ConvergenceWarning)  # it is counted
            model.fit(features, target)
        self.made += 1
        self.unconverged += int(model.n_iter_ >= self.iterations)
        return model

    def count(self) -> dict[str, int]:
        """Returns how many there were, and how many did not converge."""
        return {'fits': self.made, 'unconverged': self.unconverged}


def _in_folds(fits, features, target, cost):
    """Returns the mean average precision of three folds, each tested by a classifier of the others."""
    from sklearn.model_selection import StratifiedKFold

    values = []
    for others, fold in StratifiedKFold(FOLDS).split(features, target):
        scores = fits.fit(features[others], target[others], cost).decision_function(features[fold])
        values.append(average_precision.compute(scores, target[fold], tie=0.0))
    return sum(values) / FOLDS


def _drawn(random, labels, shot):
    """Returns rows of so many positives, and of 19 times as many negatives."""
    counts = {1: shot, -1: NEGATIVES * shot}
    return np.concatenate([random.choice(np.flatnonzero(labels == x), counts[x], replace=False) for x in counts])
