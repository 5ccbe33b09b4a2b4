"""The training stage of Fast R-CNN on VOC's objects, with every constant of the published protocol.

Source: rbgirshick/fast-rcnn, models/CaffeNet/solver.prototxt and train.prototxt, and tools/train_net.py. The sources
of RoI sampling, box coordinates and detection are in targets.py, models/boxes.py and detector.py.
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

DECAY = 5e-4  # weight decay of kernels; biases have none
BIAS_RATE = 2.0  # factor on the learning rate of biases
DROP = 0.1  # factor on the learning rate at its only drop
INIT_IMAGES = 32  # their RoIs give the data-dependent initialisation of fc6 and fc7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(TrunkStage):
    """The training stage of Fast R-CNN.

    Its networks are 'trunk' and 'head'; the frozen tree 'targets' has the statistics that normalise box deltas.
    """

    PROGRESS_METRICS = {'mAP': 'map'}  # noqa: RUF012 (ClassVar, as in TrunkStage)

    def get_steps_and_batch_size(self, config):
        """As TrunkStage.get_steps_and_batch_size."""
        options = config.voc_detection
        return options.steps or scales.PRESETS[options.preset].steps, options.batch_size

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: trains the head and the trunk."""
        side = max(config.model.kernels[0], 8 * config.model.conv1_stride)
        image, box = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 1, 4))
        new_params = _make_network(config).init(key, image, box, jnp.ones((1, 1), bool))['params']
        params = {'head': new_params['head'], 'trunk': alexnet.fold_batch_norm(trunk)['params']}
        statistics = {'means': jnp.zeros((len(NAMES), 4)), 'deviations': jnp.ones((len(NAMES), 4))}
        return {'params': params, 'batch_stats': {}}, {'params': {'targets': statistics}, 'batch_stats': {}}

    def is_trained(self, path, config):
        """As TrunkStage.is_trained: all layers except the first `frozen` convolutional layers."""
        return path[0].key != 'trunk' or int(path[1].key.removeprefix('conv')) > config.voc_detection.frozen

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: SGD with the schedule of the preset."""
        preset, (steps, _) = scales.PRESETS[config.voc_detection.preset], self.get_steps_and_batch_size(config)
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
        """As TrunkStage.prepare_inputs: images, RoIs, scaled boxes, dropout keys, and the number of RoIs."""
        sample_keys, *dropout_keys = keys.example_keys(key, step, batch['index'], 3)
        images = fast_rcnn.preprocess(batch['image'], batch['size'])
        rois = sample_rois(config, sample_keys, batch, variables['params']['targets'])
        boxes = rois.boxes * batch['scale'][:, None, None]
        count = jnp.maximum(total(rois.valid.sum(), axis_name), 1)
        return images, rois, boxes, jnp.stack(dropout_keys, axis=1), count

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: the class and box losses, averaged over the RoIs of the global batch."""
        del axis_name
        images, rois, boxes, dropout_keys, count = inputs
        params = {name: variables['params'][name] for name in ('head', 'trunk')}
        scores, deltas = _make_network(config).apply({'params': params}, images, boxes, rois.valid, dropout_keys)
        values = {
            'loss/class': class_loss(scores, rois.labels, rois.valid) / count,
            'loss/boxes': box_loss(deltas, rois.targets, rois.labels) / count,
            'regions/all': rois.valid.sum().astype(jnp.float32),
            'regions/foreground': (rois.labels > 0).sum().astype(jnp.float32),
        }
        return values, {}

    def initialise_params(self, key, params, config, devices, dataset):
        """As TrunkStage.initialise_params: the statistics of box targets; fc6 and fc7, unless `rescale` is 'none'."""
        statistics = targets.compute_split_statistics(dataset.records, dataset.proposals)
        params = {**params, 'targets': dict(zip(('means', 'deviations'), statistics))}
        if config.voc_detection.rescale == 'none':
            return params
        pooled = _pool_first_rois(config, devices, params, dataset)
        head = rescaling.initialise_connected(key, params['head'], pooled, config.voc_detection.hidden)
        return {**params, 'head': head}

    def compute_metrics(self, outputs, dataset):
        """Returns {'map': mean average precision in %} of the detections; 0 without objects."""
        return {'map': 100 * (average_precision.mean(compute_average_precisions(dataset.records, outputs)) or 0.0)}

    def plot(self, state, dataset, folder):
        """Writes detections.png with the first test images."""
        detected = self.evaluate_fn(state.variables, dataset, limit=detections.NUM_PHOTOGRAPHS)
        if processes.is_first():
            detections.plot_detections(folder / detections.FIGURE, dataset.records, detected, step=int(state.step))

    def sample_batch(self, config):
        """As TrunkStage.sample_batch: noise in VOC's usual landscape size; most proposals overlap an object."""
        random, count, num_proposals = np.random.default_rng(0), config.batch_size, config.voc_detection.boxes
        shorter_sides, longest = scales.resolve_scales(config)
        sizes = scales.compute_padded_sizes(shorter_sides['train'], longest)
        height, width = next(size for size in sizes if size[0] < size[1])
        size = (round(height / 1.6), round(width / 1.6))
        corners = random.uniform(0, 0.5, (count, NOISE_OBJECTS, 2)) * size[::-1]
        objects = np.concatenate([corners, corners + random.uniform(0.2, 0.5, corners.shape) * size[::-1]], axis=2)
        sides = np.tile(objects[..., 2:] - objects[..., :2], 2)
        indices = random.integers(0, NOISE_OBJECTS, (count, num_proposals))[..., None]
        overlapped, sides = (np.take_along_axis(x, indices, axis=1) for x in (objects, sides))
        proposals = overlapped + random.uniform(-0.4, 0.4, overlapped.shape) * sides
        proposals[..., 2:] = np.maximum(proposals[..., 2:], proposals[..., :2] + 1)
        return {
            'image': random.integers(0, 256, (count, height, width, 3), dtype=np.uint8),
            'size': np.full((count, 2), (height, width), np.int32),
            'scale': np.full(count, 1.6, np.float32),
            'mirrored': np.arange(count) % 2 > 0,
            'width': np.full(count, size[1], np.int32),
            'proposals': np.clip(proposals, 0, np.tile(size[::-1], 2) - 1).astype(np.float32),
            'valid_proposals': np.ones((count, num_proposals), bool),
            'objects': objects.astype(np.float32),
            'labels': random.integers(0, len(NAMES), (count, NOISE_OBJECTS)).astype(np.int32),
            'valid_objects': np.ones((count, NOISE_OBJECTS), bool),
            'index': np.arange(count, dtype=np.int32),
        }

    def time_components(self, config, batch, steps):
        """Returns {'pooling_s': seconds for RoI pooling of a batch, forward and backward}."""
        model, sample_keys = _make_network(config), jax.random.split(jax.random.key(0), len(batch['index']))
        means, deviations = np.zeros((len(NAMES), 4), np.float32), np.ones((len(NAMES), 4), np.float32)
        statistics = {'means': means, 'deviations': deviations}
        rois = jax.jit(lambda keys: sample_rois(config, keys, batch, statistics))(sample_keys)
        boxes = rois.boxes * batch['scale'][:, None, None]
        stride = 4 * config.model.conv1_stride
        rows, columns = (side // stride + 1 for side in batch['image'].shape[1:3])
        shape = (len(sample_keys), rows, columns, config.model.widths[-1])
        features = jax.random.normal(jax.random.key(1), shape, model.trunk.dtype)

        def loss(features, boxes, valid):
            return jnp.square(roi_pooling.pool(features, boxes, valid, scale=1 / stride)).sum()

        seconds = measure.measure_seconds(jax.value_and_grad(loss), features, boxes, rois.valid, steps=steps)
        return {'pooling_s': seconds}


def class_loss(
    scores: Float[Array, 'B R K'], labels: Int32[Array, 'B R'], valid: Bool[Array, 'B R']
) -> Float[Array, '']:
    """Returns the sum over RoIs of the cross-entropy.

    Args:
      scores: the logits; class 0 is background.
      labels: the class of each RoI.
      valid: False for padding.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    return jnp.where(valid, losses, 0.0).sum()


def box_loss(
    deltas: Float[Array, 'B R K 4'], targets: Float[Array, 'B R 4'], labels: Int32[Array, 'B R']
) -> Float[Array, '']:
    """Returns the smooth L1 loss, summed over foreground RoIs and the four numbers of a box.

    For a distance d, the loss is half of d squared if d < 1, else d - 1/2. Only the box deltas for the class of a RoI
    are used.
    Source: caffe-fast-rcnn, src/caffe/layers/smooth_L1_loss_layer.cpp.

    Args:
      deltas: predicted normalised box deltas for each class; class 0 is background and not used.
      targets: normalised box deltas.
      labels: the class of each RoI; 0 for background and padding.
    """
    own = jnp.take_along_axis(deltas, labels[..., None, None], axis=2)[:, :, 0]
    losses = optax.huber_loss(own, targets, delta=1.0).sum(axis=-1)
    return jnp.where(labels > 0, losses, 0.0).sum()


def sample_rois(config: ConfigDict, sample_keys: Key[Array, ' B'], batch: dict, statistics: dict) -> targets.RoiSample:
    """Returns the sampled RoIs of each image, in original pixels.

    Args:
      config: the run's configuration.
      sample_keys: one random key per image.
      batch: a training batch of batches.py.
      statistics: {'means', 'deviations'} of the box deltas of each class.
    """

    def sample_image(key, mirrored, width, proposals, valid_proposals, objects, labels, valid_objects):
        proposals, objects = (jnp.where(mirrored, geometry.flip(x, width), x) for x in (proposals, objects))
        arguments = key, proposals, valid_proposals, objects, labels, valid_objects
        return targets.sample_rois(*arguments, **statistics, count=config.voc_detection.regions)

    names = 'mirrored', 'width', 'proposals', 'valid_proposals', 'objects', 'labels', 'valid_objects'
    return jax.vmap(sample_image)(sample_keys, *(batch[name] for name in names))


def compute_average_precisions(records: Sequence, detected: dict) -> list[float | None]:
    """Returns the average precision of each class, in [0, 1]; None for a class without objects.

    Args:
      records: the records of the split.
      detected: {position in the split: Detections} of all tested images.
    """
    return detections.compute_average_precisions([records[n].objects for n in detected], list(detected.values()))


def _make_network(config):
    return architecture.make_detector(config, len(NAMES))


def _pool_first_rois(config, devices, params, images):
    """Returns the pooled features of RoIs of the first training images, [N, D], the same on all hosts."""
    model, key = _make_network(config), keys.stage_key(config.seed, 'voc_detection/rescale')
    batch_size, features = config.voc_detection.batch_size, []

    def pool_rois(variables, batch):
        (sample_keys,) = keys.example_keys(key, batch['step'][0], batch['index'], 1)
        rois = sample_rois(config, sample_keys, batch, variables['params']['targets'])
        inputs, boxes = fast_rcnn.preprocess(batch['image'], batch['size']), rois.boxes * batch['scale'][:, None, None]
        pooled = model.apply({'params': variables['params']}, inputs, boxes, rois.valid, method='pool')
        return pooled, rois.valid

    mapped, batches = devices.per_example(pool_rois), images.train_batches(batch_size)
    for step in range(-(-INIT_IMAGES // batch_size)):
        batch = next(batches)
        pooled, valid = mapped({'params': params}, {**batch, 'step': np.full(len(batch['index']), step, np.int32)})
        features.append(pooled[valid].reshape(valid.sum(), -1))
    return jnp.asarray(np.concatenate(features), jnp.float32)


NOISE_OBJECTS = 3  # in each noise image of the benchmark
BENCHMARK = Stage(NAME='voc_detection')
