"""The training of the classifiers, as the loop runs it: all layers and learning rates in the same passes."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Key
from ml_collections import ConfigDict

from artifacts_jax.data import views
from artifacts_jax.devices.parallel import Devices, mean, total
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.models.discriminator import Geometry
from artifacts_jax.pretraining import artifacts, losses
from artifacts_jax.training import keys
from artifacts_jax.training.state import State
from artifacts_jax.transfer import sgd
from artifacts_jax.transfer.layerwise import presets
from artifacts_jax.transfer.layerwise.heads import Heads
from artifacts_jax.transfer.layerwise.presets import LAYERS, PRESETS

TOP = 5


@dataclasses.dataclass(frozen=True)
class Stage:
    """The training, as loop.run takes it. Its networks are 'heads', trained, and 'trunk', frozen."""

    NAME: str  # also its folder
    images: int  # in the training split
    classes: int
    count: Callable | None = None  # of `counter`, for evaluation

    BASE = artifacts
    SHOWN = {layer: f'accuracy/{layer}' for layer in LAYERS}  # noqa: RUF012 (of every stage)

    def plan(self, config: ConfigDict) -> tuple[int, int]:
        """Returns (steps, images in a global batch)."""
        options = config.layerwise
        return presets.plan(PRESETS[options.preset], self.images, batch_size=options.batch_size, epochs=options.epochs)

    def init_state(self, key: Key[Array, ''], base: dict, *, config: ConfigDict) -> State:
        """Returns the state at step 0.

        Args:
          key: draws the first weights.
          base: the variables of the artifacts stage, whose trunk is used.
          config: the run's configuration.
        """
        trunk = {kind: tree['trunk'] for kind, tree in artifacts.discriminator(base).items()}
        trunk, size = alexnet.absorb(trunk), crop_size(config)
        _, maps = make_trunk(config).apply(trunk, jnp.zeros((1, size, size, 3)))
        drawn = make_heads(config, self.classes).init(key, maps, train=False)
        trained = {kind: {'heads': drawn.get(kind, {})} for kind in ('params', 'batch_stats')}
        frozen = {'params': {'trunk': trunk['params']}, 'batch_stats': {}}
        return State.create(trained, {('heads',): self._optimiser(config)}, ema=False, frozen=frozen)

    def train_step(
        self, state: State, batch: dict, key: Key[Array, ''], *, config: ConfigDict, axis_name: str | None = None
    ) -> tuple[State, dict]:
        """One update: minimises the sum of all classifiers' cross-entropies.

        Args:
          state: with the networks 'heads' and 'trunk'.
          batch: 'image' uint8 [B, H, W, 3], 'label' int32 [B] and 'index' int32 [B], this device's part of the batch.
          key: the stage's key.
          config: the run's configuration.
          axis_name: the devices' axis under pmap.

        Returns:
          (state, {name: scalar}); 'accuracy/LAYER' in [0, 1] is that of the first learning rate.
        """
        (crop_keys,) = keys.example_keys(key, state.step, batch['index'], 1)
        crop = getattr(views, PRESETS[config.layerwise.preset].crop)
        images = crop(crop_keys, batch['image'], crop_size(config))
        _, maps = make_trunk(config).apply({'params': state.frozen['params']['trunk']}, images)
        heads = make_heads(config, self.classes, axis_name)

        def loss(params):
            variables = {'params': params['heads'], 'batch_stats': state.batch_stats['heads']}
            logits, updates = heads.apply(variables, maps, train=True, mutable=['batch_stats'])
            terms = {
                layer: sum(mean(losses.class_loss(rate, batch['label']), axis_name) for rate in x)
                for layer, x in logits.items()
            }
            right = {
                f'accuracy/{layer}': mean((x[0].argmax(-1) == batch['label']).astype(jnp.float32), axis_name)
                for layer, x in logits.items()
            }
            values = {f'loss/{layer}': term for layer, term in terms.items()} | right
            return sum(terms.values()), (values, updates.get('batch_stats', {}))

        grads, (values, batch_stats) = jax.grad(loss, has_aux=True)(state.params)
        grads, values = total((grads, values), axis_name)
        new = state.descend(self._optimiser(config), grads)
        new = new.replace(step=state.step + 1, batch_stats={'heads': batch_stats})
        return new, {**values, 'grad_norm/heads': optax.tree.norm(grads)}

    def evaluator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns evaluate(state, key) -> {'accuracy/LAYER': in [0, 1]} on some of the test images."""
        del devices

        def evaluate(state, key):
            del key
            right, count = self.count(state.variables, datasets['test'], config.eval_examples)
            return {f'accuracy/{layer}': right[layer][0, 0] / count for layer in LAYERS}

        return evaluate

    def illustrator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns draw(state, key, folder), which draws nothing: the loop draws the curves."""
        del config, devices, datasets
        return lambda state, key, folder: None

    def _optimiser(self, config):
        preset, (steps, _) = PRESETS[config.layerwise.preset], self.plan(config)

        def is_bias(path):
            return path[-1].key.endswith('_bias')

        def decay(path):
            if path[-1].key.endswith('_kernel'):
                return preset.decay
            return preset.bias_decay if is_bias(path) else 0.0

        return sgd.sgd(
            presets.schedule(preset, steps),
            form=preset.momentum,
            decay=decay,
            multiplier=lambda path: preset.bias_rate if is_bias(path) else 1.0,
            factors=config.layerwise.rate_factors,
        )


def make_trunk(config: ConfigDict, **options):
    """Makes the trunk of the preset's geometry, with batch norm absorbed."""
    return architecture.make_trunk(config, geometry=geometry(config), normalise=False, **options)


