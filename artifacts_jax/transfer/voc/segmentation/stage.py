"""The training of FCN-32s on VOC's masks, as the loop runs it."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices, accumulated, mean, total
from artifacts_jax.models import alexnet, fcn
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import keys
from artifacts_jax.training.state import State
from artifacts_jax.transfer import confusion, rescaling, sgd
from artifacts_jax.transfer.voc.segmentation import losses, network, pictures, presets, segmenter

IMAGES = 32  # that new layers are initialised by
PLACES = 32  # in each of them


@dataclasses.dataclass(frozen=True)
class Stage:
    """The training, as loop.run takes it. Its networks are 'trunk' and 'head'."""

    NAME: str  # also its folder
    segment: Callable | None = None  # of segmenter.make, for evaluation

    BASE = artifacts
    SHOWN = {'mIoU': 'miou'}  # noqa: RUF012 (of every stage)

    def plan(self, config: ConfigDict) -> tuple[int, int]:
        """Returns (steps, images in a global batch)."""
        options = config.voc_segmentation
        return options.steps or presets.PRESETS[options.preset].steps, options.batch_size

    def init_state(self, key: Key[Array, ''], base: dict, *, config: ConfigDict) -> State:
        """Returns the state at step 0, before `prepare`.

        Args:
          key: draws the head.
          base: the variables of the artifacts stage, whose trunk this one starts from.
          config: the run's configuration.
        """
        trunk = {kind: tree['trunk'] for kind, tree in artifacts.discriminator(base).items()}
        drawn = network.make(config).init(key, jnp.zeros((1, 1, 1, 3)))['params']
        params = {'head': drawn['head'], 'trunk': alexnet.absorb(trunk)['params']}
        return State.create({'params': params, 'batch_stats': {}}, {tuple(params): self._optimiser(config)}, ema=False)

    def prepare(self, state: State, *, config: ConfigDict, devices: Devices, datasets: dict) -> State:
        """Returns the state at step 0 with new layers initialised as `rescale` says."""
        if config.voc_segmentation.rescale == 'none':
            return state
        seen = _first_windows(config, devices, state.variables, datasets['train'])
        head, hidden = dict(jax.device_get(state.params['head'])), config.voc_segmentation.hidden
        key = keys.stage_key(config.seed, f'{self.NAME}/rescale')
        for name, layer_key in zip(rescaling.NEW, jax.random.split(key)):
            shape = head[name]['kernel'].shape
            layer, seen = rescaling.connected(layer_key, seen, hidden)
            head[name] = {**layer, 'kernel': layer['kernel'].reshape(shape)}
        head = jax.device_put(jax.device_get(head), devices.replicated)
        return state.replace(params={**state.params, 'head': head})

    def train_step(
        self, state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
    ) -> tuple[State, dict]:
        """One update by the mean of the gradients of images, in `config.accumulate` parts, one after another.

        Args:
          state: with the networks 'trunk' and 'head'.
          batch: as of batches.py, this device's part of it.
          key: the stage's key.
          config: the run's configuration.
          axis_name: the devices' axis under pmap.

        Returns:
          (state, {name: scalar}).
        """
        dropout_keys = keys.example_keys(key, state.step, batch['index'], 2)
        model = network.make(config)

        def loss(params, part):
            images, sizes, labels, *dropout_keys = part
            scores = model.apply({'params': params}, network.prepared(images), sizes, jnp.stack(dropout_keys, axis=1))
            entropy, right = losses.of_images(scores, labels)
            value = mean(entropy, axis_name)
            return value, {'loss/class': value, 'accuracy': mean(right, axis_name)}

        gradients = partial(jax.grad(loss, has_aux=True), state.params)
        whole = (batch['image'], batch['size'], batch['labels'], *dropout_keys)
        grads, values = total(accumulated(gradients, config.accumulate, whole), axis_name)
        new = state.descend(self._optimiser(config), grads).replace(step=state.step + 1)
        return new, {**values, 'grad_norm/all': optax.tree.norm(grads)}

    def evaluator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns evaluate(state, key) -> {'miou', 'pixel_accuracy' in %} of some of the test images."""
        del devices

        def evaluate(state, key):
            del key
            images = datasets['test']
            counts, _ = segmenter.counted(images.records, self.segment(state.variables, images, config.eval_examples))
            found = {'miou': confusion.mean_iou(counts), 'pixel_accuracy': confusion.pixel_accuracy(counts)}
            return {name: 100 * float(np.nan_to_num(value)) for name, value in found.items()}

        return evaluate

    def illustrator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns draw(state, key, folder), which writes segmentation.png of the first test images."""
        del config, devices

        def draw(state, key, folder):
            del key
            images = datasets['test']
            found = dict(self.segment(state.variables, images, pictures.COUNT))
            if processes.is_first():
                pictures.draw(Path(folder) / pictures.FILE, images.records, found, step=int(state.step))

        return draw

    def _optimiser(self, config):
        options, (steps, _) = config.voc_segmentation, self.plan(config)
        preset = presets.PRESETS[options.preset]
        drops = {max(1, round(n * steps / preset.steps)): presets.DROP for n in preset.dropped}

        def of(path, weight, bias, score_bias):
            if path[-1].key != 'bias':
                return weight
            return score_bias if path[-2].key == 'score' else bias

        return sgd.sgd(
            optax.piecewise_constant_schedule(options.learning_rate or preset.rate, drops),
            form='caffe',
            momentum=presets.MOMENTUM,
            decay=lambda path: of(path, presets.DECAY, preset.bias_decay, 0.0),
            multiplier=lambda path: of(path, 1.0, preset.bias_rate, presets.SCORE_BIAS_RATE),
        )


def _first_windows(config, devices, variables, images):
    """Returns what fc6 sees at some places of the first training images [N, 6 * 6 * C], the same on all hosts."""
    model, options, batches = network.make(config), config.voc_segmentation, []
    kernel, stride = config.model.kernels[0], config.model.conv1_stride

    def look(variables, batch):
        pooled = model.apply(
            {'params': variables['params']}, network.prepared(batch['image']), batch['size'], method='pooled'
        )
        return pooled, batch['size']

    mapped = devices.per_example(look)
    stream, found = images.train_batches(options.batch_size), []
    for _ in range(-(-IMAGES // options.batch_size)):
        batch = next(stream)
        batches.append(mapped(variables, {name: batch[name] for name in ('image', 'size')}))
    stream.close()
    random = np.random.default_rng((config.seed, IMAGES))
    for pooled, size in ((x, y) for both in batches for x, y in zip(*both)):
        rows, columns = fcn.windows(size, kernel, stride)
        places = np.lib.stride_tricks.sliding_window_view(pooled, (fcn.WINDOW, fcn.WINDOW), axis=(0, 1))
        chosen = random.integers((rows, columns), size=(PLACES, 2))
        found.append(places[chosen[:, 0], chosen[:, 1]].transpose(0, 2, 3, 1).reshape(PLACES, -1))
    return jnp.asarray(np.concatenate(found), jnp.float32)
