from functools import partial

import jax
import numpy as np
import pytest

from artifacts_jax import benchmark
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import keys
from artifacts_jax.transfer.voc.detection import stage as detection


@pytest.mark.parametrize('name', benchmark.TASKS)
def test_a_batch_of_noise_is_what_the_step_takes(name, config):
    config.layerwise.crop_size = config.voc_classification.crop_size = 12
    config.voc_detection.update(hidden=8, boxes=50, scales=(24,), longest=40)
    config.voc_segmentation.hidden = 8
    module, key = benchmark.stages()[name], keys.stage_key(0, name)
    base = jax.eval_shape(partial(artifacts.init_state, config=config), key, None).variables
    state = jax.eval_shape(partial(module.init_state, config=config), key, base)
    batch = module.sample_batch(config)
    after, values = jax.eval_shape(partial(module.train_step, config=config), state, batch, key)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, state)
    assert all(value.shape == () for value in values.values())


def test_the_trunks_share_is_measured(config):
    config.layerwise.crop_size, config.batch_size = 12, 2
    stage = benchmark.stages()['layerwise']
    assert stage.measure_parts(config, stage.sample_batch(config), 1)['trunk_s'] > 0


@pytest.mark.slow
def test_the_share_of_pooling_is_measured_on_regions_of_both_kinds(config):
    config.voc_detection.update(hidden=8, boxes=200, scales=(48,), longest=80, regions=16)
    config.batch_size, stage = 2, detection.BENCHMARK
    batch = stage.sample_batch(config)
    assert stage.measure_parts(config, batch, 1)['pooling_s'] > 0
    normal = {'means': np.zeros((20, 4), np.float32), 'deviations': np.ones((20, 4), np.float32)}
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = detection.sample(config, keys, batch, normal)
    assert drawn.mask.all()
    np.testing.assert_array_equal((drawn.labels > 0).sum(axis=1), 4)
