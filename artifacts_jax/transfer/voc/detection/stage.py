"""The training of Fast R-CNN on VOC's objects, as the loop runs it."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices, total
from artifacts_jax.models import alexnet, architecture, fast_rcnn
from artifacts_jax.pretraining import artifacts
from artifacts_jax.training import keys
from artifacts_jax.training.state import State
from artifacts_jax.transfer import rescaling, sgd
from artifacts_jax.transfer.voc import average_precision
from artifacts_jax.transfer.voc.annotations import NAMES
from artifacts_jax.transfer.voc.detection import boxes as geometry
from artifacts_jax.transfer.voc.detection import (
    detection_precision,
    losses,
    pictures,
    presets,
    sampling,
    targets,
)

IMAGES = 32  # whose regions new layers are initialised by


@dataclasses.dataclass(frozen=True)
class Stage:
    """The training, as loop.run takes it. Its networks are 'trunk' and 'head'; 'targets' normalises moves of boxes."""

    NAME: str  # also its folder
    detect: Callable | None = None  # of detector.make, for evaluation

    BASE = artifacts
    SHOWN = {'mAP': 'map'}  # noqa: RUF012 (of every stage)

    def plan(self, config: ConfigDict) -> tuple[int, int]:
        """Returns (steps, images in a global batch)."""
        options = config.voc_detection
        return options.steps or presets.PRESETS[options.preset].steps, options.batch_size

    def init_state(self, key: Key[Array, ''], base: dict, *, config: ConfigDict) -> State:
        """Returns the state at step 0, before `prepare`.

        Args:
          key: draws the head.
          base: the variables of the artifacts stage, whose trunk this one starts from.
          config: the run's configuration.
        """
        trunk = {kind: tree['trunk'] for kind, tree in artifacts.discriminator(base).items()}
        side = max(config.model.kernels[0], 8 * config.model.conv1_stride)
        image, box = jnp.zeros((1, side, side, 3)), jnp.zeros((1, 1, 4))
        drawn = architecture.make_detector(config, len(NAMES)).init(key, image, box, jnp.ones((1, 1), bool))['params']
        params = {'head': drawn['head'], 'trunk': alexnet.absorb(trunk)['params']}
        normal = {'means': jnp.zeros((len(NAMES), 4)), 'deviations': jnp.ones((len(NAMES), 4))}
        return State.create(
            {'params': params, 'batch_stats': {}},
            {tuple(params): self._optimiser(config)},
            ema=False,
            frozen={'params': {'targets': normal}, 'batch_stats': {}},
        )

    def prepare(self, state: State, *, config: ConfigDict, devices: Devices, datasets: dict) -> State:
        """Returns the state at step 0 with the statistics of targets, and new layers initialised as `rescale` says."""
        images = datasets['train']
        normal = dict(zip(('means', 'deviations'), targets.over(images.records, images.proposals)))
        frozen = {**state.frozen, 'params': {'targets': jax.device_put(normal, devices.replicated)}}
        state = state.replace(frozen=frozen)
        if config.voc_detection.rescale == 'none':
            return state
        pooled = _first_regions(config, devices, state.variables, images)
        head, hidden = dict(jax.device_get(state.params['head'])), config.voc_detection.hidden
        key = keys.stage_key(config.seed, f'{self.NAME}/rescale')
        for name, layer_key in zip(('fc6', 'fc7'), jax.random.split(key)):
            head[name], pooled = rescaling.connected(layer_key, pooled, hidden)
        head = jax.device_put(jax.device_get(head), devices.replicated)
        return state.replace(params={**state.params, 'head': head})

    def train_step(
        self, state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
    ) -> tuple[State, dict]:
        """One update on regions drawn from a batch.

        Args:
          state: with the networks 'trunk' and 'head'.
          batch: as of batches.py, this device's part of it.
          key: the stage's key.
          config: the run's configuration.
          axis_name: the devices' axis under pmap.

        Returns:
          (state, {name: scalar}).
        """
        sample_keys, *dropout_keys = keys.example_keys(key, state.step, batch['index'], 3)
        model, variables = architecture.make_detector(config, len(NAMES)), state.variables
        images = fast_rcnn.prepared(batch['image'], batch['size'])
        regions = sample(config, sample_keys, batch, variables['params']['targets'])
        boxes = regions.boxes * batch['scale'][:, None, None]
        count = jnp.maximum(total(regions.mask.sum(), axis_name), 1)

        def loss(params):
            fixed = jax.tree_util.tree_map_with_path(
                lambda path, x: x if _learns(config, path) else jax.lax.stop_gradient(x), params
            )
            scores, moves = model.apply({'params': fixed}, images, boxes, regions.mask, jnp.stack(dropout_keys, axis=1))
            terms = {
                'loss/class': losses.class_loss(scores, regions.labels, regions.mask) / count,
                'loss/boxes': losses.box_loss(moves, regions.targets, regions.labels) / count,
            }
            found = {'regions/all': regions.mask.sum(), 'regions/foreground': (regions.labels > 0).sum()}
            return sum(terms.values()), {**terms, **{name: x.astype(jnp.float32) for name, x in found.items()}}

        grads, values = jax.grad(loss, has_aux=True)(state.params)
        grads, values = total((grads, values), axis_name)
        new = state.descend(self._optimiser(config), grads).replace(step=state.step + 1)
        return new, {**values, 'grad_norm/all': optax.tree.norm(grads)}

    def evaluator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns evaluate(state, key) -> {'map': in %} of some of the test images."""
        del devices

        def evaluate(state, key):
            del key
            images = datasets['test']
            found = self.detect(state.variables, images, config.eval_examples)
            each = precision(images.records, found)
            return {'map': 100 * (average_precision.mean(each) or 0.0)}

        return evaluate

    def illustrator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns draw(state, key, folder), which writes detections.png of the first test images."""
        del config, devices

        def draw(state, key, folder):
            del key
            images = datasets['test']
            found = self.detect(state.variables, images, pictures.COUNT)
            if processes.is_first():
                pictures.draw(Path(folder) / pictures.FILE, images.records, found, step=int(state.step))

        return draw

    def _optimiser(self, config):
        preset, (steps, _) = presets.PRESETS[config.voc_detection.preset], self.plan(config)
        rate = config.voc_detection.learning_rate or preset.rate
        dropped = max(1, round(preset.dropped * steps / preset.steps))

        def is_bias(path):
            return path[-1].key == 'bias'

        return sgd.sgd(
            optax.piecewise_constant_schedule(rate, {dropped: presets.DROP}),
            form='caffe',
            decay=lambda path: presets.DECAY if _learns(config, path) and not is_bias(path) else 0.0,
            multiplier=lambda path: presets.BIAS_RATE if is_bias(path) else 1.0,
        )


def sample(config: ConfigDict, sample_keys: Key[Array, ' B'], batch: dict, normal: dict) -> sampling.Sample:
    """Returns the regions of each image that a step learns from, in the pixels of the images before they are scaled.

    Args:
      config: the run's configuration.
      sample_keys: one for each image.
      batch: as of batches.py.
      normal: {'means', 'deviations'} of targets.
    """

    def one(key, mirrored, width, proposals, there, objects, labels, object_there):
        proposals, objects = (jnp.where(mirrored, geometry.flip(x, width), x) for x in (proposals, objects))
        given = key, proposals, there, objects, labels, object_there
        return sampling.draw(*given, **normal, count=config.voc_detection.regions)

    names = 'mirrored', 'width', 'proposals', 'there', 'objects', 'labels', 'object_there'
    return jax.vmap(one)(sample_keys, *(batch[name] for name in names))


def precision(records: Sequence, found: dict) -> list[float | None]:
    """Returns the average precision of each class, in [0, 1], None of one without objects.

    Args:
      records: of the split.
      found: {position in the split: Detections} of the images that count.
    """
    return detection_precision.of_classes([records[n].objects for n in found], list(found.values()))


def _learns(config, path):
    """Returns whether the parameter at a tree path, {network: ...}, is trained."""
    return path[0].key != 'trunk' or int(path[1].key.removeprefix('conv')) > config.voc_detection.frozen


def _first_regions(config, devices, variables, images):
    """Returns the bins of regions of the first training images [N, D], the same on all hosts."""
    model, key = architecture.make_detector(config, len(NAMES)), keys.stage_key(config.seed, 'voc_detection/rescale')
    batch_size, found, batches = config.voc_detection.batch_size, [], None

    def look(variables, batch):
        (sample_keys,) = keys.example_keys(key, batch['step'][0], batch['index'], 1)
        regions = sample(config, sample_keys, batch, variables['params']['targets'])
        seen, boxes = fast_rcnn.prepared(batch['image'], batch['size']), regions.boxes * batch['scale'][:, None, None]
        return model.apply({'params': variables['params']}, seen, boxes, regions.mask, method='pooled'), regions.mask

    mapped, batches = devices.per_example(look), images.train_batches(batch_size)
    for step in range(-(-IMAGES // batch_size)):
        batch = next(batches)
        pooled, mask = mapped(variables, {**batch, 'step': np.full(len(batch['index']), step, np.int32)})
        found.append(pooled[mask].reshape(mask.sum(), -1))
    return jnp.asarray(np.concatenate(found), jnp.float32)
