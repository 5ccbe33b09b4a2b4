"""The task: AlexNet learns VOC's classes from data.probe_train, such as trainval, and is tested on data.test."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from artifacts_jax.data import left_out
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.training import loop, results
from artifacts_jax.transfer import published
from artifacts_jax.transfer.voc import average_precision, batches, devkit
from artifacts_jax.transfer.voc.annotations import NAMES
from artifacts_jax.transfer.voc.classification import presets, stage

NAME = 'voc_classification'
SPLITS = ()  # of the data of other tasks; it opens its own


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the devices, or the trunk cannot take crops of their size."""
    options = config.voc_classification
    devices.check_batch(f'{NAME}.batch_size', options.batch_size)
    geometry = alexnet.GEOMETRIES[options.geometry]
    architecture.check_size(f'{NAME}.crop_size', options.crop_size, config, geometry, connected=True)


def examine(config: ConfigDict, datasets: dict) -> str:
    """Raises DataError if VOC or a split is not there, is not what it should be, or has no objects; returns ''."""
    del datasets
    devkit.check_known(_open(config), config.data.name)
    return ''


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, networks: dict) -> dict:
    """Trains and tests the network; adds what it finds to results.json.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: not used.
      networks: {'learned'}: the discriminator, with made_from, which names its state, and variables().

    Returns:
      What is in results.json: under 'voc_classification' {layers that learned: {'dataset', 'preset', 'steps', 'train',
      'count', 'map' and 'map_1_crop' in %, 'ap': {class: in %, None of one that no test image has}}}.
    """
    del datasets
    found, options = results.read(workdir), config.voc_classification
    made_from = results.origin(networks['learned'].made_from, config, NAME)
    rows = found.setdefault(NAME, {})
    if results.current(found, f'{NAME}/{options.train}', made_from):
        return found
    records = _open(config)
    shared = {'seed': config.seed, 'process_index': jax.process_index(), 'process_count': jax.process_count()}
    splits = {'train': config.data.probe_train, 'test': config.data.test}
    opened = {
        name: batches.load(records[split], config.data, place=f'{split} of {config.data.name}', **shared)
        for name, split in splits.items()
    }
    for images in opened.values():
        images.left_out.keep(Path(workdir) / left_out.FILE)
    score = stage.scorer(config, devices)
    training = stage.Stage(f'{NAME}/{options.train}', score)
    base = {kind: {'discriminator': tree} for kind, tree in networks['learned'].variables().items()}
    state = loop.run(training, config, Path(workdir), devices, opened, base, settings=made_from['settings'])
    values = {}
    for name, count in (('map_1_crop', 1), ('map', presets.CROPS)):
        scores, labels = score(state.variables, opened['test'], count)
        each = average_precision.of_classes(scores, labels)
        values[name] = _percent(average_precision.mean(each))
    rows[options.train] = {
        'dataset': config.data.name,
        'preset': options.preset,
        'steps': int(state.step),
        'train': opened['train'].used,
        'count': len(labels),
        **values,
        'ap': {name: _percent(value) for name, value in zip(NAMES, each)},
    }
    results.write(workdir, found)
    left_out.say_streamed(images.left_out for images in opened.values())
    if processes.is_first():
        print(f'{NAME}: mAP {_text(values["map"])} % over {presets.CROPS} crops', flush=True)
    return found


def table(found: dict) -> str:
    """Returns what `run` does as tables of text: mean average precisions beside the published, then every class's."""
    rows, settings = [[name, row[0], '', ''] for name, *row in published.beside(published.VOC, {})], ''
    for train, row in found[NAME].items():
        here = results.label(found, f'{NAME}/{train}')
        label = f'{here}, {row["preset"]}, {"all layers" if train == "all" else f"from {train} on"}'
        rows.append([label, _text(row['map']), _text(row['map_1_crop']), f'{row["steps"]:,}'])
        settings += setting(label, train, row)
    counts = [f'{row["train"]:,} training and {row["count"]:,} test images' for row in found[NAME].values()]
    classes = [[name, *(_text(row['ap'][name]) for row in found[NAME].values())] for name in NAMES]
    return (
        f'VOC classification: mean average precision, %, over ten random crops; {"; ".join(sorted(set(counts)))}\n\n'
        + results.table(['', 'mAP', 'one crop', 'updates'], rows)
        + f'{settings}\n{results.table(["class", *found[NAME]], classes)}'
    )


def setting(name: str, train: str, row: dict) -> str:
    """Returns a line of what the row of a choice of `train` was reached on, beside what is published of VOC2007."""
    there = published.Setting(*published.VOC07_IMAGES, presets.PRESETS[row['preset']][train].steps)
    return published.setting(name, row['dataset'], published.Setting(row['train'], row['count'], row['steps']), there)


def _open(config):
    """Returns {split: records} of the training and the test images."""
    data = config.data
    return devkit.opened(data.name, (data.probe_train, data.test), data.data_dir)


def _percent(value):
    return None if value is None else 100 * value


def _text(value):
    return '-' if value is None else f'{value:.1f}'
