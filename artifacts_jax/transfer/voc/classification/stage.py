"""The training of AlexNet to tell which of VOC's twenty classes an image has, as the loop runs it."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Key
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import Devices, mean, total
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.models.discriminator import CHANNEL_MEANS, scale_pixels
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import keys
from artifacts_jax.training.state import State
from artifacts_jax.transfer import rescaling, sgd
from artifacts_jax.transfer.voc import average_precision, crops
from artifacts_jax.transfer.voc.annotations import NAMES
from artifacts_jax.transfer.voc.classification import presets

MEANS = np.array(CHANNEL_MEANS, np.float32)  # the trunk's own, where the protocol has 123, 117 and 104
LAST = {'trunk': 'all', 'fc6': 'fc6', 'fc7': 'fc6', 'fc8': 'fc8'}  # until which choice of TRAINED a layer learns


@dataclasses.dataclass(frozen=True)
class Stage:
    """The training, as loop.run takes it. Its networks are 'trunk' and 'head'."""

    NAME: str  # also its folder
    score: Callable | None = None  # of `scorer`, for evaluation

    BASE = artifacts
    SHOWN = {'mAP': 'map'}  # noqa: RUF012 (of every stage)

    def plan(self, config: ConfigDict) -> tuple[int, int]:
        """Returns (steps, images in a global batch)."""
        options = config.voc_classification
        return options.steps or chosen(config).steps, options.batch_size

    def init_state(self, key: Key[Array, ''], base: dict, *, config: ConfigDict) -> State:
        """Returns the state at step 0, before `prepare`.

        Args:
          key: draws the head.
          base: the variables of the artifacts stage, whose trunk this one starts from.
          config: the run's configuration.
        """
        trunk = {kind: tree['trunk'] for kind, tree in artifacts.discriminator(base).items()}
        side = config.voc_classification.crop_size
        drawn = make_network(config).init(key, jnp.zeros((1, side, side, 3)))['params']
        params = {'head': drawn['head'], 'trunk': alexnet.absorb(trunk)['params']}
        frozen = {}
        if config.voc_classification.train != 'all':
            frozen = {'trunk': params.pop('trunk')}
        variables = {'params': params, 'batch_stats': {}}
        return State.create(
            variables,
            {tuple(params): self._optimiser(config)},
            ema=False,
            frozen={'params': frozen, 'batch_stats': {}},
        )

    def prepare(self, state: State, *, config: ConfigDict, devices: Devices, datasets: dict) -> State:
        """Returns the state at step 0 with layers initialised by the data, as `rescale` says."""
        choice = config.voc_classification.rescale
        if choice == 'none':
            return state
        images, model = _first_crops(config, devices, datasets['train']), make_network(config)
        draw, pull = jax.random.split(keys.stage_key(config.seed, f'{self.NAME}/rescale'))
        whole = jax.device_get(state.variables['params'])
        params = rescaling.initialise(draw, whole, model, images)
        if choice == 'all':
            params = rescaling.balance(pull, params, model, images)
            params['head']['fc8'] = whole['head']['fc8']
        trained, frozen = (
            jax.device_put({name: jax.device_get(params[name]) for name in tree}, devices.replicated)
            for tree in (state.params, state.frozen['params'])
        )
        return state.replace(params=trained, frozen={**state.frozen, 'params': frozen})

    def train_step(
        self, state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
    ) -> tuple[State, dict]:
        """One update on random crops.

        Args:
          state: with the networks 'head' and, trained or frozen, 'trunk'.
          batch: as of voc/batches.py, this device's part of it.
          key: the stage's key.
          config: the run's configuration.
          axis_name: the devices' axis under pmap.

        Returns:
          (state, {name: scalar}).
        """
        crop_keys, *dropout_keys = keys.example_keys(key, state.step, batch['index'], 3)
        images = views(config, crop_keys, batch)
        model, variables = make_network(config), state.variables

        def loss(params):
            everything = {'params': {**variables['params'], **params}}
            outputs = model.apply(everything, images, jnp.stack(dropout_keys, axis=1))
            value = mean(label_loss(outputs, batch['labels']), axis_name)
            return value, {'loss/labels': value}

        grads, values = jax.grad(loss, has_aux=True)(state.params)
        grads, values = total((grads, values), axis_name)
        grads = jax.tree_util.tree_map_with_path(lambda path, g: g if _learns(config, path) else 0 * g, grads)
        new = state.descend(self._optimiser(config), grads).replace(step=state.step + 1)
        return new, {**values, 'grad_norm/all': optax.tree.norm(grads)}

    def evaluator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns evaluate(state, key) -> {'map': in %} of one crop of some of the test images."""
        del devices

        def evaluate(state, key):
            del key
            scores, labels = self.score(state.variables, datasets['test'], 1, config.eval_examples)
            value = average_precision.mean(average_precision.of_classes(scores, labels))
            return {'map': 100 * (value or 0.0)}

        return evaluate

    def illustrator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns draw(state, key, folder), which draws nothing: the loop draws the curves."""
        del config, devices, datasets
        return lambda state, key, folder: None

    def _optimiser(self, config):
        preset, (steps, _) = chosen(config), self.plan(config)
        rate = config.voc_classification.learning_rate or preset.rate
        halved = max(1, round(preset.halved * steps / preset.steps))
        return sgd.sgd(
            optax.exponential_decay(rate, halved, 0.5, staircase=True),
            form='caffe',
            decay=lambda path: presets.DECAY if _learns(config, path) else 0.0,
            multiplier=lambda path: presets.BIAS_RATE if path[-1].key == 'bias' else 1.0,
            clip=presets.CLIP,
        )


def chosen(config: ConfigDict) -> presets.Preset:
    """Returns the constants of the configuration's preset, for the layers that are trained."""
    return presets.PRESETS[config.voc_classification.preset][config.voc_classification.train]


