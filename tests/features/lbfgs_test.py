import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from artifacts_jax.features import lbfgs, linear

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
LEARNT = 1250  # of the 1797 digits


@pytest.fixture(scope='module')
def digits():
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    return features[order].astype(np.float32), labels[order]


def objective(classifier, features, labels, penalty):
    log_probabilities = jax.nn.log_softmax(linear.predict(classifier, jnp.asarray(features)))
    loss = -log_probabilities[np.arange(len(labels)), labels].mean()
    return float(loss + 0.5 * penalty * jnp.square(classifier.weights).sum())


def fit_lbfgs(features, labels, *, num_classes=10, penalties=PENALTIES, held_out=0.2, iterations=100):
    options = {
        'num_classes': num_classes,
        'penalties': penalties,
        'held_out': held_out,
        'iterations': iterations,
    }
    return lbfgs.fit_lbfgs(features, labels, **options, key=jax.random.key(0))


@pytest.mark.parametrize('penalty', [1e-3, 1e-1])
def test_lbfgs_reaches_the_minimum_that_sklearn_finds(digits, penalty):
    features, labels = digits[0][:LEARNT], digits[1][:LEARNT]
    classifier = fit_lbfgs(features, labels, penalties=(penalty,), iterations=200)

    standardised = np.asarray((features - classifier.mean[None]) / classifier.scale[None])
    sklearn = LogisticRegression(C=1 / (LEARNT * penalty), tol=1e-5, max_iter=500).fit(standardised, labels)
    expected = classifier.replace(weights=jnp.asarray(sklearn.coef_.T), bias=jnp.asarray(sklearn.intercept_))

    loss, least = (objective(c, features, labels, penalty) for c in (classifier, expected))
    assert loss == pytest.approx(least, abs=1e-4)
    np.testing.assert_allclose(classifier.weights, expected.weights, atol=0.02)


def test_lbfgs_is_the_same_for_one_penalty_and_for_several(digits):
    features, labels = digits[0][:LEARNT], digits[1][:LEARNT]
    every = fit_lbfgs(features, labels)
    alone = fit_lbfgs(features, labels, penalties=(every.penalty,))
    assert every.held_out_accuracy == alone.held_out_accuracy
    np.testing.assert_allclose(every.weights, alone.weights, atol=5e-3)


@pytest.mark.parametrize(
    ('problem', 'penalties', 'best'),
    [
        ('noise', (1e-4, 1e-3, 1e-2, 10.0), 10.0),
        ('separable', (30.0, 20.0, 10.0, 1e-4), 1e-4),
    ],
)
def test_the_obviously_best_penalty_is_picked(problem, penalties, best):
    """Weights held near zero answer with the frequent class: best on noise, worst where the classes are separable."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, LEARNT, p=[0.8, 0.1, 0.1])
    noise = rng.standard_normal((LEARNT, 64)).astype(np.float32)
    features = noise if problem == 'noise' else np.eye(3, 64, dtype=np.float32)[labels]
    assert fit_lbfgs(features, labels, penalties=penalties, held_out=0.9).penalty == best


def test_constant_features_change_nothing(digits):
    features, labels = digits[0][:LEARNT], digits[1][:LEARNT]
    assert (features[:, 0] == 0).all()
    shifted = np.concatenate([np.full((LEARNT, 1), 0.1, np.float32), features[:, 1:]], axis=1)
    classifier, expected = (fit_lbfgs(x, labels, penalties=(1e-2,)) for x in (shifted, features))
    assert classifier.scale[0] == 1
    assert classifier.mean[0] == np.float32(0.1)
    np.testing.assert_allclose(classifier.weights[0], 0, atol=1e-6)
    np.testing.assert_allclose(classifier.weights, expected.weights, atol=1e-3)


@pytest.mark.parametrize('held_out', [0.0, 1.0])
def test_an_empty_held_out_or_training_set_is_an_error(held_out):
    with pytest.raises(ValueError, match='held_out='):
        fit_lbfgs(np.ones((10, 2), np.float32), np.zeros(10, int), held_out=held_out)


def test_labels_out_of_range_are_an_error():
    with pytest.raises(ValueError, match='from 0 to 9'):
        fit_lbfgs(np.ones((10, 2), np.float32), np.arange(1, 11))
