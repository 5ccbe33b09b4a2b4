"""The task: VISSL's linear support vector machines on frozen layers, learned and tested on VOC07 (svm.py).

Features are the maps of the trunk, pooled by the windows of VISSL's linear classifiers: 9,600 or 9,216 values. All
layers come of one pass over the images; the machines are fitted on CPU, by each process alike.
"""

import functools
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import views
from artifacts_jax.data.left_out import FILE, LeftOut
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.training import results
from artifacts_jax.transfer.layerwise.heads import shrink
from artifacts_jax.transfer.layerwise.presets import LAYERS, PRESETS
from artifacts_jax.transfer.voc import devkit, svm
from artifacts_jax.transfer.voc.squares import Squares

NAME = 'voc_svm'
SPLITS = ()  # the data is opened here
PARTS = ('all', 'low_shot')


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the processes, or the crops fit neither images nor trunk."""
    del devices
    options, size = config.voc_svm, config.voc_svm.crop_size
    processes.check_batch('voc_svm.batch_size', options.batch_size)
    if options.view == 'centre' and size > config.data.size:
        raise ConfigError(f'voc_svm.crop_size={size} is larger than the images, data.size={config.data.size}')
    architecture.check_size('voc_svm.crop_size', size, config, alexnet.GEOMETRIES[options.geometry])


def examine(config: ConfigDict, datasets: dict) -> str:
    """Raises DataError if data.name is not VOC, has not the splits, or has too few images of a class; returns ''."""
    del datasets
    opened = _open(config)
    devkit.check_known(opened, config.data.name)
    _check_labels(config, *(_labels(opened[split]) for split in (config.data.probe_train, config.data.test)))
    return ''


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, networks: dict) -> dict:
    """Trains and tests the machines of the layers; adds them to results.json.

    Results are written after each part of a layer, and one that is in results.json already is not made again.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: not used.
      networks: {'learned'}: the discriminator, with made_from, which names its state, and variables().

    Returns:
      What is in results.json: under 'voc_svm' {layer: {'all': what svm.all_images returns, 'low_shot': what
      svm.low_shot does, with numbers of shots as text}}, each with 'dataset', 'train' and 'test'.

    Raises:
      DataError: of a class there are fewer images than low-shot training draws.
    """
    found, options = results.read(workdir), config.voc_svm
    made_from = results.origin(networks['learned'].made_from, config, NAME)
    asked = [(layer, part) for layer in LAYERS if layer in options.layers for part in PARTS if part in options.parts]
    missing = [each for each in asked if not results.current(found, '/'.join((NAME, *each)), made_from)]
    if not missing:
        return found
    trunk = {kind: tree['trunk'] for kind, tree in networks['learned'].variables().items()}
    layers = tuple(dict.fromkeys(layer for layer, _ in missing))
    extract = _extractor(config, devices, layers)
    opened, splits = _open(config), (config.data.probe_train, config.data.test)
    (train, labels), (test, test_labels) = (_collect(config, workdir, extract, trunk, opened[x]) for x in splits)
    _check_labels(config, labels, test_labels)  # some images may have been left out
    for layer, part in missing:
        print(f'{NAME}: {layer}, {part}', flush=True)
        shared = {'seed': config.seed, 'costs': options.costs, 'iterations': options.iterations}
        data = train[layer], labels, test[layer], test_labels
        if part == 'all':
            row = svm.all_images(*data, **shared)
        else:
            row = svm.low_shot(*data, shots=options.shots, draws=options.draws, **shared)
            row['shots'] = {str(shot): numbers for shot, numbers in row['shots'].items()}
        counts = {'dataset': config.data.name, 'train': len(labels), 'test': len(test_labels)}
        found[NAME].setdefault(layer, {})[part] = {**row, **counts}
        results.write(workdir, found)
        print(f'{NAME}:   {", ".join(_cells(found[NAME][layer], part))}', flush=True)
    return found


def table(found: dict) -> str:
    """Returns what `run` does as a table of text: mean average precisions in %."""
    rows = {layer: found[NAME][layer] for layer in LAYERS if found[NAME].get(layer)}
    one = next(row for parts in rows.values() for row in parts.values())
    shots = list(dict.fromkeys(shot for parts in rows.values() for shot in parts.get('low_shot', {}).get('shots', ())))
    lines = []
    for layer, parts in rows.items():
        low = parts.get('low_shot', {}).get('shots', {})
        cells = [_spread(low[shot]) if shot in low else '-' for shot in shots]
        lines.append([layer, *(_cells(parts, 'all') if 'all' in parts else ['-']), *cells])
    return (
        f'{one["dataset"]}, linear support vector machines on frozen layers, {one["train"]:,} training and'
        f' {one["test"]:,} test images; mean average precision in %, of all training images, and of 1, 2, ... with each'
        f' class\n\n{results.table(["layer", "all", *shots], lines)}'
    )


def _cells(parts, part):
    row = parts[part]
    if part == 'all':
        return ['-' if row['map'] is None else f'{row["map"]:.2f}']
    return [f'{shot}: {_spread(numbers)}' for shot, numbers in row['shots'].items()]


def _spread(numbers):
    return f'{numbers["mean"]:.2f} +- {numbers["deviation"]:.2f}'


def _open(config):
    """Returns {split: records} of the training and the test images."""
    data = config.data
    return devkit.opened(data.name, (data.probe_train, data.test), data.data_dir)


@functools.lru_cache(maxsize=2)
def _labels(records):
    """Returns the labels of a split's images, int8 [N, 20], read once: those that tfds has prepared lie in files."""
    return np.stack([record.labels for record in records])


def _check_labels(config, labels, test_labels):
    """Raises DataError if there are too few images of a class for a part."""
    options = config.voc_svm
    if 'low_shot' in options.parts:
        svm.check_enough(labels, test_labels, options.shots)
    if 'all' in options.parts:
        svm.check_learned(labels, test_labels)


def _extractor(config, devices, layers):
    """Returns extract(trunk's variables, batch) -> ({layer: [B, D]}, labels [B, 20])."""
    options, preset = config.voc_svm, PRESETS['vissl']
    model = architecture.make_trunk(config, geometry=alexnet.GEOMETRIES[options.geometry], normalise=False)

    def extract(variables, batch):
        _, maps = model.apply(alexnet.absorb(variables), views.centre(batch['image'], options.crop_size))
        small = {layer: shrink(maps[layer].astype('float32'), preset, LAYERS.index(layer)) for layer in layers}
        return {layer: x.reshape(len(x), -1) for layer, x in small.items()}, batch['labels']

    return devices.per_example(extract)


def _collect(config, workdir, extract, trunk, records):
    """Returns ({layer: features [N, D]}, labels [N, 20]) of the images of a split that can be used."""
    options, place = config.voc_svm, f'VOC ({config.data.name})'
    squares = Squares(
        records,
        config.data.size if options.view == 'centre' else options.crop_size,
        options.view,
        seed=config.seed,
        workers=config.data.workers,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        left_out=LeftOut(place, len(records)),
    )
    squares.left_out.keep(Path(workdir) / FILE)
    parts = [extract(trunk, batch) for batch in squares.eval_batches(options.batch_size)]
    squares.left_out.say()
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)
