"""The training stage of FCN-32s on VOC's masks, with every constant of the published protocols.

| preset | source |
|---|---|
| fcn | shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet/net.py, solver.prototxt and train.prototxt |
| zhang | richzhang/colorization, feature_learning_tests/segmentation/train_val.prototxt, solver0, solver1 and solver2 |

Both presets have the same loss and update: the cross-entropy is averaged over the valid pixels of each image; the
gradients of 20 images are averaged for an update; momentum is Caffe's; the bias of the score layer has twice the
learning rate and no weight decay. The network file of fcn sums the loss over pixels, but its solver file says that its
learning rate is for the mean.
"""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float32, UInt8

from artifacts_jax.data.voc.records import VOID
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import mean
from artifacts_jax.models import alexnet, fcn
from artifacts_jax.models.discriminator import scale_pixels
from artifacts_jax.training import caffe_sgd, keys
from artifacts_jax.transfer import confusion, rescaling
from artifacts_jax.transfer.stage import TrunkStage
from artifacts_jax.transfer.voc.segmentation import segmenter

IMAGES_PER_UPDATE = 20  # sampled with replacement
MOMENTUM = 0.9
DECAY = 5e-4  # weight decay of kernels
DROP = 0.1  # factor on the learning rate at each drop
SCORE_BIAS_RATE = 2.0  # factor on the learning rate of the score layer's bias, which has no weight decay
INIT_IMAGES = 32  # for the data-dependent initialisation of fc6 and fc7
WINDOWS_PER_IMAGE = 32  # inputs of fc6 that are sampled from each of these images


class Preset(NamedTuple):
    """A schedule, and the update rule of the biases of the trunk, fc6 and fc7."""

    steps: int
    learning_rate: float
    drop_steps: tuple[int, ...]  # the learning rate drops after these numbers of updates
    bias_rate: float  # factor on the learning rate
    bias_decay: float


