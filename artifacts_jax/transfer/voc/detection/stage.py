"""The training of Fast R-CNN on VOC's objects, as the loop runs it, by the published protocol: every constant.

Source: rbgirshick/fast-rcnn, models/CaffeNet/{solver,train}.prototxt and tools/train_net.py; targets.py, boxes.py and
detector.py have those of regions and of detections.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int32, Key
from ml_collections import ConfigDict

from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import total
from artifacts_jax.models import alexnet, architecture, fast_rcnn, roi_pooling
from artifacts_jax.models import boxes as geometry
from artifacts_jax.training import caffe_sgd, keys, measure
from artifacts_jax.transfer import rescaling
from artifacts_jax.transfer.stage import TrunkStage
from artifacts_jax.transfer.voc import average_precision
from artifacts_jax.transfer.voc.detection import detections, scales, targets

DECAY = 5e-4  # of weights; biases have none
BIAS_RATE = 2.0
DROP = 0.1  # the learning rate becomes this part of it, once
INIT_IMAGES = 32  # whose regions new layers are initialised by


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(TrunkStage):
    """The training. Its networks are 'trunk' and 'head'; 'targets' normalises moves of boxes."""

    PROGRESS_METRICS = {'mAP': 'map'}  # noqa: RUF012 (ClassVar, as in TrunkStage)

    def plan(self, config):
        """As TrunkStage.plan."""
        options = config.voc_detection
        return options.steps or scales.PRESETS[options.preset].steps, options.batch_size

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: head and trunk are trained."""
        side = max(config.model.kernels[0], 8 * config.model.conv1_stride)
        image, box = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 1, 4))
        drawn = _network(config).init(key, image, box, jnp.ones((1, 1), bool))['params']
        params = {'head': drawn['head'], 'trunk': alexnet.fold_batch_norm(trunk)['params']}
        normal = {'means': jnp.zeros((len(NAMES), 4)), 'deviations': jnp.ones((len(NAMES), 4))}
        return {'params': params, 'batch_stats': {}}, {'params': {'targets': normal}, 'batch_stats': {}}

    def is_trained(self, path, config):
        """As TrunkStage.is_trained: all but the first layers, of which `frozen` says how many."""
        return path[0].key != 'trunk' or int(path[1].key.removeprefix('conv')) > config.voc_detection.frozen

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: the preset's."""
        preset, (steps, _) = scales.PRESETS[config.voc_detection.preset], self.plan(config)
        rate = config.voc_detection.learning_rate or preset.learning_rate
        drop_step = max(1, round(preset.drop_step * steps / preset.steps))

        def is_bias(path):
            return path[-1].key == 'bias'

        return caffe_sgd.caffe_sgd(
            optax.piecewise_constant_schedule(rate, {drop_step: DROP}),
            form='caffe',
            decay=lambda path: DECAY if self.is_trained(path, config) and not is_bias(path) else 0.0,
            multiplier=lambda path: BIAS_RATE if is_bias(path) else 1.0,
        )

    def prepare_inputs(self, variables, batch, key, step, *, config, axis_name):
        """As TrunkStage.prepare_inputs: images, regions, scaled boxes, keys for dropout, and the number of regions."""
        sample_keys, *dropout_keys = keys.example_keys(key, step, batch['index'], 3)
        images = fast_rcnn.preprocess(batch['image'], batch['size'])
        regions = sample_rois(config, sample_keys, batch, variables['params']['targets'])
        boxes = regions.boxes * batch['scale'][:, None, None]
        count = jnp.maximum(total(regions.mask.sum(), axis_name), 1)
        return images, regions, boxes, jnp.stack(dropout_keys, axis=1), count

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: the losses of classes and boxes, means over the regions."""
        del axis_name
        images, regions, boxes, dropout_keys, count = inputs
        params = {name: variables['params'][name] for name in ('head', 'trunk')}
        scores, moves = _network(config).apply({'params': params}, images, boxes, regions.mask, dropout_keys)
        values = {
            'loss/class': class_loss(scores, regions.labels, regions.mask) / count,
            'loss/boxes': box_loss(moves, regions.targets, regions.labels) / count,
            'regions/all': regions.mask.sum().astype(jnp.float32),
            'regions/foreground': (regions.labels > 0).sum().astype(jnp.float32),
        }
        return values, {}

    def initialise_params(self, key, params, config, devices, dataset):
        """As TrunkStage.initialise_params: the statistics of targets, and new layers as `rescale` says."""
        statistics = targets.compute_split_statistics(dataset.records, dataset.proposals)
        normal = dict(zip(('means', 'deviations'), statistics))
        params = {**params, 'targets': normal}
        if config.voc_detection.rescale == 'none':
            return params
        pooled = _pool_first_rois(config, devices, params, dataset)
        head = rescaling.initialise_connected(key, params['head'], pooled, config.voc_detection.hidden)
        return {**params, 'head': head}

    def compute_metrics(self, predicted, dataset):
        """Returns {'map': in %} of what is detected."""
        return {'map': 100 * (average_precision.mean(compute_average_precisions(dataset.records, predicted)) or 0.0)}

    def plot(self, state, dataset, folder):
        """Writes detections.png of the first test images."""
        found = self.predict(state.variables, dataset, limit=detections.NUM_PHOTOGRAPHS)
        if processes.is_first():
            detections.plot_detections(folder / detections.FIGURE, dataset.records, found, step=int(state.step))

    def sample_batch(self, config):
        """Returns noise as wide as most of VOC's images, with proposals most of which overlap an object."""
        random, count, most = np.random.default_rng(0), config.batch_size, config.voc_detection.boxes
        seen, longest = scales.resolve_scales(config)
        height, width = next(size for size in scales.compute_padded_sizes(seen['train'], longest) if size[0] < size[1])
        size = (round(height / 1.6), round(width / 1.6))
        corners = random.uniform(0, 0.5, (count, NOISE_OBJECTS, 2)) * size[::-1]
        objects = np.concatenate([corners, corners + random.uniform(0.2, 0.5, corners.shape) * size[::-1]], axis=2)
        sides = np.tile(objects[..., 2:] - objects[..., :2], 2)
        which = random.integers(0, NOISE_OBJECTS, (count, most))[..., None]
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
            'valid_proposals': np.ones((count, most), bool),
            'objects': objects.astype(np.float32),
            'labels': random.integers(0, len(NAMES), (count, NOISE_OBJECTS)).astype(np.int32),
            'valid_objects': np.ones((count, NOISE_OBJECTS), bool),
            'index': np.arange(count, dtype=np.int32),
        }

    def time_components(self, config, batch, steps):
        """Returns {'pooling_s': seconds of RoI pooling of a batch's regions, and of its gradient}."""
        model, sample_keys = _network(config), jax.random.split(jax.random.key(0), len(batch['index']))
        normal = {'means': np.zeros((len(NAMES), 4), np.float32), 'deviations': np.ones((len(NAMES), 4), np.float32)}
        regions = jax.jit(lambda keys: sample_rois(config, keys, batch, normal))(sample_keys)
        boxes = regions.boxes * batch['scale'][:, None, None]
        stride = 4 * config.model.conv1_stride
        rows, columns = (side // stride + 1 for side in batch['image'].shape[1:3])
        shape = (len(sample_keys), rows, columns, config.model.widths[-1])
        features = jax.random.normal(jax.random.key(1), shape, model.trunk.dtype)

        def loss(features, boxes, mask):
            return jnp.square(roi_pooling.pool(features, boxes, mask, scale=1 / stride)).sum()

        seconds = measure.measure_seconds(jax.value_and_grad(loss), features, boxes, regions.mask, steps=steps)
        return {'pooling_s': seconds}


def class_loss(
    scores: Float[Array, 'B R K'], labels: Int32[Array, 'B R'], mask: Bool[Array, 'B R']
) -> Float[Array, '']:
    """Returns the sum over regions of the cross-entropy.

    Args:
      scores: of background, which is 0, and of the classes.
      labels: the class of each region.
      mask: False for what pads the regions.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    return jnp.where(mask, losses, 0.0).sum()


def box_loss(
    moves: Float[Array, 'B R K 4'], targets: Float[Array, 'B R 4'], labels: Int32[Array, 'B R']
) -> Float[Array, '']:
    """Returns the sum over foreground, and over the four numbers of a box, of the smooth L1 distance.

    It is half the square of distances below 1, and the distance less a half beyond. Only the moves of a region's own
    class count. Source: caffe-fast-rcnn, src/caffe/layers/smooth_L1_loss_layer.cpp.

    Args:
      moves: for each class, normalised; those of background, which is 0, are not used.
      targets: normalised.
      labels: the class of each region; 0 for background, and for what pads the regions.
    """
    own = jnp.take_along_axis(moves, labels[..., None, None], axis=2)[:, :, 0]
    losses = optax.huber_loss(own, targets, delta=1.0).sum(axis=-1)
    return jnp.where(labels > 0, losses, 0.0).sum()


def sample_rois(config: ConfigDict, sample_keys: Key[Array, ' B'], batch: dict, normal: dict) -> targets.RoiSample:
    """Returns the regions of each image that a step learns from, in the pixels of the images before they are scaled.

    Args:
      config: the run's configuration.
      sample_keys: one for each image.
      batch: as of batches.py.
      normal: {'means', 'deviations'} of targets.
    """

    def one(key, mirrored, width, proposals, valid_proposals, objects, labels, valid_objects):
        proposals, objects = (jnp.where(mirrored, geometry.flip(x, width), x) for x in (proposals, objects))
        given = key, proposals, valid_proposals, objects, labels, valid_objects
        return targets.sample_rois(*given, **normal, count=config.voc_detection.regions)

    names = 'mirrored', 'width', 'proposals', 'valid_proposals', 'objects', 'labels', 'valid_objects'
    return jax.vmap(one)(sample_keys, *(batch[name] for name in names))


def compute_average_precisions(records: Sequence, found: dict) -> list[float | None]:
    """Returns the average precision of each class, in [0, 1], None of one without objects.

    Args:
      records: of the split.
      found: {position in the split: Detections} of the images that count.
    """
    return detections.compute_average_precisions([records[n].objects for n in found], list(found.values()))


def _network(config):
    return architecture.make_detector(config, len(NAMES))


def _pool_first_rois(config, devices, params, images):
    """Returns the bins of regions of the first training images [N, D], the same on all hosts."""
    model, key = _network(config), keys.stage_key(config.seed, 'voc_detection/rescale')
    batch_size, found, batches = config.voc_detection.batch_size, [], None

    def look(variables, batch):
        (sample_keys,) = keys.example_keys(key, batch['step'][0], batch['index'], 1)
        regions = sample_rois(config, sample_keys, batch, variables['params']['targets'])
        seen, boxes = fast_rcnn.preprocess(batch['image'], batch['size']), regions.boxes * batch['scale'][:, None, None]
        return model.apply({'params': variables['params']}, seen, boxes, regions.mask, method='pool'), regions.mask

    mapped, batches = devices.per_example(look), images.train_batches(batch_size)
    for step in range(-(-INIT_IMAGES // batch_size)):
        batch = next(batches)
        pooled, mask = mapped({'params': params}, {**batch, 'step': np.full(len(batch['index']), step, np.int32)})
        found.append(pooled[mask].reshape(mask.sum(), -1))
    return jnp.asarray(np.concatenate(found), jnp.float32)


NOISE_OBJECTS = 3  # in a benchmark's image of noise
BENCHMARK = Stage(NAME='voc_detection')
