"""The training of the classifiers, as the loop runs it: all layers and learning rates in the same passes."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import views
from artifacts_jax.devices.parallel import Devices, mean
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.models.discriminator import Geometry
from artifacts_jax.pretraining import losses
from artifacts_jax.training import caffe_sgd, keys, measure
from artifacts_jax.transfer.layerwise import presets
from artifacts_jax.transfer.layerwise.heads import Heads
from artifacts_jax.transfer.layerwise.presets import LAYERS, PRESETS
from artifacts_jax.transfer.stage import TrunkStage

TOP = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage(TrunkStage):
    """The training. Its networks are 'heads', trained, and 'trunk', frozen."""

    images: int  # in the training split
    classes: int

    PROGRESS_METRICS = {layer: f'accuracy/{layer}' for layer in LAYERS}  # noqa: RUF012 (ClassVar, as in TrunkStage)
    GRAD_NORMS = 'per_network'

    def plan(self, config):
        """As TrunkStage.plan."""
        options = config.layerwise
        return presets.plan(PRESETS[options.preset], self.images, batch_size=options.batch_size, epochs=options.epochs)

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: the heads are trained, the trunk is frozen."""
        trunk, size = alexnet.absorb(trunk), get_crop_size(config)
        _, maps = make_trunk(config).apply(trunk, jnp.zeros((1, size, size, 3)))
        drawn = make_heads(config, self.classes).init(key, maps, train=False)
        trained = {kind: {'heads': drawn.get(kind, {})} for kind in ('params', 'batch_stats')}
        return trained, {'params': {'trunk': trunk['params']}, 'batch_stats': {}}

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: the preset's."""
        preset, (steps, _) = PRESETS[config.layerwise.preset], self.plan(config)

        def is_bias(path):
            return path[-1].key.endswith('_bias')

        def decay(path):
            if path[-1].key.endswith('_kernel'):
                return preset.decay
            return preset.bias_decay if is_bias(path) else 0.0

        return caffe_sgd.caffe_sgd(
            presets.make_schedule(preset, steps),
            form=preset.momentum,
            decay=decay,
            multiplier=lambda path: preset.bias_rate if is_bias(path) else 1.0,
            factors=config.layerwise.rate_factors,
        )

    def prepare_inputs(self, variables, batch, key, step, *, config, axis_name):
        """As TrunkStage.prepare_inputs: the maps of crops, and labels."""
        del axis_name
        (crop_keys,) = keys.example_keys(key, step, batch['index'], 1)
        crop = getattr(views, PRESETS[config.layerwise.preset].crop)
        images = crop(crop_keys, batch['image'], get_crop_size(config))
        _, maps = make_trunk(config).apply({'params': variables['params']['trunk']}, images)
        return maps, batch['label']

    def compute_losses(self, variables, inputs, *, config, axis_name):
        """As TrunkStage.compute_losses: cross-entropies of all classifiers, accuracies of the first learning rate."""
        maps, labels = inputs
        heads = {kind: variables[kind]['heads'] for kind in ('params', 'batch_stats')}
        model = make_heads(config, self.classes, axis_name)
        logits, updates = model.apply(heads, maps, train=True, mutable=['batch_stats'])
        values = {
            f'loss/{layer}': sum(mean(losses.class_loss(rate, labels), axis_name) for rate in x)
            for layer, x in logits.items()
        }
        values |= {
            f'accuracy/{layer}': mean((x[0].argmax(-1) == labels).astype(jnp.float32), axis_name)
            for layer, x in logits.items()
        }
        return values, {'heads': updates.get('batch_stats', {})}

    def compute_metrics(self, predicted, dataset):
        """Returns {'accuracy/LAYER': in [0, 1]} of what `counter` counts."""
        del dataset
        right, count = predicted
        return {f'accuracy/{layer}': right[layer][0, 0] / count for layer in LAYERS}

    def sample_batch(self, config):
        """As TrunkStage.sample_batch."""
        batch = measure.make_noise_batch(config)
        labels = np.random.default_rng(1).integers(0, self.classes, config.batch_size, dtype=np.int32)
        return {**batch, 'label': labels}

    def time_components(self, config, batch, steps):
        """Returns {'trunk_s': seconds of the trunk's forward pass}."""
        trunk, size = make_trunk(config), get_crop_size(config)
        variables = jax.jit(trunk.init)(jax.random.key(0), jnp.zeros((1, size, size, 3)))

        def maps(variables, images):
            return trunk.apply(variables, images)[1]

        return {
            'trunk_s': measure.measure_seconds(maps, variables, views.centre_crop(batch['image'], size), steps=steps)
        }


def make_trunk(config: ConfigDict, **options):
    """Makes the trunk of the preset's geometry, with batch norm absorbed."""
    return architecture.make_trunk(config, geometry=get_geometry(config), normalise=False, **options)


def get_geometry(config: ConfigDict) -> Geometry:
    """Returns what stands around the trunk's maps."""
    chosen, preset = config.layerwise.geometry, PRESETS[config.layerwise.preset]
    return alexnet.GEOMETRIES[preset.geometry if chosen == 'preset' else chosen]


def make_heads(config: ConfigDict, classes: int, axis_name: str | None = None) -> Heads:
    """Makes the classifiers; `axis_name` names the devices under pmap."""
    return Heads(config.layerwise.preset, classes, len(config.layerwise.rate_factors), axis_name)


def get_crop_size(config: ConfigDict) -> int:
    """Returns the side of the crops, pixels."""
    return config.layerwise.crop_size or PRESETS[config.layerwise.preset].size


def make_counter(classes: int, config: ConfigDict, devices: Devices, *, ten_crop: bool = False) -> Callable:
    """Returns count(variables, dataset, limit=0) -> ({layer: int [rates, 2]}, examples): right at the first, in five.

    Args:
      classes: of the data.
      config: the run's configuration.
      devices: the mapping over devices.
      ten_crop: whether to judge by the mean over ten crops, as the preset has it, in place of the central one.
    """
    trunk, heads, size = make_trunk(config), make_heads(config, classes), get_crop_size(config)
    preset = PRESETS[config.layerwise.preset]
    batch_size = config.layerwise.batch_size or preset.batch_size

    def logits(variables, images):
        _, maps = trunk.apply({'params': variables['params']['trunk']}, images)
        of_heads = {kind: tree['heads'] for kind, tree in variables.items() if 'heads' in tree}
        return heads.apply(of_heads, maps, train=False)

    def judge(variables, batch):
        crops = views.ten_crops(batch['image'], size) if ten_crop else (views.centre_crop(batch['image'], size),)
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


BENCHMARK = Stage(NAME='layerwise', images=1_281_167, classes=1000)  # ImageNet's
