"""The transfer tasks whose training steps the benchmark measures, and the batches of noise that it measures them on."""

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import views
from artifacts_jax.models import architecture, roi_pooling
from artifacts_jax.training import measure
from artifacts_jax.transfer.layerwise import stage as layerwise
from artifacts_jax.transfer.voc import batches
from artifacts_jax.transfer.voc.annotations import NAMES
from artifacts_jax.transfer.voc.classification import stage as classification
from artifacts_jax.transfer.voc.detection import canvases, presets
from artifacts_jax.transfer.voc.detection import stage as detection
from artifacts_jax.transfer.voc.segmentation import stage as segmentation

IMAGENET = {'images': 1_281_167, 'classes': 1000}
STAGES = {
    'layerwise': layerwise.Stage('layerwise', **IMAGENET),
    'voc_classification': classification.Stage('voc_classification'),
    'voc_detection': detection.Stage('voc_detection'),
    'voc_segmentation': segmentation.Stage('voc_segmentation'),
}
OBJECTS = 3  # in an image of noise


def noise(module, config: ConfigDict) -> dict | None:
    """Returns a host batch of noise for a task of STAGES, None for another stage."""
    if module not in STAGES.values():
        return None
    if module is STAGES['voc_detection']:
        return _regions(config)
    random, count = np.random.default_rng(0), config.batch_size
    side = config.data.size if module is STAGES['layerwise'] else batches.SIDE
    batch = {
        'image': random.integers(0, 256, (count, side, side, 3), dtype=np.uint8),
        'index': np.arange(count, dtype=np.int32),
    }
    if module is STAGES['layerwise']:
        return {**batch, 'label': random.integers(0, IMAGENET['classes'], count, dtype=np.int32)}
    if module is STAGES['voc_segmentation']:
        labels = random.integers(0, 1 + len(NAMES), (count, side, side), dtype=np.uint8)
        return {**batch, 'size': np.full((count, 2), side, np.int32), 'labels': labels}
    labels = random.integers(-1, 2, (count, len(NAMES)), dtype=np.int8)
    return {**batch, 'size': np.full((count, 2), (375, 500), np.int32), 'labels': labels}


def parts(module, config: ConfigDict, batch: dict | None, *, steps: int) -> dict:
    """Returns the seconds of parts of a step on one device, {} of most stages.

    They are 'trunk_s', the trunk's forward pass, of layerwise, and 'pooling_s', RoI pooling and its gradient, of
    voc_detection.
    """
    if module is STAGES['voc_detection']:
        return {'pooling_s': _pooling(config, batch, steps)}
    if module is not STAGES['layerwise']:
        return {}
    trunk, size = layerwise.make_trunk(config), layerwise.crop_size(config)
    images = views.centre(batch['image'], size)
    variables = jax.jit(trunk.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))

    def maps(variables, images):
        return trunk.apply(variables, images)[1]

    return {'trunk_s': measure.seconds(maps, variables, images, steps=steps)}


def _regions(config):
    """Returns a batch of noise with proposals, most of which overlap an object, as wide as most of VOC's images."""
    random, count, most = np.random.default_rng(0), config.batch_size, config.voc_detection.boxes
    scales, longest = presets.seen_at(config)
    height, width = next(size for size in canvases.sizes(scales['train'], longest) if size[0] < size[1])
    size = (round(height / 1.6), round(width / 1.6))
    corners = random.uniform(0, 0.5, (count, OBJECTS, 2)) * size[::-1]
    objects = np.concatenate([corners, corners + random.uniform(0.2, 0.5, corners.shape) * size[::-1]], axis=2)
    sides = np.tile(objects[..., 2:] - objects[..., :2], 2)
    which = random.integers(0, OBJECTS, (count, most))[..., None]
    near, sides = (np.take_along_axis(x, which, axis=1) for x in (objects, sides))
    proposals = near + random.uniform(-0.4, 0.4, near.shape) * sides
    proposals[..., 2:] = np.maximum(proposals[..., 2:], proposals[..., :2] + 1)
    return {
        'image': random.integers(0, 256, (count, height, width, 3), dtype=np.uint8),
        'size': np.full((count, 2), (height, width), np.int32),
        'scale': np.full(count, 1.6, np.float32),
        'mirrored': np.arange(count) % 2 > 0,
        'width': np.full(count, size[1], np.int32),
        'proposals': np.clip(proposals, 0, np.tile(size[::-1], 2) - 1).astype(np.float32),
        'there': np.ones((count, most), bool),
        'objects': objects.astype(np.float32),
        'labels': random.integers(0, len(NAMES), (count, OBJECTS)).astype(np.int32),
        'object_there': np.ones((count, OBJECTS), bool),
        'index': np.arange(count, dtype=np.int32),
    }


def _pooling(config, batch, steps):
    """Returns the seconds of RoI pooling of a batch's regions, and of its gradient."""
    model, keys = (
        architecture.make_detector(config, len(NAMES)),
        jax.random.split(jax.random.key(0), len(batch['index'])),
    )
    normal = {'means': np.zeros((len(NAMES), 4), np.float32), 'deviations': np.ones((len(NAMES), 4), np.float32)}
    regions = jax.jit(lambda keys: detection.sample(config, keys, batch, normal))(keys)
    boxes = regions.boxes * batch['scale'][:, None, None]
    stride = 4 * config.model.conv1_stride
    rows, columns = (side // stride + 1 for side in batch['image'].shape[1:3])
    shape = (len(keys), rows, columns, config.model.widths[-1])
    features = jax.random.normal(jax.random.key(1), shape, model.trunk.dtype)

    def loss(features, boxes, mask):
        return jnp.square(roi_pooling.pool(features, boxes, mask, scale=1 / stride)).sum()

    return measure.seconds(jax.value_and_grad(loss), features, boxes, regions.mask, steps=steps)
