import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from artifacts_jax.training import metrics


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_psnr_equals_that_of_skimage(rng):
    x, y = rng.uniform(-1, 1, (2, 3, 8, 6, 3)).astype(np.float32)
    expected = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in zip(x, y)]
    np.testing.assert_allclose(metrics.psnr(x, y), expected, rtol=1e-5)


def test_psnr_of_equal_images_is_infinite():
    images = jnp.ones((2, 4, 4, 3))
    assert np.isposinf(metrics.psnr(images, images)).all()


@pytest.mark.parametrize('weighted', [False, True])
def test_auc_equals_that_of_sklearn_with_ties(rng, weighted):
    positives = rng.uniform(size=200) < 0.3
    scores = np.round(rng.standard_normal(200) + positives, 1)
    weights = rng.uniform(size=200) if weighted else None
    assert len(set(scores)) < 100
    expected = roc_auc_score(positives, scores, sample_weight=weights)
    assert metrics.auc(scores, positives, weights) == pytest.approx(expected, abs=1e-12)


def test_auc_counts_ties_half_and_is_nan_without_an_answer():
    def auc(scores, positives):
        return metrics.auc(np.array(scores), np.array(positives, bool))

    assert auc([1, 1, 1], [True, False, False]) == 0.5
    assert auc([2, 1, 0], [True, False, False]) == 1.0
    assert np.isnan(auc([1, 2], [True, True]))
    assert np.isnan(auc([1, np.nan], [True, False]))
    assert np.isnan(auc([], []))


@pytest.mark.parametrize('k', [1, 7])
def test_knn_equals_that_of_sklearn(rng, k):
    bank, queries = (rng.standard_normal((n, 16)).astype(np.float32) for n in (300, 100))
    # Two classes and an odd k: votes cannot tie.
    bank_labels, query_labels = (np.int32(x[:, 0] + x[:, 1] ** 2 > 1) for x in (bank, queries))
    expected = KNeighborsClassifier(k, metric='cosine').fit(bank, bank_labels).score(queries, query_labels)
    actual = metrics.knn_accuracy(bank, bank_labels, queries, query_labels, k=k, num_classes=2)
    assert actual == pytest.approx(expected, abs=1e-6)
    assert actual > 0.5


@pytest.mark.parametrize(
    ('labels', 'k', 'winner'), [([2, 0, 1], 3, 2), ([1, 0, 0], 2, 1), ([2, 0, 0], 3, 0), ([2, 1, 1, 2], 4, 2)]
)
def test_knn_ties_go_to_the_nearest_neighbour(labels, k, winner):
    angles = np.arange(1, len(labels) + 1) / 10
    bank = np.stack([np.cos(angles), np.sin(angles)], axis=1) * angles[::-1, None]  # lengths do not matter
    args = bank, np.asarray(labels), np.asarray([[1.0, 0.0]])
    accuracies = [metrics.knn_accuracy(*args, np.asarray([c]), k=k, num_classes=3) for c in range(3)]
    assert int(np.argmax(accuracies)) == winner
    assert sum(accuracies) == 1


def test_knn_of_too_small_a_bank_is_an_error():
    with pytest.raises(ValueError, match='k=3 is more than the 2 candidates'):
        metrics.knn_accuracy(np.eye(2), np.arange(2), np.eye(2), np.arange(2), k=3, num_classes=2)


def test_neighbours_are_the_nearest_by_brute_force(rng):
    bank, queries = (rng.standard_normal((n, 8)).astype(np.float32) for n in (60, 5))
    excluded = rng.uniform(size=(5, 60)) < 0.5
    indices, similarities = metrics.find_neighbours(bank, queries, k=6, excluded=excluded)
    for query, index, values, out in zip(queries, indices, similarities, excluded):
        cosines = np.array([x @ query / np.linalg.norm(x) / np.linalg.norm(query) for x in bank])
        order = [n for n in np.argsort(-cosines) if not out[n]]
        np.testing.assert_array_equal(index, order[:6])
        np.testing.assert_allclose(values, cosines[order[:6]], atol=1e-6)
    assert (metrics.find_neighbours(bank, bank, k=1)[0][:, 0] == np.arange(60)).all()


def test_neighbours_that_are_excluded_do_not_count_as_candidates():
    with pytest.raises(ValueError, match='k=2 is more than the 1 candidates'):
        metrics.find_neighbours(np.eye(3), np.eye(3)[:1], k=2, excluded=np.array([[True, True, False]]))


@pytest.mark.parametrize('rank', [1, 5, 20])
def test_rankme_of_equal_singular_values_is_the_rank(rng, rank):
    left, right = (np.linalg.qr(rng.standard_normal((n, rank)))[0] for n in (50, 40))
    assert metrics.rankme(jnp.asarray(left @ right.T)) == pytest.approx(rank, rel=1e-3)


def test_rankme_is_the_exponential_of_the_entropy(rng):
    features = rng.standard_normal((30, 10)) * np.geomspace(1, 1e-2, 10)
    values = np.linalg.svd(features, compute_uv=False)
    p = values / values.sum()
    assert metrics.rankme(jnp.asarray(features)) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)


def test_rankme_of_zeros_is_one():
    assert metrics.rankme(jnp.zeros((20, 10))) == pytest.approx(1, abs=1e-3)


def test_spread_is_one_if_isotropic_and_zero_if_collapsed(rng):
    assert metrics.spread(rng.standard_normal((4000, 64))) == pytest.approx(1, abs=0.02)
    assert metrics.spread(rng.uniform(1, 2, (100, 1)) * rng.standard_normal((1, 64))) == pytest.approx(0, abs=1e-5)
    assert metrics.spread(jnp.zeros((10, 4))) == 0


def test_find_nonfinite_returns_the_names_of_nan_and_infinite_values():
    values = {'loss': 1.0, 'a': jnp.nan, 'b': np.float32(-np.inf), 'step': 3, 'c': jnp.asarray(jnp.inf)}
    assert metrics.find_nonfinite(values) == ['a', 'b', 'c']
    assert metrics.find_nonfinite({}) == []
