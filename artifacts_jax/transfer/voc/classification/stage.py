"""The training of AlexNet to tell which of VOC's twenty classes an image has, as the loop runs it.

The published protocols: every constant. philkr is that of philkr/voc-classification, src/train_cls.py. deepcluster is
the same program as it is run by facebookresearch/deepcluster, eval_voc_classif_all.sh and eval_voc_classif_fc6_8.sh.

What they share: the crops of data/crops.py, the mean over the batch of the sum over classes of sigmoid cross-entropies,
Caffe's momentum of 0.9, biases that learn twice as fast, weight decay of weights and biases, and a gradient whose norm
is cut.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from artifacts_jax.data import crops, decoding, reading
from artifacts_jax.data.ordered import ArrayDataset
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.devices.parallel import Devices, mean
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.models.discriminator import CHANNEL_MEANS, scale_pixels
from artifacts_jax.training import caffe_sgd, keys
from artifacts_jax.transfer import rescaling
from artifacts_jax.transfer.stage import TrunkStage
from artifacts_jax.transfer.voc import average_precision

CROPS = 10  # of a test image, over which the outputs are summed
DECAY = 1e-6
BIAS_RATE = 2.0
CLIP = 10.0
TRAINED = ('all', 'fc6', 'fc8')  # from which layer on, conv1 being 'all'
SIDE = 500  # of an image in a batch, pixels: the largest side of VOC's images
MEANS = np.array(CHANNEL_MEANS, np.float32)  # the trunk's own, where the protocol has 123, 117 and 104
LAST = {'trunk': 'all', 'fc6': 'fc6', 'fc7': 'fc6', 'fc8': 'fc8'}  # until which choice of TRAINED a layer learns


class Preset(NamedTuple):
    """Updates, the first learning rate, and after how many updates it is halved, again and again."""

    steps: int
    rate: float
    halved: int


PRESETS = {
    'philkr': dict.fromkeys(TRAINED, Preset(80_000, 1e-3, 10_000)),
    'deepcluster': {
        'all': Preset(150_000, 1e-3, 20_000),
        'fc6': Preset(150_000, 3e-3, 5_000),
        'fc8': Preset(150_000, 3e-3, 5_000),  # not in the source: as from fc6
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(TrunkStage):
    """The training. Its networks are 'trunk' and 'head'."""

    PROGRESS_METRICS = {'mAP': 'map'}  # noqa: RUF012 (ClassVar, as in TrunkStage)

    def plan(self, config):
        """As TrunkStage.plan."""
        options = config.voc_classification
        return options.steps or get_preset(config).steps, options.batch_size

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: the head is trained, the trunk only with all layers."""
        side = config.voc_classification.crop_size
        drawn = make_network(config).init(key, jnp.zeros((1, side, side, 3)))['params']
        params, frozen = {'head': drawn['head'], 'trunk': alexnet.fold_batch_norm(trunk)['params']}, {}
        if config.voc_classification.train != 'all':
            frozen = {'trunk': params.pop('trunk')}
        return {'params': params, 'batch_stats': {}}, {'params': frozen, 'batch_stats': {}}

    def is_trained(self, path, config):
        """As TrunkStage.is_trained: from the layer on that `train` names."""
        layer = path[0].key if path[0].key == 'trunk' else path[1].key
        return TRAINED.index(config.voc_classification.train) <= TRAINED.index(LAST[layer])

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: the preset's."""
        preset, (steps, _) = get_preset(config), self.plan(config)
        rate = config.voc_classification.learning_rate or preset.rate
        halved = max(1, round(preset.halved * steps / preset.steps))
        return caffe_sgd.caffe_sgd(
            optax.exponential_decay(rate, halved, 0.5, staircase=True),
            form='caffe',
            decay=lambda path: DECAY if self.is_trained(path, config) else 0.0,
            multiplier=lambda path: BIAS_RATE if path[-1].key == 'bias' else 1.0,
            clip=CLIP,
        )

    def prepare_inputs(self, variables, batch, key, step, *, config, axis_name):
        """As TrunkStage.prepare_inputs: random crops, labels, and keys for dropout."""
        del variables, axis_name
        crop_keys, *dropout_keys = keys.example_keys(key, step, batch['index'], 3)
        return sample_crops(config, crop_keys, batch), batch['labels'], jnp.stack(dropout_keys, axis=1)

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: the cross-entropies of the classes."""
        images, labels, dropout_keys = inputs
        outputs = make_network(config).apply({'params': variables['params']}, images, dropout_keys)
        return {'loss/labels': mean(compute_label_loss(outputs, labels), axis_name)}, {}

    def initialise_params(self, key, params, config, devices, dataset):
        """As TrunkStage.initialise_params: as `rescale` says."""
        choice = config.voc_classification.rescale
        if choice == 'none':
            return None
        images, model = _first_crops(config, devices, dataset), make_network(config)
        draw, pull = jax.random.split(key)
        found = rescaling.initialise_head(draw, params, model, images)
        if choice == 'all':
            found = rescaling.balance(pull, found, model, images)
            found['head']['fc8'] = params['head']['fc8']
        return found

    def compute_metrics(self, predicted, dataset):
        """Returns {'map': in %} of what `scorer` scores."""
        del dataset
        value = average_precision.mean(average_precision.compute_per_class(*predicted))
        return {'map': 100 * (value or 0.0)}

    def sample_batch(self, config):
        """As TrunkStage.sample_batch."""
        random, count = np.random.default_rng(0), config.batch_size
        return {
            'image': random.integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8),
            'size': np.full((count, 2), (375, 500), np.int32),
            'labels': random.integers(-1, 2, (count, len(NAMES)), dtype=np.int8),
            'index': np.arange(count, dtype=np.int32),
        }


def get_preset(config: ConfigDict) -> Preset:
    """Returns the constants of the configuration's preset, for the layers that are trained."""
    return PRESETS[config.voc_classification.preset][config.voc_classification.train]