def geometry(config: ConfigDict) -> Geometry:
    """Returns what stands around the trunk's maps."""
    chosen, preset = config.layerwise.geometry, PRESETS[config.layerwise.preset]
    return alexnet.GEOMETRIES[preset.geometry if chosen == 'preset' else chosen]


def make_heads(config: ConfigDict, classes: int, axis_name: str | None = None) -> Heads:
    """Makes the classifiers; `axis_name` names the devices under pmap."""
    return Heads(config.layerwise.preset, classes, len(config.layerwise.rate_factors), axis_name)


def crop_size(config: ConfigDict) -> int:
    """Returns the side of the crops, pixels."""
    return config.layerwise.crop_size or PRESETS[config.layerwise.preset].size


def counter(classes: int, config: ConfigDict, devices: Devices, *, ten_crop: bool = False) -> Callable:
    """Returns count(variables, dataset, limit=0) -> ({layer: int [rates, 2]}, examples): right at the first, in five.

    Args:
      classes: of the data.
      config: the run's configuration.
      devices: the mapping over devices.
      ten_crop: whether to judge by the mean over ten crops, as the preset has it, in place of the central one.
    """
    trunk, heads, size = make_trunk(config), make_heads(config, classes), crop_size(config)
    preset = PRESETS[config.layerwise.preset]
    batch_size = config.layerwise.batch_size or preset.batch_size

    def logits(variables, images):
        _, maps = trunk.apply({'params': variables['params']['trunk']}, images)
        of_heads = {kind: tree['heads'] for kind, tree in variables.items() if 'heads' in tree}
        return heads.apply(of_heads, maps, train=False)

    def judge(variables, batch):
        crops = views.ten(batch['image'], size) if ten_crop else (views.centre(batch['image'], size),)
        scores = [logits(variables, crop) for crop in crops]
        if ten_crop and preset.ten_crop == 'softmax':
            scores = jax.tree.map(jax.nn.softmax, scores)
        scores = jax.tree.map(lambda *x: sum(x), *scores)

        def right(x):  # [rates, B, classes]
            labels = jnp.broadcast_to(batch['label'][None, :, None], (*x.shape[:2], 1))
            of_label = jnp.take_along_axis(x, labels, axis=2)
            rank = (x >= of_label).sum(axis=2)  # ties count against it
            finite = jnp.isfinite(x).all(axis=2)
            return jnp.stack([(rank <= top) & finite for top in (1, TOP)], axis=2).swapaxes(0, 1)

        return {layer: right(x) for layer, x in scores.items()}

    mapped = devices.per_example(judge)

    def count(variables, dataset, limit=0):
        sums, examples = {}, 0
        for batch in dataset.eval_batches(batch_size, limit=limit):
            found = mapped(variables, batch)
            examples += len(next(iter(found.values())))
            for layer, x in found.items():
                sums[layer] = sums.get(layer, 0) + np.sum(x, axis=0, dtype=np.int64)
        return sums, examples

    return count
