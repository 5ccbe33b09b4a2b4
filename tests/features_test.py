import jax
import numpy as np
import pytest

from artifacts_jax import artifacts, features, models
from artifacts_jax.parallel import Devices


@pytest.fixture(scope='module')
def variables(stage_states):
    return artifacts.discriminator(stage_states[artifacts].variables)


def test_pooled_features_are_the_trunks(config, batch, variables):
    extract = features.extractor(config, Devices('jit'), 0)  # one mean for each channel
    pooled = extract(variables, {'image': batch['image'][:6]})
    trunk = {kind: tree['trunk'] for kind, tree in variables.items()}
    images = features.augment.test_view(config, batch['image'][:6])
    _, maps = jax.jit(models.make_trunk(config).apply)(trunk, images)
    assert list(maps) == list(features.LAYERS)
    for layer, x in maps.items():
        np.testing.assert_allclose(pooled[layer], x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-4)


def test_collect_takes_what_the_mask_counts():
    batches = [
        {'image': np.arange(3.0), 'label': np.array([0, 1, 2]), 'mask': np.array([True, True, True])},
        {'image': np.arange(3.0, 6.0), 'label': np.array([3, 4, 5]), 'mask': np.array([True, False, False])},
    ]
    maps, labels = features.collect(lambda batch: {'conv1': 2 * batch['image']}, batches)
    np.testing.assert_array_equal(maps['conv1'], [0, 2, 4, 6])
    np.testing.assert_array_equal(labels, [0, 1, 2, 3])
