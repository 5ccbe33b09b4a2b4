import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from artifacts_jax.features import lbfgs, linear, sgd_solver

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
LEARNT = 1250  # of the 1797 digits


@pytest.fixture(scope='module')
def digits():
    """Two layers of different dimensions: the pixels, and their averages on a grid of 4x4."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    pixels = features[order].astype(np.float32)
    coarse = np.asarray(linear.pool(jnp.asarray(pixels.reshape(-1, 8, 8, 1)), 16))
    return {'pixels': pixels, 'coarse': coarse}, labels[order]


def accuracy(classifier, features, labels):
    correct, count = linear.compute_accuracy_counts(classifier, features, labels)
    return int(correct) / int(count)


def batches_of(features, labels, *, size, held_out):
    """Returns a batches_fn of shuffled epochs, whose last batch is smaller."""

    def batches(epoch):
        order = np.random.default_rng(epoch).permutation(len(labels))
        for start in range(0, len(order), size):
            index = order[start : start + size]
            yield {layer: x[index] for layer, x in features.items()}, labels[index], held_out[index]

    return batches


def fit_sgd(features, labels, *, held_out, num_classes=10, penalties=PENALTIES, epochs=30, size=100):
    return sgd_solver.fit_sgd(
        batches_of(features, labels, size=size, held_out=held_out),
        dims={layer: x.shape[1] for layer, x in features.items()},
        num_classes=num_classes,
        penalties=penalties,
        epochs=epochs,
        steps_per_epoch=-(-len(labels) // size),
        learning_rate=0.1,
    )


def test_a_joint_fit_of_layers_equals_separate_fits(digits):
    features, labels = digits
    held_out = np.arange(len(labels)) % 5 == 0
    together = fit_sgd(features, labels, held_out=held_out, epochs=3)
    assert together.keys() == features.keys()
    for layer, x in features.items():
        alone = fit_sgd({layer: x}, labels, held_out=held_out, epochs=3)
        assert together[layer].weights.shape == (x.shape[1], 10)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), together[layer], alone[layer])


@pytest.mark.slow
def test_sgd_and_lbfgs_agree_on_unseen_examples(digits):
    features, labels = digits[0]['pixels'][:LEARNT], digits[1][:LEARNT]
    unseen = digits[0]['pixels'][LEARNT:], digits[1][LEARNT:]
    held_out = np.arange(LEARNT) % 5 == 0
    options = {'num_classes': 10, 'penalties': PENALTIES, 'held_out': 0.2, 'iterations': 100}
    by_lbfgs = lbfgs.fit_lbfgs(features, labels, **options, key=jax.random.key(0))
    by_sgd = fit_sgd({'pixels': features}, labels, held_out=held_out)['pixels']
    assert accuracy(by_lbfgs, *unseen) > 0.94
    assert accuracy(by_sgd, *unseen) == pytest.approx(accuracy(by_lbfgs, *unseen), abs=0.02)
    assert by_sgd.held_out_accuracy == pytest.approx(accuracy(by_sgd, features[held_out], labels[held_out]))


def test_features_are_standardised_by_the_training_examples_only(digits):
    features, labels = digits
    held_out = np.arange(len(labels)) % 5 == 0
    for layer, classifier in fit_sgd(features, labels, held_out=held_out, epochs=1).items():
        training = features[layer][~held_out]
        deviation = training.std(axis=0)
        np.testing.assert_allclose(classifier.mean, training.mean(axis=0), atol=1e-4)
        np.testing.assert_allclose(classifier.scale, np.where(deviation > 0, deviation, 1), rtol=1e-4)


def test_held_out_examples_are_not_used_for_training(digits):
    features, labels = {'pixels': digits[0]['pixels'][:300]}, digits[1][:300]
    held_out = np.arange(300) % 3 == 0
    altered = {'pixels': np.where(held_out[:, None], 100 * features['pixels'], features['pixels'])}
    one = fit_sgd(features, labels, held_out=held_out, penalties=(1e-3,), epochs=2)
    two = fit_sgd(altered, np.where(held_out, 0, labels), held_out=held_out, penalties=(1e-3,), epochs=2)
    np.testing.assert_allclose(one['pixels'].weights, two['pixels'].weights, atol=1e-6)


@pytest.mark.parametrize('penalties', [(1e-4, 3.0), (3.0, 1e-4)])
def test_each_layer_gets_its_own_best_penalty(penalties):
    """Weights held near zero answer with the frequent class: best on noise, worst where the classes are separable."""
    rng = np.random.default_rng(0)
    labels = rng.choice(3, 300, p=[0.8, 0.1, 0.1])
    features = {
        'noise': rng.standard_normal((300, 200)).astype(np.float32),
        'separable': np.eye(3, 100, dtype=np.float32)[labels],
    }
    held_out = np.arange(300) % 2 == 0
    classifiers = fit_sgd(features, labels, num_classes=3, penalties=penalties, held_out=held_out, size=50)
    assert {layer: c.penalty for layer, c in classifiers.items()} == {'noise': 3.0, 'separable': 1e-4}


def test_no_held_out_example_is_an_error():
    features, labels = {'ones': np.ones((30, 2), np.float32)}, np.zeros(30, int)
    with pytest.raises(ValueError, match='no example is held out'):
        fit_sgd(features, labels, held_out=np.zeros(30, bool), epochs=1, size=10)


def test_a_wrong_number_of_steps_is_an_error():
    features, labels = {'ones': np.ones((30, 2), np.float32)}, np.zeros(30, int)
    batches = batches_of(features, labels, size=10, held_out=np.zeros(30, bool))
    options = {'dims': {'ones': 2}, 'num_classes': 2, 'penalties': (0.1,), 'epochs': 1, 'learning_rate': 0.1}
    with pytest.raises(ValueError, match='epoch 0 has 3 batches, not steps_per_epoch=4'):
        sgd_solver.fit_sgd(batches, steps_per_epoch=4, **options)
