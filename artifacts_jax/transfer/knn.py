"""The task: classification by the k nearest neighbours on frozen features, of the learned and of a random network.

Features are the average-pooled maps of conv1 to conv5, divided by their length, as float32. Those of data.test are
held; those of data.probe_train, the bank, come in blocks, of which the nearest neighbours are kept. It is exact, and
what it holds grows with the test images alone.
"""

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from artifacts_jax.data import splits
from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import extraction
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Run, list_networks
from artifacts_jax.transfer import neighbours
from artifacts_jax.transfer.neighbours import Nearest

NAME = 'knn'
SPLITS = ('probe_train', 'test')  # of the data, that it needs
entries = list_networks
BLOCK = 2048  # images of the bank, at a time
QUERIES = 1024  # test images on a device, at a time


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the processes."""
    del devices
    processes.check_batch('knn.batch_size', config.knn.batch_size)


def open_data(config: ConfigDict, datasets: Datasets) -> Datasets:
    """Returns the data sets, which have labels and test images whose features fit into memory.

    Held of an image are four bytes for each value of its features, and eight for each neighbour.

    Raises:
      DataError: there are no labels, or test images of classes without training images.
      ConfigError: the test images' features need too much memory.
    """
    splits.check_labels(config.data, datasets, stage=NAME)
    options, count = config.knn, datasets['test'].num_examples
    sizes = extraction.compute_sizes(config, options.max_values)
    each = sum(4 * size + 8 * max(options.neighbours) for size in sizes.values())
    extraction.check_memory(config, NAME, each, min(options.max_test or count, count))
    return datasets


def evaluate(run: Run, data: Datasets, entry: Entry) -> dict:
    """Classifies the test images by every layer of a network.

    Returns:
      {'dataset', 'train', 'test', 'layers': {layer: {k as text: {'accuracy', 'top5' in %, 'correct', 'count'}}}}.
    """
    config, devices, options = run.config, run.devices, run.config.knn
    extract = extraction.make_extractor(config, devices, options.max_values, unit_length=True)
    extract = partial(extract, entry.network.variables)
    batches = data['test'].eval_batches(options.batch_size, limit=options.max_test)
    queries, labels = extraction.collect_features(extract, batches)
    nearest, images = fit(config, devices, extract, data['probe_train'], queries, len(labels))
    layers = score(config, devices, nearest, labels)
    return {'dataset': config.data.name, 'train': images, 'test': len(labels), 'layers': layers}


def columns(row: dict) -> dict[str, str]:
    """Returns the cells of a layer's row for a k."""
    return {'': results.format_number(row['accuracy'], 2), 'top 5': results.format_number(row['top5'], 2)}


def summary(row: dict) -> list[str]:
    """Returns the accuracies of each layer."""
    layers = (
        (layer, ', '.join(f'{each["accuracy"]:.2f} % of {k}' for k, each in x.items()))
        for layer, x in row['layers'].items()
    )
    return [f'{layer} {accuracies}' for layer, accuracies in layers]


def table(found: dict) -> str:
    """Returns the rows of all networks as a table of text: accuracies in %."""
    networks = found[NAME]
    last = list(networks.values())[-1]
    rows = {
        name: {(layer, k): each for layer, ks in row['layers'].items() for k, each in ks.items()}
        for name, row in networks.items()
    }
    return (
        f'k nearest neighbours on frozen features of {last["dataset"]}, {last["train"]:,} training and'
        f' {last["test"]:,} test images; accuracy in %\n\n'
        + results.format_network_table(['layer', 'k'], rows, columns)
    )


def fit(
    config: ConfigDict, devices: Devices, extract: Callable, bank: Any, queries: dict[str, np.ndarray], count: int
) -> tuple[dict[str, Nearest], int]:
    """Returns ({layer: the nearest neighbours of the queries}, how many images of the bank there are)."""
    options, images = config.knn, 0
    nearest = {layer: neighbours.make_empty(count, max(options.neighbours)) for layer in queries}
    merge = devices.per_example(_merge)
    for block in _blocks(extract, bank, options):
        images += int((block['label'] >= 0).sum())
        for rows, part in _chunks({'queries': queries, 'nearest': nearest}, count, devices):
            for layer, new in merge(block, part).items():
                for old, values in zip(nearest[layer], new):
                    old[rows] = values
    return nearest, images


def score(config: ConfigDict, devices: Devices, nearest: dict[str, Nearest], labels: Int[np.ndarray, ' N']) -> dict:
    """Returns {layer: {k as text: result}} of the votes of the queries' neighbours."""
    ks, count = tuple(config.knn.neighbours), len(labels)
    judge = devices.per_example(partial(_judge, ks=ks, temperature=config.knn.temperature))
    parts = [judge({}, part) for _, part in _chunks({'nearest': nearest, 'label': labels}, count, devices)]
    correct = {layer: sum(part[layer].sum(axis=0) for part in parts).tolist() for layer in nearest}
    return {
        layer: {
            str(k): {'accuracy': 100 * first / count, 'top5': 100 * five / count, 'correct': first, 'count': count}
            for k, (first, five) in zip(ks, numbers)
        }
        for layer, numbers in correct.items()
    }


def _blocks(extract, dataset, options):
    """Yields parts of the bank, {'bank': {layer: [b, D]}, 'label': [b]}, of one size: the last is padded, with -1."""
    batches = dataset.eval_batches(options.batch_size, limit=options.max_train)
    together = min(-(-BLOCK // options.batch_size), dataset.eval_steps(options.batch_size, options.max_train))
    while some := list(itertools.islice(batches, together)):
        maps, labels = extraction.collect_features(extract, some)
        missing = together * options.batch_size - len(labels)
        yield {
            'bank': {layer: np.pad(x, ((0, missing), (0, 0))) for layer, x in maps.items()},
            'label': np.pad(labels, (0, missing), constant_values=-1),
        }


def _chunks(tree, count, devices):
    """Yields (rows, this process's part of them in a tree of [count, ...]), parts of one size with 'valid'."""
    size = processes.round_up(min(QUERIES * len(devices.devices), count))
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        chosen = {**jax.tree.map(lambda x, rows=rows: x[np.minimum(rows, count - 1)], tree), 'valid': rows < count}
        yield slice(start, min(start + size, count)), processes.local_shard(chosen)


def _merge(block, part):
    return {
        layer: neighbours.merge(Nearest(*part['nearest'][layer]), queries, block['bank'][layer], block['label'])
        for layer, queries in part['queries'].items()
    }


def _judge(_, part, **settings):
    return {layer: neighbours.vote(nearest, part['label'], **settings) for layer, nearest in part['nearest'].items()}
