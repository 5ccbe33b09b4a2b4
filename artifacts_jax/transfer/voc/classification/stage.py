"""The training of AlexNet to predict which of VOC's twenty classes an image has.

It has the constants of two published protocols. `philkr` is philkr/voc-classification, src/train_cls.py. `deepcluster`
is that program with the options of facebookresearch/deepcluster, eval_voc_classif_all.sh and eval_voc_classif_fc6_8.sh.

Both use the crops of data/crops.py, sigmoid cross-entropy (sum over classes, mean over the batch), Caffe's form of
momentum (0.9), twice the learning rate for biases, weight decay of weights and biases, and clipping of the gradient
norm.
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

CROPS = 10  # random crops of a test image, whose outputs are summed
DECAY = 1e-6
BIAS_RATE = 2.0  # factor on the learning rate of biases
CLIP = 10.0  # maximum norm of the gradient
TRAINED = ('all', 'fc6', 'fc8')  # choices of voc_classification.train: the first trained layer, or 'all'
SIDE = 500  # side of the padded images of a batch, in pixels: the largest side of VOC's images
MEANS = np.array(CHANNEL_MEANS, np.float32)  # those of the trunk; the protocol uses 123, 117 and 104
LAST_CHOICE = {'trunk': 'all', 'fc6': 'fc6', 'fc7': 'fc6', 'fc8': 'fc8'}  # last choice of TRAINED that trains a layer


class Preset(NamedTuple):
    """A training schedule."""

    steps: int
    rate: float  # initial learning rate
    halved: int  # number of steps after which the learning rate is halved, repeatedly


PRESETS = {
    'philkr': dict.fromkeys(TRAINED, Preset(80_000, 1e-3, 10_000)),
    'deepcluster': {
        'all': Preset(150_000, 1e-3, 20_000),
        'fc6': Preset(150_000, 3e-3, 5_000),
        'fc8': Preset(150_000, 3e-3, 5_000),  # not in the source; the schedule of fc6
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(TrunkStage):
    """The stage that trains AlexNet. Its networks are 'trunk' and 'head'."""

    PROGRESS_METRICS = {'mAP': 'map'}  # noqa: RUF012 (ClassVar, as in TrunkStage)

    def get_steps_and_batch_size(self, config):
        """As TrunkStage.get_steps_and_batch_size."""
        options = config.voc_classification
        return options.steps or get_preset(config).steps, options.batch_size

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: the head is trained; the trunk is trained only if all layers are."""
        side = config.voc_classification.crop_size
        initial = make_network(config).init(key, jnp.zeros((1, side, side, 3)))['params']
        params, frozen = {'head': initial['head'], 'trunk': alexnet.fold_batch_norm(trunk)['params']}, {}
        if config.voc_classification.train != 'all':
            frozen = {'trunk': params.pop('trunk')}
        return {'params': params, 'batch_stats': {}}, {'params': frozen, 'batch_stats': {}}

    def is_trained(self, path, config):
        """As TrunkStage.is_trained: True for the layer named by voc_classification.train and all later layers."""
        layer = path[0].key if path[0].key == 'trunk' else path[1].key
        return TRAINED.index(config.voc_classification.train) <= TRAINED.index(LAST_CHOICE[layer])

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: the preset's."""
        preset, (steps, _) = get_preset(config), self.get_steps_and_batch_size(config)
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
        """As TrunkStage.prepare_inputs: random crops, labels, and random keys for dropout."""
        del variables, axis_name
        crop_keys, *dropout_keys = keys.example_keys(key, step, batch['index'], 3)
        return sample_crops(config, crop_keys, batch), batch['labels'], jnp.stack(dropout_keys, axis=1)

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: sigmoid cross-entropy, summed over classes."""
        images, labels, dropout_keys = inputs
        outputs = make_network(config).apply({'params': variables['params']}, images, dropout_keys)
        return {'loss/labels': mean(compute_label_loss(outputs, labels), axis_name)}, {}

    def initialise_params(self, key, params, config, devices, dataset):
        """As TrunkStage.initialise_params: the choice of voc_classification.rescale."""
        choice = config.voc_classification.rescale
        if choice == 'none':
            return None
        images, model = _sample_first_crops(config, devices, dataset), make_network(config)
        init_key, balance_key = jax.random.split(key)
        new_params = rescaling.initialise_head(init_key, params, model, images)
        if choice == 'all':
            new_params = rescaling.balance(balance_key, new_params, model, images)
            new_params['head']['fc8'] = params['head']['fc8']
        return new_params

    def compute_metrics(self, outputs, dataset):
        """As TrunkStage.compute_metrics: {'map': in %} from the scores of `make_scorer`."""
        del dataset
        value = average_precision.mean(average_precision.compute_per_class(*outputs))
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
    """Returns the schedule for the preset and the trained layers of the configuration."""
    return PRESETS[config.voc_classification.preset][config.voc_classification.train]


def make_network(config: ConfigDict) -> alexnet.AlexNet:
    """Returns AlexNet with one output for each class."""
    options = config.voc_classification
    trunk = architecture.make_trunk(config, geometry=alexnet.GEOMETRIES[options.geometry], normalise=False)
    return alexnet.AlexNet(trunk, alexnet.Connected(len(NAMES), options.hidden, options.dropout, trunk.dtype))


def open_images(
    config: ConfigDict, records: Sequence, name: str, side: int = SIDE
) -> reading.StreamedDataset | ArrayDataset:
    """Returns a data set of images with class labels, in memory or streamed.

    As in the protocol, a split is shuffled once, by the seed, and every epoch has the same order.

    | field | content |
    |---|---|
    | `image` | uint8 [b, S, S, 3]: images, padded on the right and bottom; larger images are resized, antialiased |
    | `size` | int32 [b, 2]: height and width of the image without padding |
    | `labels` | int8 [b, 20]: for each class 1 (in the image), 0 (unknown) or -1 (not in the image) |

    Args:
      config: the run's configuration.
      records: the records of a split.
      name: the name of the split, for messages.
      side: S, in pixels.

    Raises:
      DataError: no image can be decoded.
    """
    in_memory = reading.should_load_in_memory(config.data, len(records), side)
    shapes = {'image': ((side, side, 3), np.uint8), 'size': ((2,), np.int32), 'labels': ((len(NAMES),), np.int8)}
    fields = reading.make_options(config, records, name, live=not in_memory)
    images = reading.StreamedDataset(load=partial(_load, side=side), shapes=shapes, reshuffle=False, **fields)
    return images.decode() if in_memory else images


def sample_crops(config: ConfigDict, crop_keys: Key[Array, ' B'], batch: dict) -> Float[Array, 'B S S 3']:
    """Returns random crops of the images of a batch, in [-1, 1]; pixels outside an image have the channel means."""
    side = config.voc_classification.crop_size
    pixels = crops.random_crops(crop_keys, batch['image'], batch['size'], mean=MEANS, side=side)
    return scale_pixels(pixels + MEANS[None, None, None])


def compute_label_loss(outputs: Float[Array, 'B K'], labels: Array) -> Float[Array, ' B']:
    """Returns the sigmoid cross-entropy, summed over classes; labels are 1, -1, or 0 (ignored)."""
    terms = optax.sigmoid_binary_cross_entropy(outputs, (labels > 0).astype(jnp.float32))
    return jnp.where(labels != 0, terms, 0.0).sum(axis=-1)


def make_scorer(config: ConfigDict, devices: Devices) -> Callable:
    """Returns score(variables, dataset, limit=0, crops=1) -> (scores [N, 20], labels int8 [N, 20]).

    Scores are sums over random crops. A crop depends only on the seed, the index of the image in the split, and the
    number of the crop.
    """
    model, key = make_network(config), keys.stage_key(config.seed, 'voc_classification/test')

    def score_crop(variables, batch):
        (crop_keys,) = keys.example_keys(key, batch['crop'][0], batch['index'], 1)
        return model.apply({'params': variables['params']}, sample_crops(config, crop_keys, batch)), batch['labels']

    compiled = devices.per_example(score_crop)

    def score(variables, dataset, limit=0, crops=1):
        scores, labels = [], []
        for batch in dataset.eval_batches(config.voc_classification.batch_size, limit=limit):
            numbers = [np.full(len(batch['index']), n, np.int32) for n in range(crops)]
            results = [compiled(variables, {**batch, 'crop': number}) for number in numbers]
            scores.append(sum(outputs for outputs, _ in results))
            labels.append(results[0][1])
        return np.concatenate(scores), np.concatenate(labels)

    return score


def _load(record, side):
    image = decoding.limit_size(record.read_image(), side)
    return {'image': reading.pad_array(image, (side, side)), 'size': image.shape[:2], 'labels': record.labels}


def _sample_first_crops(config, devices, dataset):
    """Returns random crops of the first training images; all hosts get the same crops."""
    key, batch_size = keys.stage_key(config.seed, 'voc_classification/rescale'), config.voc_classification.batch_size

    def crop(key, batch):
        (crop_keys,) = keys.example_keys(key, batch['step'][0], batch['index'], 1)
        return sample_crops(config, crop_keys, batch)

    compiled, images, batches = devices.per_example(crop), [], dataset.train_batches(batch_size)
    for step in range(-(-rescaling.IMAGES // batch_size)):
        batch = next(batches)
        images.append(compiled(key, {**batch, 'step': np.full(len(batch['index']), step, np.int32)}))
    return jnp.asarray(np.concatenate(images))


BENCHMARK = Stage(NAME='voc_classification')
