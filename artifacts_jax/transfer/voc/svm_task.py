"""The task `voc_svm`: VISSL's linear SVMs on frozen layers, trained and tested on VOC07 (svm.py).

Features are the maps of the trunk, pooled by the windows of VISSL's linear classifiers to 9,600 or 9,216 values. One
pass over the images extracts the features of all layers. Each process fits all SVMs on CPU.
"""

from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import decoding, reading, views
from artifacts_jax.data.splits import Datasets
from artifacts_jax.data.voc import devkit
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer.layerwise.heads import downsample
from artifacts_jax.transfer.layerwise.presets import LAYERS, PRESETS
from artifacts_jax.transfer.voc import svm

NAME = 'voc_svm'
SPLITS = ()  # none: this task opens its own data
PARTS = ('all', 'low_shot')


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the processes cannot share the batch equally, or the crops do not fit images or trunk."""
    del devices
    options, size = config.voc_svm, config.voc_svm.crop_size
    processes.check_batch('voc_svm.batch_size', options.batch_size)
    if options.view == 'centre' and size > config.data.size:
        raise ConfigError(
            f'voc_svm.crop_size={size}: larger than the images, data.size={config.data.size}; set a smaller crop size'
        )
    architecture.check_size('voc_svm.crop_size', size, config, alexnet.GEOMETRIES[options.geometry])


class Data:
    """The records of the training and test images, and their extracted features."""

    def __init__(self, config: ConfigDict, records: dict[str, Sequence]):
        self.records = [records[split] for split in (config.data.probe_train, config.data.test)]
        self._features = {}

    def features(self, run: Run, entry: Entry) -> tuple:
        """Returns ({layer: features}, labels) for both splits, with all layers that this run evaluates."""
        if entry.network.provenance not in self._features:
            layers = tuple(dict.fromkeys(key.partition('/')[0] for key in entry.pending))
            extract, trunk = _make_extractor(run.config, run.devices, layers), entry.network.trunk
            features = tuple(_collect_features(run, extract, trunk, records) for records in self.records)
            _check_labels(run.config, *(labels for _, labels in features))  # again, because images may be skipped
            self._features = {entry.network.provenance: features}
        return self._features[entry.network.provenance]


def open_data(config: ConfigDict, datasets: Datasets) -> Data:
    """Returns the data.

    Raises:
      DataError: data.name is not VOC, a split is missing, or a class has too few images.
    """
    records = devkit.open_splits(config, datasets)
    devkit.check_positives(records, config.data.name)
    data = Data(config, records)
    _check_labels(config, *(np.stack([record.labels for record in split]) for split in data.records))
    return data


def list_entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {'LAYER/PART': the trained network}, where PART is 'all' or 'low_shot'."""
    options = config.voc_svm
    keys = [f'{layer}/{part}' for layer in LAYERS if layer in options.layers for part in PARTS if part in options.parts]
    return dict.fromkeys(keys, networks['learned'])


def evaluate(run: Run, data: Data, entry: Entry) -> dict:
    """Trains and tests the SVMs of a layer.

    Returns:
      The result of svm.train_on_all or svm.train_low_shot, with shots as text, and 'dataset', 'train' and 'test'.

    Raises:
      DataError: a class has fewer images than low-shot training needs.
    """
    options, (layer, part) = run.config.voc_svm, entry.key.split('/')
    (train, labels), (test, test_labels) = data.features(run, entry)
    shared = {'seed': run.config.seed, 'costs': options.costs, 'iterations': options.iterations}
    arrays = train[layer], labels, test[layer], test_labels
    if part == 'all':
        row = svm.train_on_all(*arrays, **shared)
    else:
        row = svm.train_low_shot(*arrays, shots=options.shots, draws=options.draws, **shared)
        row['shots'] = {str(shot): numbers for shot, numbers in row['shots'].items()}
    return {**row, 'dataset': run.config.data.name, 'train': len(labels), 'test': len(test_labels)}


