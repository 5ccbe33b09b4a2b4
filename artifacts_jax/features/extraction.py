"""Frozen features of the discriminator's trunk: how they are extracted, and how good they look during training."""

from collections.abc import Callable, Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Shaped
from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import augment
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import linear
from artifacts_jax.models import architecture
from artifacts_jax.training import metrics

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')


def make_extractor(config: ConfigDict, devices: Devices, max_values: int, *, unit_length: bool = False) -> Callable:
    """Returns extract(variables, batch) -> ({layer: [B, D]}, {'label', 'index': [B]}), of the examples that count.

    The features are average-pooled maps of at most max_values values, of their own length or of length 1. `variables`
    are the discriminator's, {'params': ..., 'batch_stats': ...}; layers are conv1..conv5, after ReLU.
    """
    return make_view_extractor(config, devices, make_pooled_trunk(config, max_values, unit_length=unit_length))


def normalise_length(features: Float[Array, 'B D']) -> Float32[Array, 'B D']:
    """Returns features of length 1; those of length 0 stay."""
    features = features.astype(jnp.float32)
    length = jnp.linalg.norm(features, axis=1, keepdims=True)
    return features / jnp.maximum(length, jnp.finfo(jnp.float32).tiny)


def make_pooled_trunk(config: ConfigDict, max_values: int, *, unit_length: bool = False) -> Callable:
    """Returns what `extractor` has at heart: a function(variables, images as the networks see them)."""
    trunk = architecture.make_trunk(config)

    def maps(variables, images):
        _, maps = trunk.apply({kind: tree['trunk'] for kind, tree in variables.items()}, images)
        maps = {name: linear.pool(x.astype('float32'), max_values) for name, x in maps.items()}
        return {name: normalise_length(x) for name, x in maps.items()} if unit_length else maps

    return maps


def compute_sizes(config: ConfigDict, max_values: int) -> dict[str, int]:
    """Returns how many values each layer's features have, {layer: D}; nothing is computed."""
    trunk, side = architecture.make_trunk(config), config.model.image_size

    def maps(key):
        (_, maps), _ = trunk.init_with_output(key, jnp.zeros((1, side, side, 3)))
        return {name: linear.pool(x.astype('float32'), max_values) for name, x in maps.items()}

    return {name: x.shape[1] for name, x in jax.eval_shape(maps, jax.random.key(0)).items()}


def check_memory(config: ConfigDict, task: str, each: int, images: int, *, split: str = 'test') -> None:
    """Raises ConfigError if the features that a task holds of images need more memory than the config allows.

    Args:
      config: the run's configuration.
      task: the section of the config that has max_values, and max_test or max_train.
      each: bytes held of an image.
      images: how many are held.
      split: 'test' or 'train'.
    """
    limit = config.data.memory_limit_gb * 1e9
    if each * images > limit:
        raise ConfigError(
            f'{task} holds {each * images / 1e9:.1f} GB for {images:,} {split} images, more than data.memory_limit_gb='
            f'{config.data.memory_limit_gb:g}: set {task}.max_{split}={int(limit // each)} or less, or a lower'
            f' {task}.max_values={config[task].max_values} (0 is the least)'
        )


def make_view_extractor(config: ConfigDict, devices: Devices, function: Callable) -> Callable:
    """Returns what `extractor` does for any function(variables, test views of images) -> {name: [B, D]}."""

    def extract(variables, batch):
        views = augment.test_view(config, batch['image'])
        return function(variables, views), {name: batch[name] for name in ('label', 'index')}

    return devices.per_example(extract)


def collect_features(
    extract: Callable, batches: Iterable[dict]
) -> tuple[dict[str, Shaped[np.ndarray, 'N ...']], Int[np.ndarray, ' N']]:
    """Returns ({layer: features}, labels) of all examples of the batches; extract maps a batch, as `extractor`."""
    parts = [extract(batch) for batch in batches]
    maps, examples = jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
    return maps, examples['label']


def make_monitor(config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
    """Returns measure(variables) -> {name: value}, an early sign of whether the features get better.

    For each layer, on its map's mean over positions: 'knn/LAYER', the accuracy of a k-nearest-neighbour classifier
    of held-out images (left out where there are no labels or one class; of fewer images than neighbours all vote),
    'spread/LAYER' and 'rankme/LAYER' (see metrics.py).
    """
    extract = make_extractor(config, devices, 0)
    options = config.monitor

    def measure(variables):
        def of(name, limit):
            batches = datasets[name].eval_batches(config.probe.batch_size, limit=limit)
            return collect_features(partial(extract, variables), batches)

        (bank, bank_labels), (queries, query_labels) = of('probe_train', options.bank), of('test', options.queries)
        classes = datasets['test'].num_classes if min(bank_labels.min(), query_labels.min()) >= 0 else 0
        values = {}
        for name in LAYERS:
            if classes > 1:
                values[f'knn/{name}'] = metrics.knn_accuracy(
                    bank[name],
                    bank_labels,
                    queries[name],
                    query_labels,
                    k=min(options.neighbours, len(bank_labels)),
                    num_classes=classes,
                )
            values[f'spread/{name}'] = metrics.spread(queries[name])
            values[f'rankme/{name}'] = metrics.rankme(queries[name])
        return {name: float(value) for name, value in values.items()}

    return measure
