import jax
import numpy as np
import pytest

from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import extraction
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import artifacts


@pytest.fixture(scope='module')
def variables(stage_states):
    return artifacts.select_discriminator(stage_states[artifacts].variables)


def test_pooled_features_are_the_trunks(config, batch, variables):
    extract = extraction.make_extractor(config, Devices('jit'), 0)  # one mean for each channel
    some = {'image': batch['image'][:6], 'label': np.arange(6), 'index': batch['index'][:6], 'valid': np.arange(6) != 4}
    pooled, examples = extract(variables, some)
    np.testing.assert_array_equal(examples['label'], [0, 1, 2, 3, 5])
    trunk = {kind: tree['trunk'] for kind, tree in variables.items()}
    images = extraction.augment.test_view(config, batch['image'][[0, 1, 2, 3, 5]])
    _, maps = jax.jit(architecture.make_trunk(config).apply)(trunk, images)
    assert list(maps) == list(extraction.LAYERS)
    for layer, x in maps.items():
        np.testing.assert_allclose(pooled[layer], x.mean(axis=(1, 2)), rtol=1e-4, atol=1e-4)


def test_collect_features_joins_the_batches():
    batches = [{'image': np.arange(3.0), 'label': np.arange(3)}, {'image': np.arange(3.0, 4.0), 'label': np.array([3])}]
    maps, labels = extraction.collect_features(
        lambda batch: ({'conv1': 2 * batch['image']}, {'label': batch['label']}), batches
    )
    np.testing.assert_array_equal(maps['conv1'], [0, 2, 4, 6])
    np.testing.assert_array_equal(labels, [0, 1, 2, 3])