def summary(row: dict) -> list[str]:
    """Returns the lines to print for a row: the mean average precisions."""
    if 'shots' not in row:
        return [results.format_number(row['map'], 2)]
    return [f'k = {shot}: {_format_spread(numbers)}' for shot, numbers in row['shots'].items()]


def table(all_results: dict) -> str:
    """Returns the rows as a text table: mean average precisions in %."""
    rows = {layer: all_results[NAME][layer] for layer in LAYERS if all_results[NAME].get(layer)}
    first_row = next(row for parts in rows.values() for row in parts.values())
    shots = list(dict.fromkeys(shot for parts in rows.values() for shot in parts.get('low_shot', {}).get('shots', ())))
    lines = []
    for layer, parts in rows.items():
        low_shot = parts.get('low_shot', {}).get('shots', {})
        cells = [_format_spread(low_shot[shot]) if shot in low_shot else '-' for shot in shots]
        lines.append([layer, results.format_number(parts.get('all', {}).get('map'), 2), *cells])
    return (
        f'{first_row["dataset"]}, linear support vector machines on frozen layers, {first_row["train"]:,} training and'
        f' {first_row["test"]:,} test images; mean average precision in %, for all training images, and for k = 1, 2,'
        f' ... images with each class\n\n{results.format_table(["layer", "all", *shots], lines)}'
    )


def _format_spread(numbers):
    return f'{numbers["mean"]:.2f} +- {numbers["deviation"]:.2f}'


def open_images(config: ConfigDict, records: Sequence) -> reading.StreamedDataset:
    """Returns a data set of square images, 'image' uint8 [b, size, size, 3], with 'labels' int8 [b, 20].

    | voc_svm.view | square image | used by VISSL for |
    |---|---|---|
    | `whole` | the whole image, resized to a square | AlexNet |
    | `centre` | the central square | ResNet |

    Source: facebookresearch/vissl, configs/config/benchmark/linear_image_classification/voc07. VISSL resizes an image
    twice; this code resizes once.
    """
    options = config.voc_svm
    size = config.data.size if options.view == 'centre' else options.crop_size

    def load(record):
        whole = options.view == 'whole'
        image = decoding.resize_to_square(record.read_image(), size) if whole else decoding.decode(record.file, size)
        return {'image': image, 'labels': record.labels}

    shapes = {'image': ((size, size, 3), np.uint8), 'labels': ((len(NAMES),), np.int8)}
    fields = reading.make_options(config, records, f'VOC ({config.data.name})', live=False)
    return reading.StreamedDataset(load=load, shapes=shapes, **fields)


def _check_labels(config, labels, test_labels):
    """Raises DataError if a class has too few images for one of voc_svm.parts."""
    options = config.voc_svm
    if 'low_shot' in options.parts:
        svm.check_enough(labels, test_labels, options.shots)
    if 'all' in options.parts:
        svm.check_trainable(labels, test_labels)


def _make_extractor(config, devices, layers):
    """Returns extract(variables of the trunk, batch) -> ({layer: features [B, D]}, labels [B, 20])."""
    options, preset = config.voc_svm, PRESETS['vissl']
    model = architecture.make_trunk(config, geometry=alexnet.GEOMETRIES[options.geometry], normalise=False)

    def extract(variables, batch):
        _, maps = model.apply(alexnet.fold_batch_norm(variables), views.centre_crop(batch['image'], options.crop_size))
        pooled = {layer: downsample(maps[layer].astype('float32'), preset, LAYERS.index(layer)) for layer in layers}
        return {layer: x.reshape(len(x), -1) for layer, x in pooled.items()}, batch['labels']

    return devices.per_example(extract)


def _collect_features(run, extract, trunk, records):
    """Returns ({layer: features [N, D]}, labels [N, 20]) of the usable images of a split."""
    config, options = run.config, run.config.voc_svm
    squares = open_images(config, records)
    run.track_skipped(squares)
    features = [extract(trunk, batch) for batch in squares.eval_batches(options.batch_size)]
    squares.skipped.report()
    return jax.tree.map(lambda *xs: np.concatenate(xs), *features)
