"""The transfer tasks whose training steps the benchmark measures, and the batches of noise that it measures them on."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import views
from artifacts_jax.training import measure
from artifacts_jax.transfer.layerwise import stage as layerwise
from artifacts_jax.transfer.voc import batches
from artifacts_jax.transfer.voc.annotations import NAMES
from artifacts_jax.transfer.voc.classification import stage as classification

IMAGENET = {'images': 1_281_167, 'classes': 1000}
STAGES = {
    'layerwise': layerwise.Stage('layerwise', **IMAGENET),
    'voc_classification': classification.Stage('voc_classification'),
}


def noise(module, config: ConfigDict) -> dict | None:
    """Returns a host batch of noise for a task of STAGES, None for another stage."""
    if module not in STAGES.values():
        return None
    random, count = np.random.default_rng(0), config.batch_size
    side = config.data.size if module is STAGES['layerwise'] else batches.SIDE
    batch = {
        'image': random.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        'index': np.arange(count, dtype=np.int32),
    }
    if module is STAGES['layerwise']:
        return {**batch, 'label': random.integers(0, IMAGENET['classes'], count, dtype=np.int32)}
    labels = random.integers(-1, 2, (count, len(NAMES)), dtype=np.int8)
    return {**batch, 'size': np.full((count, 2), (375, 500), np.int32), 'labels': labels}


def parts(module, config: ConfigDict, batch: dict | None, *, steps: int) -> dict:
    """Returns {'trunk_s': seconds of the trunk's forward pass on one device} of layerwise, {} of any other stage."""
    if module is not STAGES['layerwise']:
        return {}
    trunk, size = layerwise.make_trunk(config), layerwise.crop_size(config)
    images = views.centre(batch['image'], size)
    variables = jax.jit(trunk.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))

    def maps(variables, images):
        return trunk.apply(variables, images)[1]

    return {'trunk_s': measure.seconds(maps, variables, images, steps=steps)}
