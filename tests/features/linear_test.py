import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax.features import linear


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


def test_accuracy_counts_correct_predictions():
    identity = linear.Classifier(jnp.zeros(3), jnp.ones(3), jnp.eye(3), jnp.zeros(3), 0.0, 0.0)
    features, labels = jnp.eye(3)[jnp.asarray([0, 1, 2, 2])], jnp.asarray([0, 1, 1, 2])
    counts = linear.compute_accuracy_counts(identity, features, labels)
    assert [int(n) for n in counts] == [3, 4]
