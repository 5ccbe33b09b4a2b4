import jax
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from artifacts_jax.features import extraction
from artifacts_jax.transfer import neighbours

CLASSES, TEMPERATURE = 7, 0.1
merge = jax.jit(neighbours.merge)
vote = jax.jit(neighbours.vote, static_argnames=('ks', 'temperature'))


@pytest.fixture(scope='module')
def data():
    """Returns (bank, labels, queries, labels of queries): 90 and 40 examples; near examples often share a class."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(CLASSES, 6))

    def draw(count):
        labels = random.integers(0, CLASSES, count).astype(np.int32)
        features = (centres[labels] + random.normal(scale=1.2, size=(count, 6))).astype(np.float32)
        return np.asarray(extraction.l2_normalise(jax.numpy.asarray(features))), labels

    return *draw(90), *draw(40)


def search(bank, labels, queries, k, *, block=32):
    """Returns the nearest neighbours, from a bank in blocks of one size, the last padded."""
    nearest = neighbours.make_empty(len(queries), k)
    padded = -len(bank) % block
    bank, labels = np.pad(bank, ((0, padded), (0, 0))), np.pad(labels, (0, padded), constant_values=-1)
    for start in range(0, len(bank), block):
        rows = slice(start, start + block)
        nearest = merge(nearest, queries, bank[rows], labels[rows])
    return nearest


@pytest.mark.parametrize('k', [1, 5, 20])
def test_votes_are_those_of_scikit_learn(k, data):
    bank, labels, queries, truth = data
    model = KNeighborsClassifier(
        k, metric='cosine', algorithm='brute', weights=lambda distance: np.exp((1 - distance) / TEMPERATURE)
    ).fit(bank, labels)
    probabilities = model.predict_proba(queries)
    order = np.argsort(-probabilities, axis=1, kind='stable')
    voted = np.take_along_axis(probabilities, order, axis=1) > 0
    first, five = (((order == truth[:, None]) & voted)[:, :top].any(axis=1) for top in (1, 5))
    np.testing.assert_array_equal(first, model.predict(queries) == truth)
    nearest = search(bank, labels, queries, 20)
    right = np.asarray(vote(nearest, truth, ks=(k, 20), temperature=TEMPERATURE))
    np.testing.assert_array_equal(right[:, 0], np.stack([first, five], axis=1))
    assert 0.3 < first.mean() < 1


def test_neighbours_are_the_same_in_blocks_of_any_size(data):
    bank, labels, queries, _ = data
    whole = search(bank, labels, queries, 20, block=90)
    for block in (7, 32):
        parts = search(bank, labels, queries, 20, block=block)
        np.testing.assert_array_equal(parts.label, whole.label)
        np.testing.assert_allclose(parts.similarity, whole.similarity, rtol=1e-5)
    similarity = queries.astype(np.float64) @ bank.T
    np.testing.assert_array_equal(whole.label, labels[np.argsort(-similarity, axis=1)[:, :20]])


def test_all_examples_of_a_small_bank_vote(data):
    bank, labels, queries, truth = data
    nearest = search(bank[:9], labels[:9], queries, 20)
    assert (np.asarray(nearest.label)[:, 9:] == -1).all()
    right = vote(nearest, truth, ks=(9, 20), temperature=TEMPERATURE)
    np.testing.assert_array_equal(right[:, 0], right[:, 1])


def judge(labels, similarity, truth, temperature=TEMPERATURE):
    nearest = neighbours.Nearest(np.array([similarity], np.float32), np.array([labels], np.int32))
    right = vote(nearest, np.array([truth], np.int32), ks=(len(labels),), temperature=temperature)
    return right[0, 0].tolist()


@pytest.mark.parametrize(
    ('labels', 'truth', 'expected'),
    [
        ([3, 1, 1, 3], 1, [True, True]),  # equal votes: the lower index is first
        ([3, 1, 1, 3], 3, [False, True]),
        ([6, 5, 4, 3, 2, 1], 6, [False, False]),
        ([6, 5, 4, 3, 2, 1], 5, [False, True]),
        ([1, 1, 1, 1], 0, [False, False]),  # no votes, so not in the top 5
    ],
)
def test_ties_of_votes_and_classes_without_votes(labels, truth, expected):
    assert judge(labels, [0.5] * len(labels), truth) == expected


def test_weights_neither_overflow_nor_vanish():
    assert judge([2, 1, 1], [1.0, 0.5, 0.5], 2, temperature=1e-3) == [True, True]
    assert judge([2, 1, 1], [-0.5, -0.9, -1.0], 2, temperature=1e-3) == [True, True]
    assert judge([2, 1, 1], [1.0, 0.9, 0.9], 1, temperature=10.0) == [True, True]


def test_a_similarity_of_nan_counts_as_wrong():
    assert judge([1, 1], [np.nan, 0.5], 1) == [False, False]


def test_features_of_norm_0_are_equally_near_to_all():
    unit = np.asarray(extraction.l2_normalise(jax.numpy.array([[3.0, 4.0], [0.0, 0.0]])))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0]], rtol=1e-6)
    nearest = search(unit, np.array([4, 2], np.int32), np.zeros((1, 2), np.float32), 2)
    assert nearest.label.tolist() == [[4, 2]]  # equally near: order of reading
