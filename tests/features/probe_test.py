import jax
import numpy as np
import pytest

from artifacts_jax.data import splits
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import probe
from artifacts_jax.pretraining import artifacts


@pytest.mark.slow
@pytest.mark.parametrize('solver', ['lbfgs', 'sgd'])
def test_every_layer_is_probed_by_either_solver(config, photograph_folder, stage_states, solver):
    config.data.name = str(photograph_folder)
    config.probe.update(solver=solver, penalties=(1e-3, 1e-2), held_out=0.25, epochs=10)
    variables = artifacts.select_discriminator(stage_states[artifacts].variables)
    datasets = splits.Datasets(config)
    results = probe.probe(config, Devices('jit', jax.devices()[:1]), datasets, variables)
    assert list(results) == ['conv1', 'conv2', 'conv3', 'conv4', 'conv5']
    for row in results.values():
        assert row['count'] == 20
        assert row['penalty'] in (1e-3, 1e-2)
        assert row['accuracy'] == 100 * row['correct'] / 20
    # Two photographs of very different colours: chance is 50.
    assert np.mean([row['accuracy'] for row in results.values()]) > 60


def test_table_has_every_layer_network_and_count():
    row = {'accuracy': 50.0, 'correct': 5, 'count': 10}
    results = {
        'dataset': 'cifar10',
        'train': 1000,
        'test': 10,
        'probe': {
            'pixels': {'pixels': {**row, 'accuracy': 30.0}},
            'random': {'conv1': row},
            'learned': {'conv1': {**row, 'accuracy': 62.5}},
        },
    }
    table = probe.table(results)
    for text in ('cifar10, 1,000 training and 10 test images', 'random', '50.00', '62.50', '5 / 10', 'pixels: 30.00'):
        assert text in table


def test_table_without_networks_has_the_pixels():
    pixels = {'accuracy': 30.0, 'correct': 3, 'count': 10}
    results = {'dataset': 'cifar10', 'train': 9, 'test': 10, 'probe': {'pixels': {'pixels': pixels}}}
    assert 'raw pixels: 30.00 % (3 / 10)' in probe.table(results)