def make_network(config: ConfigDict) -> alexnet.AlexNet:
    """Makes AlexNet with an output for each class."""
    options = config.voc_classification
    trunk = architecture.make_trunk(config, geometry=alexnet.GEOMETRIES[options.geometry], normalise=False)
    return alexnet.AlexNet(trunk, alexnet.Connected(len(NAMES), options.hidden, options.dropout, trunk.dtype))


def open_images(
    config: ConfigDict, records: Sequence, place: str, side: int = SIDE
) -> reading.StreamedDataset | ArrayDataset:
    """Returns batches of images with the labels of their classes, in memory or streamed.

    As in the protocol, a split is shuffled once, by the seed, and read in this order again and again.

    | name | what |
    |---|---|
    | `image` | uint8 [b, S, S, 3]: each in the upper left corner; what is larger is scaled down, antialiased |
    | `size` | int32 [b, 2]: its height and width there |
    | `labels` | int8 [b, 20]: of each class 1 it is there, 0 not known, -1 it is not |

    Args:
      config: the run's configuration.
      records: of a split.
      place: names it, for messages.
      side: S, pixels.

    Raises:
      DataError: no image can be decoded.
    """
    decoded = reading.should_load_in_memory(config.data, len(records), side)
    shapes = {'image': ((side, side, 3), np.uint8), 'size': ((2,), np.int32), 'labels': ((len(NAMES),), np.int8)}
    fields = reading.make_options(config, records, place, live=not decoded)
    images = reading.StreamedDataset(load=partial(_load, side=side), shapes=shapes, reshuffle=False, **fields)
    return images.decode() if decoded else images


def sample_crops(config: ConfigDict, crop_keys: Key[Array, ' B'], batch: dict) -> Float[Array, 'B S S 3']:
    """Returns random crops of a batch's images, in [-1, 1] but for what lies outside an image: there, the means."""
    side = config.voc_classification.crop_size
    pixels = crops.random_crops(crop_keys, batch['image'], batch['size'], mean=MEANS, side=side)
    return scale_pixels(pixels + MEANS[None, None, None])


def compute_label_loss(outputs: Float[Array, 'B K'], labels: Array) -> Float[Array, ' B']:
    """Returns the sum over classes of sigmoid cross-entropies; labels are 1, -1, or 0, which is left out."""
    terms = optax.sigmoid_binary_cross_entropy(outputs, (labels > 0).astype(jnp.float32))
    return jnp.where(labels != 0, terms, 0.0).sum(axis=-1)


def make_scorer(config: ConfigDict, devices: Devices) -> Callable:
    """Returns score(variables, dataset, limit=0, crops=1) -> (sums over random crops [N, 20], labels int8 [N, 20]).

    Crops are a function of the seed, the image's place in the split, and the crop's number.
    """
    model, key = make_network(config), keys.stage_key(config.seed, 'voc_classification/test')

    def judge(variables, batch):
        (crop_keys,) = keys.example_keys(key, batch['crop'][0], batch['index'], 1)
        return model.apply({'params': variables['params']}, sample_crops(config, crop_keys, batch)), batch['labels']

    mapped = devices.per_example(judge)

    def score(variables, dataset, limit=0, crops=1):
        scores, labels = [], []
        for batch in dataset.eval_batches(config.voc_classification.batch_size, limit=limit):
            numbers = [np.full(len(batch['index']), n, np.int32) for n in range(crops)]
            found = [mapped(variables, {**batch, 'crop': number}) for number in numbers]
            scores.append(sum(outputs for outputs, _ in found))
            labels.append(found[0][1])
        return np.concatenate(scores), np.concatenate(labels)

    return score


def _load(record, side):
    image = decoding.limit_size(record.read_image(), side)
    return {'image': reading.pad_array(image, (side, side)), 'size': image.shape[:2], 'labels': record.labels}


def _first_crops(config, devices, dataset):
    """Returns crops of the first training images, the same on all hosts."""
    key, batch_size = keys.stage_key(config.seed, 'voc_classification/rescale'), config.voc_classification.batch_size

    def view(key, batch):
        (crop_keys,) = keys.example_keys(key, batch['step'][0], batch['index'], 1)
        return sample_crops(config, crop_keys, batch)

    cut, found, batches = devices.per_example(view), [], dataset.train_batches(batch_size)
    for step in range(-(-rescaling.IMAGES // batch_size)):
        batch = next(batches)
        found.append(cut(key, {**batch, 'step': np.full(len(batch['index']), step, np.int32)}))
    return jnp.asarray(np.concatenate(found))


BENCHMARK = Stage(NAME='voc_classification')