PRESETS = {
    'fcn': Preset(100_000, 1e-4, (), 1.0, DECAY),
    'zhang': Preset(150_000, 1e-4, (50_000, 100_000), 2.0, 0.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(TrunkStage):
    """The training stage of FCN-32s. Its networks are 'trunk' and 'head'."""

    PROGRESS_METRICS = {'mIoU': 'miou'}  # noqa: RUF012 (ClassVar, as in TrunkStage)
    ACCUMULATES = True

    def get_steps_and_batch_size(self, config):
        """As TrunkStage.get_steps_and_batch_size."""
        options = config.voc_segmentation
        return options.steps or PRESETS[options.preset].steps, options.batch_size

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: trains the head and the trunk."""
        new_params = segmenter.make_network(config).init(key, jnp.zeros((1, 1, 1, 3)))['params']
        params = {'head': new_params['head'], 'trunk': alexnet.fold_batch_norm(trunk)['params']}
        return {'params': params, 'batch_stats': {}}, None

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: SGD with the schedule and update rules of the preset."""
        options, (steps, _) = config.voc_segmentation, self.get_steps_and_batch_size(config)
        preset = PRESETS[options.preset]
        drops = {max(1, round(n * steps / preset.steps)): DROP for n in preset.drop_steps}

        def choose(path, kernel, bias, score_bias):
            if path[-1].key != 'bias':
                return kernel
            return score_bias if path[-2].key == 'score' else bias

        return caffe_sgd.caffe_sgd(
            optax.piecewise_constant_schedule(options.learning_rate or preset.learning_rate, drops),
            form='caffe',
            momentum=MOMENTUM,
            decay=lambda path: choose(path, DECAY, preset.bias_decay, 0.0),
            multiplier=lambda path: choose(path, 1.0, preset.bias_rate, SCORE_BIAS_RATE),
        )

    def prepare_inputs(self, variables, batch, key, step, *, config, axis_name):
        """As TrunkStage.prepare_inputs: images, their sizes, label maps, and dropout keys."""
        del variables, config, axis_name
        dropout_keys = keys.example_keys(key, step, batch['index'], 2)
        return batch['image'], batch['size'], batch['labels'], *dropout_keys

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: the cross-entropy of pixels, averaged in each image and then over images."""
        images, sizes, labels, *dropout_keys = inputs
        params, dropout_keys = {'params': variables['params']}, jnp.stack(dropout_keys, axis=1)
        scores = segmenter.make_network(config).apply(params, scale_pixels(images), sizes, dropout_keys)
        losses, accuracies = pixel_losses(scores, labels)
        return {'loss/class': mean(losses, axis_name), 'accuracy': mean(accuracies, axis_name)}, {}

    def initialise_params(self, key, params, config, devices, dataset):
        """As TrunkStage.initialise_params: initialises fc6 and fc7 from data, unless `rescale` is 'none'."""
        if config.voc_segmentation.rescale == 'none':
            return None
        windows = _pool_first_windows(config, devices, {'params': params}, dataset)
        head = rescaling.initialise_connected(key, params['head'], windows, config.voc_segmentation.hidden)
        return {**params, 'head': head}

    def compute_metrics(self, outputs, dataset):
        """Returns {'miou': mean IoU, 'pixel_accuracy'} of the predictions, in %; 0 instead of nan."""
        counts, _ = segmenter.compute_confusion(dataset.records, outputs)
        metrics = {'miou': confusion.mean_iou(counts), 'pixel_accuracy': confusion.pixel_accuracy(counts)}
        return {name: 100 * float(np.nan_to_num(value)) for name, value in metrics.items()}

    def plot(self, state, dataset, folder):
        """Writes segmentation.png with the first test images."""
        predicted = dict(self.evaluate_fn(state.variables, dataset, limit=segmenter.NUM_PHOTOGRAPHS))
        if processes.is_first():
            segmenter.plot_segmentations(folder / segmenter.FIGURE, dataset.records, predicted, step=int(state.step))

    def sample_batch(self, config):
        """As TrunkStage.sample_batch."""
        random, count = np.random.default_rng(0), config.batch_size
        return {
            'image': random.integers(0, 256, (count, NOISE_SIDE, NOISE_SIDE, 3), dtype=np.uint8),
            'labels': random.integers(0, len(segmenter.CLASSES), (count, NOISE_SIDE, NOISE_SIDE), dtype=np.uint8),
            'size': np.full((count, 2), NOISE_SIDE, np.int32),
            'index': np.arange(count, dtype=np.int32),
        }


def pixel_losses(
    scores: Float32[Array, 'B H W K'], labels: UInt8[Array, 'B H W']
) -> tuple[Float32[Array, ' B'], Float32[Array, ' B']]:
    """Returns (mean cross-entropy, pixel accuracy in [0, 1]) of each image, over its valid pixels.

    Both are 0 for an image without valid pixels.

    Args:
      scores: the logits.
      labels: the class of each pixel in [0, K), or VOID, the ignore label.
    """
    valid = labels != VOID
    labels = jnp.where(valid, labels, 0).astype(jnp.int32)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    return _mean_over_valid(losses, valid), _mean_over_valid((scores.argmax(-1) == labels).astype(jnp.float32), valid)


def _mean_over_valid(values, valid):
    return jnp.where(valid, values, 0.0).sum((1, 2)) / jnp.maximum(valid.sum((1, 2)), 1)


def _pool_first_windows(config, devices, variables, images):
    """Returns inputs of fc6 from sampled windows of pool5 in the first training images, [N, 6 * 6 * C].

    The windows are the same on all hosts.
    """
    model, options, batches = segmenter.make_network(config), config.voc_segmentation, []
    kernel, stride = config.model.kernels[0], config.model.conv1_stride

    def compute_pool5(variables, batch):
        pooled = model.apply(
            {'params': variables['params']}, scale_pixels(batch['image']), batch['size'], method='pool'
        )
        return pooled, batch['size']

    mapped = devices.per_example(compute_pool5)
    stream, inputs = images.train_batches(options.batch_size), []
    for _ in range(-(-INIT_IMAGES // options.batch_size)):
        batch = next(stream)
        batches.append(mapped(variables, {name: batch[name] for name in ('image', 'size')}))
    stream.close()
    random = np.random.default_rng((config.seed, INIT_IMAGES))
    for pooled, size in ((x, y) for batch in batches for x, y in zip(*batch)):
        rows, columns = fcn.count_scores(size, kernel, stride)
        windows = np.lib.stride_tricks.sliding_window_view(pooled, (fcn.WINDOW, fcn.WINDOW), axis=(0, 1))
        sampled = random.integers((rows, columns), size=(WINDOWS_PER_IMAGE, 2))
        sampled_windows = windows[sampled[:, 0], sampled[:, 1]].transpose(0, 2, 3, 1)
        inputs.append(sampled_windows.reshape(WINDOWS_PER_IMAGE, -1))
    return jnp.asarray(np.concatenate(inputs), jnp.float32)


NOISE_SIDE = 500  # pixels; the benchmark uses square images of noise
BENCHMARK = Stage(NAME='voc_segmentation')
