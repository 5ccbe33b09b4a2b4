"""Extracts frozen features of the discriminator's trunk, and monitors their quality during training."""

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
    """Returns extract(variables, batch) -> ({layer: [B, D]}, {'label', 'index': [B]}) of the valid examples.

    Args:
      config: the run's configuration.
      devices: distributes the batches over the devices.
      max_values: the maximum number of values D of the average-pooled maps of a layer.
      unit_length: whether to L2-normalise the features.

    Returns:
      extract. Its `variables` are those of the discriminator, {'params': ..., 'batch_stats': ...}. The layers are conv1
      to conv5, after ReLU.
    """
    return make_view_extractor(config, devices, make_pooled_trunk(config, max_values, unit_length=unit_length))


def l2_normalise(features: Float[Array, 'B D']) -> Float32[Array, 'B D']:
    """Returns L2-normalised features; zero vectors stay zero."""
    features = features.astype(jnp.float32)
    norm = jnp.linalg.norm(features, axis=1, keepdims=True)
    return features / jnp.maximum(norm, jnp.finfo(jnp.float32).tiny)


def make_pooled_trunk(config: ConfigDict, max_values: int, *, unit_length: bool = False) -> Callable:
    """Returns a function(variables, preprocessed images) -> {layer: [B, D]}, the core of `make_extractor`."""
    trunk = architecture.make_trunk(config)

    def extract(variables, images):
        _, maps = trunk.apply({kind: tree['trunk'] for kind, tree in variables.items()}, images)
        maps = {name: linear.pool(x.astype('float32'), max_values) for name, x in maps.items()}
        return {name: l2_normalise(x) for name, x in maps.items()} if unit_length else maps

    return extract


def compute_sizes(config: ConfigDict, max_values: int) -> dict[str, int]:
    """Returns the number of values of each layer's features, {layer: D}; no feature is computed."""
    trunk, side = architecture.make_trunk(config), config.model.image_size

    def extract(key):
        (_, maps), _ = trunk.init_with_output(key, jnp.zeros((1, side, side, 3)))
        return {name: linear.pool(x.astype('float32'), max_values) for name, x in maps.items()}

    return {name: x.shape[1] for name, x in jax.eval_shape(extract, jax.random.key(0)).items()}


def check_memory(config: ConfigDict, task: str, bytes_per_image: int, images: int, *, split: str = 'test') -> None:
    """Raises ConfigError if the features of a task need more memory than data.memory_limit_gb.

    Args:
      config: the run's configuration.
      task: the section of the config that has max_values, and max_test or max_train.
      bytes_per_image: bytes of the features of one image.
      images: the number of images whose features are in memory at once.
      split: 'test' or 'train'.
    """
    limit = config.data.memory_limit_gb * 1e9
    if bytes_per_image * images > limit:
        raise ConfigError(
            f'{task} needs {bytes_per_image * images / 1e9:.1f} GB for {images:,} {split} images, more than'
            f' data.memory_limit_gb={config.data.memory_limit_gb:g}: set {task}.max_{split}='
            f'{int(limit // bytes_per_image)} or less, or lower {task}.max_values={config[task].max_values} (minimum 0)'
        )


def make_view_extractor(config: ConfigDict, devices: Devices, function: Callable) -> Callable:
    """Returns the extractor of any function(variables, preprocessed test images) -> {name: [B, D]}."""

    def extract(variables, batch):
        views = augment.test_view(config, batch['image'])
        return function(variables, views), {name: batch[name] for name in ('label', 'index')}

    return devices.per_example(extract)


def collect_features(
    extract: Callable, batches: Iterable[dict]
) -> tuple[dict[str, Shaped[np.ndarray, 'N ...']], Int[np.ndarray, ' N']]:
    """Returns ({layer: features}, labels) of all examples of the batches; extract maps one batch."""
    outputs = [extract(batch) for batch in batches]
    maps, examples = jax.tree.map(lambda *xs: np.concatenate(xs), *outputs)
    return maps, examples['label']


def make_monitor(config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
    """Returns measure(variables) -> {name: value}, early indicators of the quality of the features.

    The features of a layer are the mean of its map over positions. The values are 'knn/LAYER', the accuracy of a
    k-nearest-neighbour classifier on held-out images, in [0, 1], and 'spread/LAYER' and 'rankme/LAYER' (see
    metrics.py). Without labels, or with a single class, there is no accuracy. With fewer than k labelled images, all of
    them vote.
    """
    extract = make_extractor(config, devices, 0)
    options = config.monitor

    def measure(variables):
        def extract_split(name, limit):
            batches = datasets[name].eval_batches(config.probe.batch_size, limit=limit)
            return collect_features(partial(extract, variables), batches)

        (bank, bank_labels), (queries, query_labels) = (
            extract_split('probe_train', options.bank),
            extract_split('test', options.queries),
        )
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
