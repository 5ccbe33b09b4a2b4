"""The training of the classifiers: all layers and learning rates are trained together, in the same passes."""

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
    """The stage that trains the classifiers. Its networks are 'heads' (trained) and 'trunk' (frozen)."""

    num_images: int  # number of training images
    num_classes: int

    PROGRESS_METRICS = {layer: f'accuracy/{layer}' for layer in LAYERS}  # noqa: RUF012 (ClassVar, as in TrunkStage)
    GRAD_NORMS = 'per_network'

    def get_steps_and_batch_size(self, config):
        """As TrunkStage.get_steps_and_batch_size."""
        options = config.layerwise
        return presets.get_steps_and_batch_size(
            PRESETS[options.preset], self.num_images, batch_size=options.batch_size, epochs=options.epochs
        )

    def init_variables(self, key, trunk, config):
        """As TrunkStage.init_variables: the heads are trained, the trunk is frozen."""
        trunk, size = alexnet.fold_batch_norm(trunk), get_crop_size(config)
        _, maps = make_trunk(config).apply(trunk, jnp.zeros((1, size, size, 3)))
        initial = make_heads(config, self.num_classes).init(key, maps, train=False)
        trained = {kind: {'heads': initial.get(kind, {})} for kind in ('params', 'batch_stats')}
        return trained, {'params': {'trunk': trunk['params']}, 'batch_stats': {}}

    def make_optimiser(self, config):
        """As TrunkStage.make_optimiser: the preset's."""
        preset, (steps, _) = PRESETS[config.layerwise.preset], self.get_steps_and_batch_size(config)

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
        """As TrunkStage.prepare_inputs: the feature maps of random crops, and labels."""
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
        model = make_heads(config, self.num_classes, axis_name)
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

    def compute_metrics(self, outputs, dataset):
        """As TrunkStage.compute_metrics: {'accuracy/LAYER': in [0, 1]} from the counts of `make_counter`."""
        del dataset
        correct, count = outputs
        return {f'accuracy/{layer}': correct[layer][0, 0] / count for layer in LAYERS}

    def sample_batch(self, config):
        """As TrunkStage.sample_batch."""
        batch = measure.make_noise_batch(config)
        labels = np.random.default_rng(1).integers(0, self.num_classes, config.batch_size, dtype=np.int32)
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
    """Returns the trunk with the padding of the preset, and with batch norm folded into the convolutions."""
    return architecture.make_trunk(config, geometry=get_geometry(config), normalise=False, **options)


def get_geometry(config: ConfigDict) -> Geometry:
    """Returns the padding of the trunk's layers."""
    choice, preset = config.layerwise.geometry, PRESETS[config.layerwise.preset]
    return alexnet.GEOMETRIES[preset.geometry if choice == 'preset' else choice]


def make_heads(config: ConfigDict, num_classes: int, axis_name: str | None = None) -> Heads:
    """Returns the classifiers; `axis_name` is the pmap axis of the devices."""
    return Heads(config.layerwise.preset, num_classes, len(config.layerwise.rate_factors), axis_name)


def get_crop_size(config: ConfigDict) -> int:
    """Returns the side of the crops, in pixels."""
    return config.layerwise.crop_size or PRESETS[config.layerwise.preset].size


def make_counter(num_classes: int, config: ConfigDict, devices: Devices, *, ten_crop: bool = False) -> Callable:
    """Returns count_correct(variables, dataset, limit=0) -> ({layer: int [rates, 2]}, number of examples).

    The last axis has the correct predictions in the top 1 and in the top 5.

    Args:
      num_classes: the number of classes of the data.
      config: the run's configuration.
      devices: the mapping over devices.
      ten_crop: whether to average over ten crops, as the preset does, instead of using the centre crop.
    """
    trunk, heads, size = make_trunk(config), make_heads(config, num_classes), get_crop_size(config)
    preset = PRESETS[config.layerwise.preset]
    batch_size = config.layerwise.batch_size or preset.batch_size

    def compute_logits(variables, images):
        _, maps = trunk.apply({'params': variables['params']['trunk']}, images)
        head_variables = {kind: tree['heads'] for kind, tree in variables.items() if 'heads' in tree}
        return heads.apply(head_variables, maps, train=False)

    def check_batch(variables, batch):
        crops = views.ten_crops(batch['image'], size) if ten_crop else (views.centre_crop(batch['image'], size),)
        scores = [compute_logits(variables, crop) for crop in crops]
        if ten_crop and preset.ten_crop == 'softmax':
            scores = jax.tree.map(jax.nn.softmax, scores)
        scores = jax.tree.map(lambda *x: sum(x), *scores)

        def is_correct(x):  # [rates, B, classes]
            labels = jnp.broadcast_to(batch['label'][None, :, None], (*x.shape[:2], 1))
            label_scores = jnp.take_along_axis(x, labels, axis=2)
            rank = (x >= label_scores).sum(axis=2)  # in a tie, the label has the last rank
            finite = jnp.isfinite(x).all(axis=2)
            return jnp.stack([(rank <= top) & finite for top in (1, TOP)], axis=2).swapaxes(0, 1)

        return {layer: is_correct(x) for layer, x in scores.items()}

    compiled = devices.per_example(check_batch)

    def count_correct(variables, dataset, limit=0):
        sums, num_examples = {}, 0
        for batch in dataset.eval_batches(batch_size, limit=limit):
            correct = compiled(variables, batch)
            num_examples += len(next(iter(correct.values())))
            for layer, x in correct.items():
                sums[layer] = sums.get(layer, 0) + np.sum(x, axis=0, dtype=np.int64)
        return sums, num_examples

    return count_correct


BENCHMARK = Stage(NAME='layerwise', num_images=1_281_167, num_classes=1000)  # the size of ImageNet
