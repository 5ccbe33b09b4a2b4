"""Frozen features of the discriminator's trunk: how they are extracted, and how good they look during training."""

from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax import augment, linear, metrics, models
from artifacts_jax.parallel import Devices

LAYERS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')


def extractor(config: ConfigDict, devices: Devices, max_values: int) -> Callable:
    """Returns extract(variables, batch) -> {layer: [B, D]}, average-pooled maps of at most max_values values.

    `variables` are the discriminator's, {'params': ..., 'batch_stats': ...}; layers are conv1..conv5, after ReLU.
    """
    trunk = models.make_trunk(config)

    def extract(variables, batch):
        images = augment.test_view(config, batch['image'])
        _, maps = trunk.apply({kind: tree['trunk'] for kind, tree in variables.items()}, images)
        return {name: linear.pool(x.astype('float32'), max_values) for name, x in maps.items()}

    return devices.per_example(extract)


def collect(extract: Callable, batches):
    """Returns ({layer: [N, D]}, labels [N]) of all examples that the batches' masks count; extract maps a batch."""
    parts, labels = [], []
    for batch in batches:
        keep = batch['mask']
        parts.append(jax.tree.map(lambda x, keep=keep: x[keep], extract(batch)))
        labels.append(batch['label'][keep])
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts), np.concatenate(labels)


def monitor(config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
    """Returns measure(variables) -> {name: value}, an early sign of whether the features get better.

    For each layer, on its map's mean over positions: 'knn/LAYER', the accuracy of a k-nearest-neighbour classifier
    of held-out images (left out where there are no labels), 'spread/LAYER' and 'rankme/LAYER' (see metrics.py).
    """
    extract = extractor(config, devices, 0)
    options = config.monitor

    def measure(variables):
        def of(name, limit):
            batches = datasets[name].eval_batches(config.probe.batch_size, limit=limit)
            return collect(partial(extract, variables), batches)

        (bank, bank_labels), (queries, query_labels) = of('probe_train', options.bank), of('test', options.queries)
        labelled = min(bank_labels.min(), query_labels.min()) >= 0
        values = {}
        for name in LAYERS:
            if labelled:
                values[f'knn/{name}'] = metrics.knn_accuracy(
                    bank[name],
                    bank_labels,
                    queries[name],
                    query_labels,
                    k=options.neighbours,
                    num_classes=datasets['test'].num_classes,
                )
            values[f'spread/{name}'] = metrics.spread(queries[name])
            values[f'rankme/{name}'] = metrics.rankme(queries[name])
        return {name: float(value) for name, value in values.items()}

    return measure
