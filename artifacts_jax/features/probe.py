"""The stage probe: linear classifiers on each frozen layer of the trained network and of a random network."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import slices, splits
from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.drawing import plots
from artifacts_jax.features import extraction, lbfgs, linear, sgd_solver
from artifacts_jax.training import keys, results
from artifacts_jax.training.evaluation import Entry, Network, NotApplicable, Run, list_networks

NAME = 'probe'
SPLITS = ('probe_train', 'test')  # keys of config.data: the splits that this stage needs
PIXELS = 'pixels'  # the entry for raw pixels


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the batch size is not divisible by the number of processes."""
    del devices
    processes.check_batch('probe.batch_size', config.probe.batch_size)


def open_data(config: ConfigDict, datasets: Datasets) -> Datasets:
    """Returns the data sets.

    Raises:
      NotApplicable: the data has no labels, or too few images or classes.
    """
    for name in SPLITS:
        dataset = datasets[name]
        if not dataset.num_classes:
            raise NotApplicable(f'split {config.data[name]!r} of {config.data.name} has no labels')
    train = datasets['probe_train']
    if train.num_classes == 1:
        raise NotApplicable(f'{config.data.name} has a single class')
    count = _count(config.probe.max_train, train)
    if not 0 < round(config.probe.held_out * count) < count:
        raise NotApplicable(
            f'probe.held_out={config.probe.held_out} of {count} training images is'
            f' {round(config.probe.held_out * count)}: no image remains for the fit, or none to pick the penalty'
        )
    return datasets


def list_entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {entry: network}: raw pixels first, then every network."""
    return {PIXELS: Network(PIXELS, dict), **list_networks(config, networks)}


def evaluate(run: Run, data: Datasets, entry: Entry) -> dict:
    """Probes every layer of a network, or raw pixels.

    Returns:
      {layer: {'accuracy', 'correct', 'count', 'penalty', 'held_out_accuracy', 'dimensions'}}, accuracies in %.
    """
    variables = None if entry.key == PIXELS else entry.network.variables
    return probe(run.config, run.devices, data, variables)


def metadata(run: Run, data: Datasets) -> dict:
    """Returns the data set's name and how many images of it are used."""
    counts = {
        'train': (run.config.probe.max_train, data['probe_train']),
        'test': (run.config.probe.max_test, data['test']),
    }
    return {
        'dataset': run.config.data.name,
        **{name: min(limit or dataset.num_used, dataset.num_used) for name, (limit, dataset) in counts.items()},
    }


def columns(row: dict) -> dict[str, str]:
    """Returns the cells of a layer's row."""
    return {'': _percent(row), 'correct': results.format_fraction(row)}


def summary(row: dict) -> list[str]:
    """Returns one line of text per layer with its accuracy."""
    return [f'{layer} {_percent(result)} %' for layer, result in row.items()]


def clean_up(run: Run, all_results: dict) -> None:
    """Plots the accuracies as bars."""
    if processes.is_first():
        accuracies = {
            name: {layer: row['accuracy'] for layer, row in rows.items()} for name, rows in all_results[NAME].items()
        }
        plots.plot_probe_bars(run.workdir / 'figures' / 'probe.png', accuracies)


def table(all_results: dict) -> str:
    """Returns a table, as text, of all networks: accuracies in %, with counts."""
    networks = {name: {(layer,): row for layer, row in rows.items()} for name, rows in all_results[NAME].items()}
    pixels = networks.pop(PIXELS, {}).get((PIXELS,))
    rows = results.format_network_table(['layer'], networks, columns)
    return (
        f'Linear classifiers on frozen features of {all_results["dataset"]}, {all_results["train"]:,} training and'
        f' {all_results["test"]:,} test images; accuracy in %\n\n{rows}'
        + (f'\nraw pixels: {_percent(pixels)} % ({results.format_fraction(pixels)})\n' if pixels else '')
    )


def probe(config: ConfigDict, devices: Devices, datasets: dict, variables: dict | None) -> dict:
    """Returns {layer: result} of one network; without variables, {'pixels': result} of raw pixels.

    Raises:
      DataError: some images have no labels.
    """
    for key in ('probe_train', 'test'):
        splits.count_classes(config.data, key, datasets[key], stage=NAME)
    if variables is None:
        extract = extraction.make_view_extractor(
            config, devices, lambda _, images: {PIXELS: images.reshape(len(images), -1)}
        )
    else:
        extract = extraction.make_extractor(config, devices, config.probe.max_values)
    extract = partial(extract, variables)
    return score(config, fit(config, extract, datasets['probe_train']), extract, datasets['test'])


def fit(config: ConfigDict, extract: Callable, dataset: Any) -> dict[str, linear.Classifier]:
    """Returns {layer: classifier}, fitted to the training split with probe.solver."""
    options, examples = config.probe, _count(config.probe.max_train, dataset)
    batches = partial(dataset.eval_batches, options.batch_size, limit=options.max_train)
    dims = {layer: x.shape[1] for layer, x in extract(next(iter(batches())))[0].items()}
    size = 4 * examples * sum(dims.values())
    if options.solver == 'lbfgs' or (options.solver == 'auto' and size <= config.data.memory_limit_gb * 1e9):
        maps, labels = extraction.collect_features(extract, batches())
        return {
            layer: lbfgs.fit_lbfgs(
                maps.pop(layer),
                labels,
                num_classes=dataset.num_classes,
                penalties=options.penalties,
                held_out=options.held_out,
                iterations=options.iterations,
                key=keys.stage_key(config.seed, NAME),
            )
            for layer in dims
        }

    def epoch_batches(epoch):
        del epoch  # every epoch has the same order; tfds has shuffled the examples on disk
        for maps, examples in map(extract, batches()):
            yield maps, examples['label'], slices.is_held_out(examples['index'], options.held_out)

    return sgd_solver.fit_sgd(
        epoch_batches,
        dims=dims,
        num_classes=dataset.num_classes,
        penalties=options.penalties,
        epochs=options.epochs,
        steps_per_epoch=dataset.eval_steps(options.batch_size, options.max_train),
        learning_rate=options.learning_rate,
    )


def score(config: ConfigDict, classifiers: dict[str, linear.Classifier], extract: Callable, dataset: Any) -> dict:
    """Returns {layer: result} of classifiers on the test split; every image counts once."""
    counts = {layer: np.zeros(2, int) for layer in classifiers}
    for maps, examples in map(extract, dataset.eval_batches(config.probe.batch_size, limit=config.probe.max_test)):
        for layer, x in maps.items():
            counts[layer] += np.array(linear.compute_accuracy_counts(classifiers[layer], x, examples['label']))
    return {
        layer: {
            'accuracy': 100 * correct / count,
            'correct': int(correct),
            'count': int(count),
            'penalty': classifiers[layer].penalty,
            'held_out_accuracy': 100 * classifiers[layer].held_out_accuracy,
            'dimensions': len(classifiers[layer].mean),
        }
        for layer, (correct, count) in counts.items()
    }


def _count(limit, dataset):
    """Returns the number of used examples of a data set; a limit of 0 means all."""
    return min(limit or dataset.num_examples, dataset.num_examples)


def _percent(row):
    return results.format_number(row['accuracy'], 2)
