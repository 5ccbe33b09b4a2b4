"""The task: FCN-32s learns VOC's masks from data.probe_train and SBD, and is tested on the lists in data.test."""

import functools
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import left_out
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.training import loop, results
from artifacts_jax.transfer import confusion, published
from artifacts_jax.transfer.voc.segmentation import (
    batches,
    lists,
    loading,
    network,
    pictures,
    presets,
    segmenter,
    stage,
)

NAME = 'voc_segmentation'
SPLITS = ()  # of the data of other tasks; it opens its own


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError for a batch that devices and parts do not divide, or where there is nothing to learn from."""
    devices.check_batch(f'{NAME}.batch_size', config.voc_segmentation.batch_size, config.accumulate)
    lists.check(config)


def examine(config: ConfigDict, datasets: dict) -> str:
    """Raises DataError if VOC, SBD, one of their lists or a mask is not what it should be; returns ''."""
    del datasets
    lists.opened(config)
    return ''


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, networks: dict) -> dict:
    """Trains, exports and tests the network; adds what it finds to results.json, and draws figures/segmentation.png.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: not used.
      networks: {'learned'}: the discriminator, with made_from, which names its state, and variables().

    Returns:
      What is in results.json: under 'voc_segmentation' {preset: {'dataset', 'preset', 'steps', 'train', 'tests': {list
      of images: {'count', 'miou', 'pixel_accuracy', 'mean_accuracy' in %, 'iou': {class: in %, None of one that is
      neither there nor predicted}}}}}.
    """
    del datasets
    workdir, found, part = Path(workdir), results.read(workdir), config.voc_segmentation.preset
    made_from = results.origin(networks['learned'].made_from, config, NAME)
    rows = found.setdefault(NAME, {})
    if results.current(found, f'{NAME}/{part}', made_from):
        return found
    train, tests = _images(config)
    for images in (train, *tests.values()):
        images.left_out.keep(workdir / left_out.FILE)
    first, segment = next(iter(tests.values())), segmenter.make(config, devices)
    training = stage.Stage(f'{NAME}/{part}', segment)
    base = {kind: {'discriminator': tree} for kind, tree in networks['learned'].variables().items()}
    opened, settings = {'train': train, 'test': first}, made_from['settings']
    state = loop.run(training, config, workdir, devices, opened, base, settings=settings)
    source = {'stage': f'{NAME}/{part}', 'step': int(state.step)}
    loading.save(workdir / NAME / part / 'export', state.variables, config, source)
    rows[part] = {
        'dataset': config.data.name,
        'preset': part,
        'steps': int(state.step),
        'train': train.used,
        'tests': {
            name: _measured(*segmenter.counted(images.records, segment(state.variables, images)))
            for name, images in tests.items()
        },
    }
    training.illustrator(config, devices, opened)(state, None, workdir / 'figures')
    if processes.is_first():
        said = ', '.join(f'{_text(row["miou"])} % on {name}' for name, row in rows[part]['tests'].items())
        print(f'{NAME}: mean IoU {said}; {workdir / "figures" / pictures.FILE} shows some', flush=True)
    results.write(workdir, found)
    left_out.say_streamed(images.left_out for images in (train, *tests.values()))
    return found


def table(found: dict) -> str:
    """Returns what `run` does as tables of text: mean IoUs beside the published, then every class's."""
    rows = [[name, row[2], '', '', ''] for name, *row in published.beside(published.VOC, {})]
    columns, counts = {}, set()
    for part, row in found[NAME].items():
        label = f'{results.label(found, f"{NAME}/{part}")}, {part}'
        for name, measured in row['tests'].items():
            accuracies = [_text(measured[key]) for key in ('pixel_accuracy', 'mean_accuracy')]
            rows.append([f'{label}, {name}', _text(measured['miou']), *accuracies, f'{row["steps"]:,}'])
            columns[f'{part}, {name}'] = measured['iou']
            counts.add(f'{row["train"]:,} training and {measured["count"]:,} test images')
    classes = [[name, *(_text(column[name]) for column in columns.values())] for name in network.CLASSES]
    return (
        f'VOC segmentation: mean IoU over the classes, accuracies of pixels and over classes, %;'
        f' {"; ".join(sorted(counts))}\n\n'
        + results.table(['', 'mean IoU', 'pixels', 'classes', 'updates'], rows)
        + f'\n{results.table(["class", *columns], classes)}'
    )


def setting(name: str, row: dict, test: str) -> str:
    """Returns a line of what a row was reached on, beside what is published on seg11valid."""
    there = published.Setting(*published.VOC12_IMAGES, presets.PRESETS[row['preset']].steps)
    here = published.Setting(row['train'], row['tests'][test]['count'], row['steps'])
    return published.setting(name, f'{row["dataset"]}, {test}', here, there)


def _images(config):
    """Returns (batches.Images of training, {list of images: those of a test})."""
    found = lists.opened(config)
    images = functools.partial(_split, config, process_index=jax.process_index(), process_count=jax.process_count())
    tests = {name: images(name, records) for name, records in found.tests.items()}
    return images('the images to learn from', found.train), tests


def _split(config, name, records, **hosts):
    record = left_out.LeftOut(f'{name} of {config.data.name}', len(records), live=True)
    return batches.Images(records, config.data.workers, seed=config.seed, left_out=record, **hosts)


def _measured(counts, images):
    return {
        'count': images,
        'miou': _percent(confusion.mean_iou(counts)),
        'pixel_accuracy': _percent(confusion.pixel_accuracy(counts)),
        'mean_accuracy': _percent(confusion.mean_accuracy(counts)),
        'iou': {name: _percent(value) for name, value in zip(network.CLASSES, confusion.iou(counts))},
    }


def _percent(value):
    return None if np.isnan(value) else 100 * float(value)


def _text(value):
    return '-' if value is None else f'{value:.1f}'
