"""The task `knn`: classification by k nearest neighbours on frozen features of the trained and of a random network.

Features are the average-pooled maps of conv1 to conv5, L2-normalised, as float32. The features of data.test (queries)
stay in memory. The features of data.probe_train (the bank) are computed in blocks, and only the nearest neighbours are
kept. The search is exact. Its memory grows with the number of test images, not with the bank.
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
SPLITS = ('probe_train', 'test')  # the splits of the data that this task needs
list_entries = list_networks
BLOCK = 2048  # images of the bank in a block
QUERIES = 1024  # test images that a device compares with a block at a time


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the batch size is not divisible by the number of processes."""
    del devices
    processes.check_batch('knn.batch_size', config.knn.batch_size)


def open_data(config: ConfigDict, datasets: Datasets) -> Datasets:
    """Returns the data sets after checking labels and memory.

    Each test image needs four bytes of memory for each value of its features, and eight bytes for each neighbour.

    Raises:
      DataError: there are no labels, or a class of the test images has no training images.
      ConfigError: the features of the test images need too much memory.
    """
    splits.check_labels(config.data, datasets, stage=NAME)
    options, num_test = config.knn, datasets['test'].num_examples
    sizes = extraction.compute_sizes(config, options.max_values)
    bytes_per_image = sum(4 * size + 8 * max(options.neighbours) for size in sizes.values())
    extraction.check_memory(config, NAME, bytes_per_image, min(options.max_test or num_test, num_test))
    return datasets


def evaluate(run: Run, data: Datasets, entry: Entry) -> dict:
    """Classifies the test images with the features of each layer of a network.

    Returns:
      {'dataset', 'train', 'test', 'layers': {layer: {k as text: {'accuracy', 'top5' in %, 'correct', 'count'}}}}.
    """
    config, devices, options = run.config, run.devices, run.config.knn
    extract = extraction.make_extractor(config, devices, options.max_values, unit_length=True)
    extract = partial(extract, entry.network.variables)
    batches = data['test'].eval_batches(options.batch_size, limit=options.max_test)
    queries, labels = extraction.collect_features(extract, batches)
    nearest, num_train = search(config, devices, extract, data['probe_train'], queries, len(labels))
    layers = score(config, devices, nearest, labels)
    return {'dataset': config.data.name, 'train': num_train, 'test': len(labels), 'layers': layers}


def columns(row: dict) -> dict[str, str]:
    """Returns the table cells of one layer and k."""
    return {'': results.format_number(row['accuracy'], 2), 'top 5': results.format_number(row['top5'], 2)}


def summary(row: dict) -> list[str]:
    """Returns the lines to print for a row: the accuracies of each layer."""
    layers = (
        (layer, ', '.join(f'{result["accuracy"]:.2f} % (k = {k})' for k, result in by_k.items()))
        for layer, by_k in row['layers'].items()
    )
    return [f'{layer} {accuracies}' for layer, accuracies in layers]


def table(all_results: dict) -> str:
    """Returns the rows of all networks as a text table: accuracies in %."""
    networks = all_results[NAME]
    last = list(networks.values())[-1]
    rows = {
        name: {(layer, k): result for layer, by_k in row['layers'].items() for k, result in by_k.items()}
        for name, row in networks.items()
    }
    return (
        f'k nearest neighbours on frozen features of {last["dataset"]}, {last["train"]:,} training and'
        f' {last["test"]:,} test images; accuracy in %\n\n'
        + results.format_network_table(['layer', 'k'], rows, columns)
    )


def search(
    config: ConfigDict, devices: Devices, extract: Callable, bank: Any, queries: dict[str, np.ndarray], num_queries: int
) -> tuple[dict[str, Nearest], int]:
    """Returns ({layer: nearest neighbours of the queries}, number of images in the bank)."""
    options, bank_size = config.knn, 0
    nearest = {layer: neighbours.make_empty(num_queries, max(options.neighbours)) for layer in queries}
    merge = devices.per_example(_merge)
    for block in _extract_blocks(extract, bank, options):
        bank_size += int((block['label'] >= 0).sum())
        for rows, chunk in _split_chunks({'queries': queries, 'nearest': nearest}, num_queries, devices):
            for layer, new in merge(block, chunk).items():
                for old, values in zip(nearest[layer], new):
                    old[rows] = values
    return nearest, bank_size


def score(config: ConfigDict, devices: Devices, nearest: dict[str, Nearest], labels: Int[np.ndarray, ' N']) -> dict:
    """Returns {layer: {k as text: result}}: the accuracies of the votes of the neighbours."""
    ks, count = tuple(config.knn.neighbours), len(labels)
    vote = devices.per_example(partial(_vote, ks=ks, temperature=config.knn.temperature))
    chunks = [vote({}, chunk) for _, chunk in _split_chunks({'nearest': nearest, 'label': labels}, count, devices)]
    correct = {layer: sum(chunk[layer].sum(axis=0) for chunk in chunks).tolist() for layer in nearest}
    return {
        layer: {
            str(k): {'accuracy': 100 * first / count, 'top5': 100 * five / count, 'correct': first, 'count': count}
            for k, (first, five) in zip(ks, numbers)
        }
        for layer, numbers in correct.items()
    }


def _extract_blocks(extract, dataset, options):
    """Yields blocks of the bank, {'bank': {layer: [b, D]}, 'label': [b]}.

    All blocks have the same size: the last one is padded, with label -1.
    """
    batches = dataset.eval_batches(options.batch_size, limit=options.max_train)
    batches_per_block = min(-(-BLOCK // options.batch_size), dataset.eval_steps(options.batch_size, options.max_train))
    while block := list(itertools.islice(batches, batches_per_block)):
        maps, labels = extraction.collect_features(extract, block)
        padding = batches_per_block * options.batch_size - len(labels)
        yield {
            'bank': {layer: np.pad(x, ((0, padding), (0, 0))) for layer, x in maps.items()},
            'label': np.pad(labels, (0, padding), constant_values=-1),
        }


def _split_chunks(tree, count, devices):
    """Yields (rows, this process's shard of these rows) for chunks of a tree of [count, ...] arrays.

    All chunks have the same size: the last one is padded. 'valid' is False for padding.
    """
    size = processes.round_up(min(QUERIES * len(devices.devices), count))
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        chunk = {**jax.tree.map(lambda x, rows=rows: x[np.minimum(rows, count - 1)], tree), 'valid': rows < count}
        yield slice(start, min(start + size, count)), processes.local_shard(chunk)


def _merge(block, chunk):
    return {
        layer: neighbours.merge(Nearest(*chunk['nearest'][layer]), queries, block['bank'][layer], block['label'])
        for layer, queries in chunk['queries'].items()
    }


def _vote(_, chunk, **options):
    return {layer: neighbours.vote(nearest, chunk['label'], **options) for layer, nearest in chunk['nearest'].items()}
