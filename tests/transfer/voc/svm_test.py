import re

import numpy as np
import pytest
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.transfer.voc import average_precision, svm

COSTS = (0.01, 1.0)
PRESENT = 3  # number of classes with images


@pytest.fixture(scope='module')
def data():
    """Returns (features, labels, test features, test labels); the features depend on three classes, with noise."""
    random = np.random.default_rng(0)

    def draw():
        labels = np.full((200, 20), -1, np.int8)
        labels[:, :PRESENT] = random.choice([-1, -1, -1, 1], (200, PRESENT))
        features = np.concatenate([labels[:, :PRESENT], np.zeros((200, 5))], axis=1) + 3
        features += random.normal(scale=0.8, size=features.shape)
        labels[:PRESENT, :PRESENT] = 0  # some labels are unknown
        return features.astype(np.float32), labels

    return *draw(), *draw()


def test_training_on_all_images_follows_the_protocol(data):
    features, labels, test_features, test_labels = data
    found = svm.train_on_all(*data, seed=0, costs=COSTS)
    assert found['fits'] == PRESENT * (3 * len(COSTS) + 1)
    assert found['unconverged'] == 0
    assert set(found['cost']) == set(NAMES[:PRESENT])
    unit = features / (np.linalg.norm(features.astype(float), axis=1, keepdims=True) + 1e-5)
    test_unit = test_features / (np.linalg.norm(test_features.astype(float), axis=1, keepdims=True) + 1e-5)
    for n, name in enumerate(NAMES):
        if n >= PRESENT:
            assert found['ap'][name] is None
            continue
        target = np.where(labels[:, n] == 1, 1, -1)
        models = [LinearSVC(C=cost, class_weight={1: 2, -1: 1}, max_iter=2000, random_state=0) for cost in COSTS]
        values = [cross_val_score(model, unit, target, cv=3, scoring='average_precision').mean() for model in models]
        best = int(np.argmax(values))
        assert found['cost'][name] == COSTS[best]
        scores = models[best].fit(unit, target).decision_function(test_unit)
        expected = average_precision.compute(scores, test_labels[:, n], tie=0.0, interpolated=True)
        assert found['ap'][name] == pytest.approx(100 * expected)
        assert found['ap'][name] > 60
    assert found['map'] == pytest.approx(sum(found['ap'][name] for name in NAMES[:PRESENT]) / PRESENT)


def test_low_shot_is_better_with_more_images_and_a_function_of_the_seed(data):
    options = {'shots': (1, 4), 'draws': 3, 'costs': COSTS}
    found = svm.train_low_shot(*data, seed=0, **options)
    assert found['fits'] == 2 * 3 * len(COSTS) * PRESENT
    one, four = found['shots'][1], found['shots'][4]
    assert one['mean'] < four['mean']
    for row in (one, four):
        assert row['least'] <= row['mean'] <= row['most']
        assert row['cost'] in COSTS
    assert svm.train_low_shot(*data, seed=0, **options) == found
    assert svm.train_low_shot(*data, seed=1, **options) != found


def test_low_shot_samples_are_images_with_known_labels():
    labels = np.array([0] * 10 + [1] * 4 + [-1] * 60, np.int8)
    rows = svm._sample_rows(np.random.default_rng(0), labels, 3)
    assert len(set(rows)) == 3 + 57
    np.testing.assert_array_equal(labels[rows], [1] * 3 + [-1] * 57)


def test_too_few_images_are_refused(data):
    with pytest.raises(DataError, match=r'training images without the class aeroplane, but k = 12 needs 228'):
        svm.train_low_shot(*data, seed=0, shots=(1, 12))


def test_the_suggested_number_of_shots_is_accepted(data):
    _, labels, _, test_labels = data
    with pytest.raises(DataError, match=r"set voc_svm.shots to at most \d, or remove 'low_shot' from") as raised:
        svm.check_enough(labels, test_labels, (1, 12))
    most = int(re.search(r'at most (\d)', str(raised.value))[1])
    svm.check_enough(labels, test_labels, (1, most))
    with pytest.raises(DataError, match=f'at most {most},'):
        svm.check_enough(labels, test_labels, (most + 1,))
    with pytest.raises(DataError, match=r"needs 1; remove 'low_shot' from voc_svm.parts"):
        svm.check_enough(-np.abs(labels), test_labels, (1,))


def test_training_on_all_images_needs_three_with_and_three_without_a_tested_class():
    labels, test_labels = np.full((6, 20), -1, np.int8), np.full((2, 20), -1, np.int8)
    labels[:3, 4], test_labels[0, 4] = 1, 1
    svm.check_trainable(labels, test_labels)
    for fewer in (labels[1:], labels[:-1]):
        with pytest.raises(DataError, match=r"has 3 or more training images .*; remove 'all' from voc_svm.parts"):
            svm.check_trainable(fewer, test_labels)
    with pytest.raises(DataError, match='no class of the test images'):
        svm.check_trainable(labels, np.roll(test_labels, 1, axis=1))


def test_fits_that_do_not_converge_are_counted(data):
    found = svm.train_on_all(*data, seed=0, costs=(1000.0,), iterations=2)
    assert found['unconverged'] == found['fits'] == PRESENT * 4