def make_network(config: ConfigDict) -> alexnet.AlexNet:
    """Makes AlexNet with an output for each class."""
    options = config.voc_classification
    trunk = architecture.make_trunk(config, geometry=alexnet.GEOMETRIES[options.geometry], normalise=False)
    return alexnet.AlexNet(trunk, alexnet.Connected(len(NAMES), options.hidden, options.dropout, trunk.dtype))


def views(config: ConfigDict, crop_keys: Key[Array, ' B'], batch: dict) -> Float[Array, 'B S S 3']:
    """Returns random crops of a batch's images, in [-1, 1] but for what lies outside an image: there, the means."""
    side = config.voc_classification.crop_size
    pixels = crops.sample(crop_keys, batch['image'], batch['size'], mean=MEANS, side=side) + MEANS[None, None, None]
    return scale_pixels(pixels)


def label_loss(outputs: Float[Array, 'B K'], labels: Array) -> Float[Array, ' B']:
    """Returns the sum over classes of sigmoid cross-entropies; labels are 1, -1, or 0, which is left out."""
    terms = optax.sigmoid_binary_cross_entropy(outputs, (labels > 0).astype(jnp.float32))
    return jnp.where(labels != 0, terms, 0.0).sum(axis=-1)


def scorer(config: ConfigDict, devices: Devices) -> Callable:
    """Returns score(variables, dataset, crops, limit=0) -> (sums over random crops [N, 20], labels int8 [N, 20]).

    Crops are a function of the seed, the image's place in the split, and the crop's number.
    """
    model, key = make_network(config), keys.stage_key(config.seed, 'voc_classification/test')

    def judge(variables, batch):
        (crop_keys,) = keys.example_keys(key, batch['crop'][0], batch['index'], 1)
        return model.apply({'params': variables['params']}, views(config, crop_keys, batch)), batch['labels']

    mapped = devices.per_example(judge)

    def score(variables, dataset, count, limit=0):
        scores, labels = [], []
        for batch in dataset.eval_batches(config.voc_classification.batch_size, limit=limit):
            numbers = [np.full(len(batch['index']), n, np.int32) for n in range(count)]
            found = [mapped(variables, {**batch, 'crop': number}) for number in numbers]
            scores.append(sum(outputs for outputs, _ in found))
            labels.append(found[0][1])
        return np.concatenate(scores), np.concatenate(labels)

    return score


def _learns(config, path):
    """Returns whether the parameter at a tree path, {network: ...}, is trained."""
    layer = path[0].key if path[0].key == 'trunk' else path[1].key
    return presets.TRAINED.index(config.voc_classification.train) <= presets.TRAINED.index(LAST[layer])


def _first_crops(config, devices, dataset):
    """Returns crops of the first training images, the same on all hosts."""
    key, batch_size = keys.stage_key(config.seed, 'voc_classification/rescale'), config.voc_classification.batch_size

    def view(key, batch):
        (crop_keys,) = keys.example_keys(key, batch['step'][0], batch['index'], 1)
        return views(config, crop_keys, batch)

    cut, found, batches = devices.per_example(view), [], dataset.train_batches(batch_size)
    for step in range(-(-rescaling.IMAGES // batch_size)):
        batch = next(batches)
        found.append(cut(key, {**batch, 'step': np.full(len(batch['index']), step, np.int32)}))
    return jnp.asarray(np.concatenate(found))
