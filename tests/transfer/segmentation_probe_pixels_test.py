import numpy as np
import pytest
from scipy import ndimage

from artifacts_jax.transfer import segmentation_probe


@pytest.mark.parametrize('cells', [(3, 4), (1, 5), (7, 1)])
def test_features_of_pixels_equal_those_of_upsampled_maps(cells):
    random, size = np.random.default_rng(0), (11, 17)
    grid = random.normal(size=(*cells, 3)).astype(np.float32)
    pixels = np.stack([random.integers(0, side, 40) for side in size], axis=1)
    whole = segmentation_probe.upsample(grid, size)
    np.testing.assert_allclose(
        segmentation_probe.interpolate(grid, pixels, size), whole[pixels[:, 0], pixels[:, 1]], rtol=1e-5, atol=1e-6
    )


def test_upsampling_equals_scipys():
    grid, size = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32), (9, 20)
    positions = np.meshgrid(
        *((np.arange(side) + 0.5) * n / side - 0.5 for side, n in zip(size, grid.shape)), indexing='ij'
    )
    expected = [ndimage.map_coordinates(grid[..., n], positions, order=1, mode='nearest') for n in range(2)]
    np.testing.assert_allclose(
        segmentation_probe.upsample(grid, size), np.stack(expected, axis=2), rtol=1e-5, atol=1e-6
    )


def test_sampled_pixels_have_a_class_and_are_different():
    mask = np.full((6, 8), 255, np.uint8)
    mask[2:5, 1:4] = np.arange(9).reshape(3, 3)
    pixels, labels = segmentation_probe.sample_pixels(mask, 100, np.random.default_rng(0))
    assert sorted(labels.tolist()) == list(range(9))
    np.testing.assert_array_equal(mask[pixels[:, 0], pixels[:, 1]], labels)
    few, _ = segmentation_probe.sample_pixels(mask, 4, np.random.default_rng(0))
    assert len({tuple(pixel) for pixel in few.tolist()}) == 4
    assert segmentation_probe.sample_pixels(np.full((2, 2), 255, np.uint8), 4, np.random.default_rng(0))[1].size == 0
