import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from artifacts_jax import benchmark
from artifacts_jax.data import augment, splits
from artifacts_jax.devices.parallel import Devices, mean
from artifacts_jax.models import architecture
from artifacts_jax.pretraining import artifacts, losses, optim
from artifacts_jax.training import keys, loop, report
from artifacts_jax.transfer.stage import TrunkStage
from artifacts_jax.transfer.voc.detection import stage as detection


@pytest.mark.parametrize('name', benchmark.TASKS)
def test_sample_batches_have_the_form_that_the_step_needs(name, config):
    config.layerwise.crop_size = config.voc_classification.crop_size = 12
    config.voc_detection.update(hidden=8, boxes=50, scales=(24,), longest=40)
    config.voc_segmentation.hidden = 8
    module, key = benchmark.load_stages()[name], keys.stage_key(0, name)
    base = jax.eval_shape(partial(artifacts.init_state, config=config), key, None).variables
    state = jax.eval_shape(partial(module.init_state, config=config), key, base)
    batch = module.sample_batch(config)
    after, values = jax.eval_shape(partial(module.train_step, config=config), state, batch, key)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, state)
    assert all(value.shape == () for value in values.values())


def test_the_time_of_the_trunk_is_measured(config):
    config.layerwise.crop_size, config.batch_size = 12, 2
    stage = benchmark.load_stages()['layerwise']
    assert stage.time_components(config, stage.sample_batch(config), 1)['trunk_s'] > 0


@pytest.mark.slow
def test_the_time_of_pooling_is_measured_on_positive_and_negative_regions(config):
    config.voc_detection.update(hidden=8, boxes=200, scales=(48,), longest=80, regions=16)
    config.batch_size, stage = 2, detection.BENCHMARK
    batch = stage.sample_batch(config)
    assert stage.time_components(config, batch, 1)['pooling_s'] > 0
    normal = {'means': np.zeros((20, 4), np.float32), 'deviations': np.ones((20, 4), np.float32)}
    keys = jax.random.split(jax.random.key(0), 2)
    drawn = detection.sample_rois(config, keys, batch, normal)
    assert drawn.valid.all()
    np.testing.assert_array_equal((drawn.labels > 0).sum(axis=1), 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Supervised(TrunkStage):
    """Trains the trunk from random weights to classify images."""

    BASE = None
    PROGRESS_METRICS = {'accuracy': 'accuracy'}  # noqa: RUF012 (ClassVar, as in TrunkStage)

    def get_steps_and_batch_size(self, config):
        return 40, 12

    def init_variables(self, key, trunk, config):
        assert trunk is None
        size = config.model.image_size
        return self._model(config).init(key, jnp.zeros((1, size, size, 3))), None

    def make_optimiser(self, config):
        return optim.adam(1e-2, config)

    def prepare_inputs(self, variables, batch, key, step, *, config, axis_name):
        return augment.test_view(config, batch['image']), batch['label']

    def compute_losses(self, variables, inputs, *, config, axis_name):
        images, labels = inputs
        model = self._model(config, axis_name)
        logits, updates = model.apply(variables, images, train=True, mutable=['batch_stats'])
        return {'loss/class': mean(losses.class_loss(logits, labels), axis_name)}, updates['batch_stats']

    def compute_metrics(self, predicted, dataset):
        return {'accuracy': predicted}

    def _model(self, config, axis_name=None):
        return architecture.make_classifier('linear', 2, config=config, axis_name=axis_name)


def test_a_stage_may_train_the_trunk_from_random_weights(config, photograph_folder, tmp_path):
    config.data.name, config.stl10.batch_norm, config.log_every = str(photograph_folder), 'reference', 1
    config.update(eval_every=100, figure_every=100, checkpoint_every=100)
    stage = Supervised(NAME='supervised', evaluate_fn=lambda variables, dataset, limit: 0.5)
    devices = Devices('jit', jax.devices()[:1])
    begun = loop.make_initial_state(stage, config, devices, None)
    state = loop.run(stage, config, tmp_path, devices, splits.Datasets(config), None)
    assert set(state.params) == {'head', 'trunk'}
    assert not np.array_equal(*(x.params['trunk']['conv1']['group0']['kernel'] for x in (begun, state)))
    values = [
        row['train/loss/class']
        for row in report.read_metrics(tmp_path / 'supervised' / 'metrics.jsonl')
        if 'train/loss/class' in row
    ]
    assert np.mean(values[-5:]) < 0.8 * np.mean(values[:5])
