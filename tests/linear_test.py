import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from artifacts_jax import linear

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


def accuracy(classifier, features, labels):
    correct, count = linear.accuracy_counts(classifier, features, labels, np.ones(len(labels), bool))
    return int(correct) / int(count)


def fit_lbfgs(features, labels, *, num_classes=10, penalties=PENALTIES, held_out=0.2, iterations=100):
    options = {
        'num_classes': num_classes,
        'penalties': penalties,
        'held_out': held_out,
        'iterations': iterations,
    }
    return linear.fit_lbfgs(features, labels, **options, key=jax.random.key(0))


def batches_of(features, labels, *, size, held_out):
    """Returns a batches_fn of shuffled epochs, whose last batch is padded with what must be ignored."""

    def batches(epoch):
        order = np.random.default_rng(epoch).permutation(len(labels))
        for start in range(0, len(order), size):
            real = order[start : start + size]
            index = np.resize(real, size)
            mask = np.arange(size) < len(real)
            yield (
                np.where(mask[:, None], features[index], 1e3),
                np.where(mask, labels[index], -1),
                mask,
                held_out[index],
            )

    return batches


def fit_sgd(features, labels, *, held_out, num_classes=10, penalties=PENALTIES, epochs=30, size=100):
    return linear.fit_sgd(
        batches_of(features, labels, size=size, held_out=held_out),
        dim=features.shape[1],
        num_classes=num_classes,
        penalties=penalties,
        epochs=epochs,
        steps_per_epoch=-(-len(labels) // size),
        learning_rate=0.1,
    )


@pytest.mark.parametrize(
    ('shape', 'max_values', 'grid'),
    [
        ((2, 6, 6, 4), 144, 6),
        ((2, 6, 6, 4), 143, 5),
        ((2, 6, 6, 4), 36, 3),
        ((2, 7, 7, 3), 50, 4),
        ((2, 9, 5, 2), 1000, 5),
        ((2, 6, 6, 4), 3, 1),
    ],
)
def test_pool_averages_the_cells_of_the_largest_grid_that_fits(shape, max_values, grid):
    features = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    _, height, width, channels = shape

    def cell(i, size):
        return slice(i * size // grid, int(np.ceil((i + 1) * size / grid)))

    expected = np.zeros((2, grid, grid, channels))
    for i in range(grid):
        for j in range(grid):
            expected[:, i, j] = features[:, cell(i, height), cell(j, width)].mean(axis=(1, 2))
    actual = linear.pool(jnp.asarray(features), max_values)
    np.testing.assert_allclose(actual, expected.reshape(2, -1), rtol=1e-5, atol=1e-6)


def test_pool_leaves_a_map_that_fits_unchanged():
    features = jnp.arange(2 * 3 * 3 * 2, dtype=jnp.bfloat16).reshape(2, 3, 3, 2)
    pooled = linear.pool(features, 18)
    assert pooled.dtype == features.dtype
    np.testing.assert_array_equal(pooled, features.reshape(2, 18))


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


def test_lbfgs_and_sgd_agree_on_unseen_examples(digits):
    features, labels = digits[0][:LEARNT], digits[1][:LEARNT]
    unseen = digits[0][LEARNT:], digits[1][LEARNT:]
    held_out = np.arange(LEARNT) % 5 == 0
    by_lbfgs, by_sgd = fit_lbfgs(features, labels), fit_sgd(features, labels, held_out=held_out)
    assert accuracy(by_lbfgs, *unseen) > 0.94
    assert accuracy(by_sgd, *unseen) == pytest.approx(accuracy(by_lbfgs, *unseen), abs=0.02)
    assert by_sgd.held_out_accuracy == pytest.approx(accuracy(by_sgd, features[held_out], labels[held_out]))


def test_sgd_standardises_by_the_counted_training_examples(digits):
    features, labels = digits
    held_out = np.arange(len(labels)) % 5 == 0
    classifier = fit_sgd(features, labels, held_out=held_out, epochs=1)
    deviation = features[~held_out].std(axis=0)
    np.testing.assert_allclose(classifier.mean, features[~held_out].mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(classifier.scale, np.where(deviation > 0, deviation, 1), rtol=1e-4)


def test_sgd_does_not_learn_from_held_out_examples(digits):
    features, labels = digits[0][:300], digits[1][:300]
    held_out = np.arange(300) % 3 == 0
    altered = np.where(held_out[:, None], 100 * features, features), np.where(held_out, 0, labels)
    one = fit_sgd(features, labels, held_out=held_out, penalties=(1e-3,), epochs=2)
    two = fit_sgd(*altered, held_out=held_out, penalties=(1e-3,), epochs=2)
    np.testing.assert_allclose(one.weights, two.weights, atol=1e-6)


def overfitted(rng):
    """Fewer examples than features, 30 % of the labels wrong: a weak penalty learns them by heart."""
    truth = rng.integers(0, 2, 300)
    features = 0.7 * (2 * truth[:, None] - 1) + rng.standard_normal((300, 200))
    return features, np.where(rng.uniform(size=300) < 0.3, 1 - truth, truth), 1.0


def underfitted(rng):
    """Two rare classes, perfectly separable: weights held near zero always answer with the frequent class."""
    labels = rng.choice(3, 300, p=[0.8, 0.1, 0.1])
    return np.eye(3, 200)[labels], labels, 1e-4


@pytest.mark.parametrize('solver', ['lbfgs', 'sgd'])
@pytest.mark.parametrize('problem', [overfitted, underfitted])
def test_the_obviously_best_penalty_is_picked(solver, problem):
    features, labels, best = problem(np.random.default_rng(0))
    features = features.astype(np.float32)
    options = {'num_classes': 3, 'penalties': (1e-4, 1.0) if best == 1.0 else (10.0, 1e-4)}
    if solver == 'lbfgs':
        classifier = fit_lbfgs(features, labels, held_out=0.5, **options)
    else:
        classifier = fit_sgd(features, labels, held_out=np.arange(300) % 2 == 0, size=50, **options)
    assert classifier.penalty == best


def test_constant_features_change_nothing(digits):
    features, labels = digits[0][:LEARNT], digits[1][:LEARNT]
    assert (features[:, 0] == 0).all()
    shifted = np.concatenate([np.full((LEARNT, 1), 0.1, np.float32), features[:, 1:]], axis=1)
    classifier, expected = (fit_lbfgs(x, labels, penalties=(1e-2,)) for x in (shifted, features))
    assert classifier.scale[0] == 1
    assert classifier.mean[0] == np.float32(0.1)
    np.testing.assert_allclose(classifier.weights[0], 0, atol=1e-6)
    np.testing.assert_allclose(classifier.weights, expected.weights, atol=1e-3)


def test_accuracy_counts_leave_padding_out():
    identity = linear.Classifier(jnp.zeros(3), jnp.ones(3), jnp.eye(3), jnp.zeros(3), 0.0, 0.0)
    features, labels = jnp.eye(3)[jnp.asarray([0, 1, 2, 2])], jnp.asarray([0, 1, 1, 2])
    counts = linear.accuracy_counts(identity, features, labels, jnp.asarray([True, True, True, False]))
    assert [int(n) for n in counts] == [2, 3]


@pytest.mark.parametrize('held_out', [0.0, 1.0])
def test_an_empty_part_is_an_error(held_out):
    with pytest.raises(ValueError, match='held_out='):
        fit_lbfgs(np.ones((10, 2), np.float32), np.zeros(10, int), held_out=held_out)


def test_labels_out_of_range_are_an_error():
    with pytest.raises(ValueError, match='from 0 to 9'):
        fit_lbfgs(np.ones((10, 2), np.float32), np.arange(1, 11))


def test_sgd_errors_name_what_is_wrong():
    features, labels = np.ones((30, 2), np.float32), np.zeros(30, int)
    with pytest.raises(ValueError, match='no example is held out'):
        fit_sgd(features, labels, held_out=np.zeros(30, bool), epochs=1, size=10)
    batches = batches_of(features, labels, size=10, held_out=np.zeros(30, bool))
    options = {'dim': 2, 'num_classes': 2, 'penalties': (0.1,), 'epochs': 1, 'learning_rate': 0.1}
    with pytest.raises(ValueError, match='epoch 0 has 3 batches, not steps_per_epoch=4'):
        linear.fit_sgd(batches, steps_per_epoch=4, **options)
