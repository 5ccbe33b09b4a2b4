"""The training of FCN-32s on VOC's masks, as the loop runs it, by the published protocols: every constant.

fcn is that of shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet/{net.py,solver.prototxt,train.prototxt}; zhang that of
richzhang/colorization, feature_learning_tests/segmentation/{train_val.prototxt,solver0,solver1,solver2}.

What they share: the mean over the valid pixels of each image of the cross-entropy, the mean of 20 such gradients for an
update, Caffe's momentum, and scores whose bias learns twice as fast and does not decay. The network file of the source
of fcn has the sum over pixels; its solver says that its rate is for the mean.
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

IMAGES_PER_UPDATE = 20  # images of an update, drawn with replacement
MOMENTUM = 0.9
DECAY = 5e-4
DROP = 0.1  # the learning rate becomes this part of it
SCORE_BIAS_RATE = 2.0  # and no decay
INIT_IMAGES = 32  # that new layers are initialised by
WINDOWS_PER_IMAGE = 32  # in each of them


class Preset(NamedTuple):
    """The schedule, and what biases of the trunk, of fc6 and of fc7 have."""

    steps: int
    rate: float
    dropped: tuple[int, ...]  # after so many updates
    bias_rate: float
    bias_decay: float


PRESETS = {
    'fcn': Preset(100_000, 1e-4, (), 1.0, DECAY),
    'zhang': Preset(150_000, 1e-4, (50_000, 100_000), 2.0, 0.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(TrunkStage):
    """The training. Its networks are 'trunk' and 'head'."""

    PROGRESS_METRICS = {'mIoU': 'miou'}  # noqa: RUF012 (ClassVar, as in TrunkStage)
    ACCUMULATES = True

    def plan(self, config):
        """As TrunkStage.plan."""
        options = config.voc_segmentation
        return options.steps or PRESETS[options.preset].steps, options.batch_size

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: head and trunk are trained."""
        drawn = segmenter.make_network(config).init(key, jnp.zeros((1, 1, 1, 3)))['params']
        params = {'head': drawn['head'], 'trunk': alexnet.absorb(trunk)['params']}
        return {'params': params, 'batch_stats': {}}, None

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: the preset's."""
        options, (steps, _) = config.voc_segmentation, self.plan(config)
        preset = PRESETS[options.preset]
        drops = {max(1, round(n * steps / preset.steps)): DROP for n in preset.dropped}

        def of(path, weight, bias, score_bias):
            if path[-1].key != 'bias':
                return weight
            return score_bias if path[-2].key == 'score' else bias

        return caffe_sgd.caffe_sgd(
            optax.piecewise_constant_schedule(options.learning_rate or preset.rate, drops),
            form='caffe',
            momentum=MOMENTUM,
            decay=lambda path: of(path, DECAY, preset.bias_decay, 0.0),
            multiplier=lambda path: of(path, 1.0, preset.bias_rate, SCORE_BIAS_RATE),
        )

    def prepare_inputs(self, variables, batch, key, step, *, config, axis_name):
        """As TrunkStage.prepare_inputs: images, their sizes, labels, and keys for dropout."""
        del variables, config, axis_name
        dropout_keys = keys.example_keys(key, step, batch['index'], 2)
        return batch['image'], batch['size'], batch['labels'], *dropout_keys

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: the mean over images of their pixels' cross-entropy."""
        images, sizes, labels, *dropout_keys = inputs
        params, dropout_keys = {'params': variables['params']}, jnp.stack(dropout_keys, axis=1)
        scores = segmenter.make_network(config).apply(params, scale_pixels(images), sizes, dropout_keys)
        entropy, right = pixel_losses(scores, labels)
        return {'loss/class': mean(entropy, axis_name), 'accuracy': mean(right, axis_name)}, {}

    def initialise_params(self, key, params, config, devices, dataset):
        """As TrunkStage.initialise_params: new layers as `rescale` says."""
        if config.voc_segmentation.rescale == 'none':
            return None
        seen = _pool_first_windows(config, devices, {'params': params}, dataset)
        head = rescaling.initialise_connected(key, params['head'], seen, config.voc_segmentation.hidden)
        return {**params, 'head': head}

    def compute_metrics(self, predicted, dataset):
        """Returns {'miou', 'pixel_accuracy' in %} of what is segmented."""
        counts, _ = segmenter.compute_confusion(dataset.records, predicted)
        found = {'miou': confusion.mean_iou(counts), 'pixel_accuracy': confusion.pixel_accuracy(counts)}
        return {name: 100 * float(np.nan_to_num(value)) for name, value in found.items()}

    def plot(self, state, dataset, folder):
        """Writes segmentation.png of the first test images."""
        found = dict(self.predict(state.variables, dataset, limit=segmenter.NUM_PHOTOGRAPHS))
        if processes.is_first():
            segmenter.plot_segmentations(folder / segmenter.FIGURE, dataset.records, found, step=int(state.step))

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
    """Returns (the cross-entropy, the part of pixels that score highest for their class), the mean over each image.

    Args:
      scores: before softmax.
      labels: in [0, K), or VOID, which does not count. Of an image of nothing else both are 0.
    """
    valid = labels != VOID
    labels = jnp.where(valid, labels, 0).astype(jnp.int32)
    entropy = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    return _mean(entropy, valid), _mean((scores.argmax(-1) == labels).astype(jnp.float32), valid)


def _mean(values, valid):
    return jnp.where(valid, values, 0.0).sum((1, 2)) / jnp.maximum(valid.sum((1, 2)), 1)


def _pool_first_windows(config, devices, variables, images):
    """Returns what fc6 sees at some places of the first training images [N, 6 * 6 * C], the same on all hosts."""
    model, options, batches = segmenter.make_network(config), config.voc_segmentation, []
    kernel, stride = config.model.kernels[0], config.model.conv1_stride

    def look(variables, batch):
        pooled = model.apply(
            {'params': variables['params']}, scale_pixels(batch['image']), batch['size'], method='pooled'
        )
        return pooled, batch['size']

    mapped = devices.per_example(look)
    stream, found = images.train_batches(options.batch_size), []
    for _ in range(-(-INIT_IMAGES // options.batch_size)):
        batch = next(stream)
        batches.append(mapped(variables, {name: batch[name] for name in ('image', 'size')}))
    stream.close()
    random = np.random.default_rng((config.seed, INIT_IMAGES))
    for pooled, size in ((x, y) for both in batches for x, y in zip(*both)):
        rows, columns = fcn.windows(size, kernel, stride)
        places = np.lib.stride_tricks.sliding_window_view(pooled, (fcn.WINDOW, fcn.WINDOW), axis=(0, 1))
        chosen = random.integers((rows, columns), size=(WINDOWS_PER_IMAGE, 2))
        found.append(places[chosen[:, 0], chosen[:, 1]].transpose(0, 2, 3, 1).reshape(WINDOWS_PER_IMAGE, -1))
    return jnp.asarray(np.concatenate(found), jnp.float32)


NOISE_SIDE = 500  # of a benchmark's image of noise, pixels
BENCHMARK = Stage(NAME='voc_segmentation')
