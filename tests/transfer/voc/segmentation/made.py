"""Shared by the segmentation tests: a small configuration of the task, its data, and untrained networks."""

import jax
import jax.numpy as jnp

from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import loop
from artifacts_jax.transfer.voc.segmentation import lists
from artifacts_jax.transfer.voc.segmentation import segmenter as segmentation
from tests.conftest import tiny

ONE = Devices('jit', jax.devices()[:1])


def small(folder, **options):
    config = tiny()
    config.stages, config.pretrained = ('voc_segmentation',), 'random'
    config.data.update(name=str(folder), probe_train='train', test='val', workers=2)
    config.voc_segmentation.update(steps=6, batch_size=4, hidden=8)
    config.voc_segmentation.update(options)
    config.eval_every = 100
    return config


def start():
    """Returns the variables of the artifacts stage at step 0."""
    return loop.make_initial_state(artifacts, tiny(), ONE, None).variables


def images(config):
    """Returns (the training images, {list name: test images}) of a configuration."""
    return lists.open_lists(config).images(config)


def segmenter(config):
    """Returns random variables of the configured segmenter; its classes have different scores."""
    config.voc_segmentation.hidden = 8
    params = jax.jit(segmentation.make_network(config).init)(jax.random.key(0), jnp.zeros((1, 1, 1, 3)))['params']
    for name in ('fc6', 'fc7'):
        params['head'][name]['kernel'] *= 100
    shape = params['head']['score']['kernel'].shape
    params['head']['score']['kernel'] = jax.random.normal(jax.random.key(1), shape)
    params['head']['score']['bias'] = -0.1 * jnp.arange(shape[-1])
    return {'params': params, 'batch_stats': {}}
