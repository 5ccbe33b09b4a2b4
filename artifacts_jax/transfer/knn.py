"""The task: classification by the k nearest neighbours on frozen features, of the learned and of a random network.

Features are the average-pooled maps of conv1 to conv5, divided by their length, as float32. Those of data.test are
held; those of data.probe_train, the bank, come in blocks, of which the nearest neighbours are kept. It is exact, and
what it holds grows with the test images alone.
"""

import itertools
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import splits
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.features import extraction
from artifacts_jax.training import results
from artifacts_jax.transfer import neighbours
from artifacts_jax.transfer.neighbours import Nearest

NAME = 'knn'
SPLITS = ('probe_train', 'test')  # of the data, that it needs
BLOCK = 2048  # images of the bank, at a time
QUERIES = 1024  # test images on a device, at a time


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the processes."""
    del devices
    processes.check_batch('knn.batch_size', config.knn.batch_size)


def examine(config: ConfigDict, datasets: dict) -> str:
    """Raises DataError for want of labels, ConfigError if the test images' features need too much memory; returns ''.

    Held of an image are four bytes for each value of its features, and eight for each neighbour.
    """
    splits.check_learned(config.data, datasets, stage=NAME)
    options, count = config.knn, datasets['test'].num_examples
    sizes = extraction.sizes(config, options.max_values)
    each = sum(4 * size + 8 * max(options.neighbours) for size in sizes.values())
    limit, tests = config.data.memory_limit_gb * 1e9, min(options.max_test or count, count)
    if each * tests > limit:
        raise ConfigError(
            f'knn holds {each * tests / 1e9:.1f} GB for {tests:,} test images, more than data.memory_limit_gb='
            f'{config.data.memory_limit_gb:g}: set knn.max_test={int(limit // each)} or less, or a lower'
            f' knn.max_values={options.max_values} (0 is the least)'
        )
    return ''


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, networks: dict) -> dict:
    """Classifies the test images by every layer of every network; adds it to results.json.

    Results are written after each network, and a network that is in results.json already is passed over.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: {'probe_train', 'test'}: labelled data sets.
      networks: {'random', 'learned'}: discriminators, each with made_from, which names its state, and variables().

    Returns:
      What is in results.json: under 'knn' {network: {'dataset', 'train', 'test', 'layers': {layer: {k as text:
      {'accuracy', 'top5' in %, 'correct', 'count'}}}}}.
    """
    found = results.read(workdir)
    rows = found.setdefault(NAME, {})
    for name, network in results.distinct(networks).items():
        if results.current(found, f'{NAME}/{name}', results.origin(network.made_from, config, NAME)):
            continue
        print(f'{NAME}: {name}', flush=True)
        rows[name] = classify(config, devices, datasets, network.variables())
        results.write(workdir, found)
        for layer, row in rows[name]['layers'].items():
            accuracies = ', '.join(f'{each["accuracy"]:.2f} % of {k}' for k, each in row.items())
            print(f'{NAME}:   {layer} {accuracies}', flush=True)
    return found


def table(found: dict) -> str:
    """Returns what `run` does as a table of text: accuracies in %."""
    networks = found[NAME]
    last = list(networks.values())[-1]
    rows = []
    for layer, row in last['layers'].items():
        for k in row:
            pairs = ([f'{x["layers"][layer][k][key]:.2f}' for key in ('accuracy', 'top5')] for x in networks.values())
            rows.append([layer, k, *itertools.chain(*pairs)])
    headings = itertools.chain(*((name, 'top 5') for name in networks))
    return (
        f'k nearest neighbours on frozen features of {last["dataset"]}, {last["train"]:,} training and'
        f' {last["test"]:,} test images; accuracy in %\n\n{results.table(["layer", "k", *headings], rows)}'
    )


def classify(config: ConfigDict, devices: Devices, datasets: dict, variables: dict) -> dict:
    """Returns the result of one network, as in `run`."""
    options, bank, tests = config.knn, datasets['probe_train'], datasets['test']
    extract = partial(_extractor(config, devices, options.max_values), variables)
    queries, labels = extraction.collect(extract, tests.eval_batches(options.batch_size, limit=options.max_test))
    nearest = {layer: neighbours.none_yet(len(labels), max(options.neighbours)) for layer in queries}
    merge, images = devices.per_example(_merge), 0
    for block in _blocks(extract, bank, options):
        images += int((block['label'] >= 0).sum())
        for rows, part in _chunks({'queries': queries, 'nearest': nearest}, len(labels), devices):
            for layer, new in merge(block, part).items():
                for old, values in zip(nearest[layer], new):
                    old[rows] = values
    settings = {'ks': tuple(options.neighbours), 'temperature': options.temperature}
    judge = devices.per_example(partial(_judge, **settings))
    parts = [judge({}, part) for _, part in _chunks({'nearest': nearest, 'label': labels}, len(labels), devices)]
    right = {layer: sum(part[layer].sum(axis=0) for part in parts).tolist() for layer in nearest}
    layers = {
        layer: {
            str(k): {'accuracy': 100 * first / count, 'top5': 100 * five / count, 'correct': first, 'count': count}
            for k, (first, five) in zip(options.neighbours, numbers)
        }
        for count, (layer, numbers) in zip(itertools.repeat(len(labels)), right.items())
    }
    return {'dataset': config.data.name, 'train': images, 'test': len(labels), 'layers': layers}


def _extractor(config, devices, max_values):
    """Returns what extraction.extractor does, of features of length 1."""
    plain = extraction.pooled_maps(config, max_values)

    def function(variables, images):
        return {layer: neighbours.unit(x) for layer, x in plain(variables, images).items()}

    return extraction.of_views(config, devices, function)


def _blocks(extract, dataset, options):
    """Yields parts of the bank, {'bank': {layer: [b, D]}, 'label': [b]}, of one size: the last is padded, with -1."""
    batches = dataset.eval_batches(options.batch_size, limit=options.max_train)
    together = min(-(-BLOCK // options.batch_size), dataset.eval_steps(options.batch_size, options.max_train))
    while some := list(itertools.islice(batches, together)):
        maps, labels = extraction.collect(extract, some)
        missing = together * options.batch_size - len(labels)
        yield {
            'bank': {layer: np.pad(x, ((0, missing), (0, 0))) for layer, x in maps.items()},
            'label': np.pad(labels, (0, missing), constant_values=-1),
        }


def _chunks(tree, count, devices):
    """Yields (rows, this process's part of them in a tree of [count, ...]), parts of one size with a 'mask'."""
    size = processes.divisible(min(QUERIES * len(devices.devices), count))
    for start in range(0, count, size):
        rows = np.arange(start, start + size)
        chosen = {**jax.tree.map(lambda x, rows=rows: x[np.minimum(rows, count - 1)], tree), 'mask': rows < count}
        yield slice(start, min(start + size, count)), processes.part(chosen)


def _merge(block, part):
    return {
        layer: neighbours.merged(Nearest(*part['nearest'][layer]), queries, block['bank'][layer], block['label'])
        for layer, queries in part['queries'].items()
    }


def _judge(_, part, **settings):
    return {layer: neighbours.judged(nearest, part['label'], **settings) for layer, nearest in part['nearest'].items()}
