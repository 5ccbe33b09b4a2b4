"""The task: Fast R-CNN learns VOC's objects from data.probe_train, such as trainval, and is tested on data.test."""

import functools
from pathlib import Path

import jax
from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import left_out
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import architecture, fast_rcnn
from artifacts_jax.training import loop, results
from artifacts_jax.transfer import published
from artifacts_jax.transfer.voc import average_precision, devkit
from artifacts_jax.transfer.voc.annotations import NAMES
from artifacts_jax.transfer.voc.detection import (
    batches,
    canvases,
    detections,
    detector,
    loading,
    pictures,
    presets,
    proposals,
    stage,
)

NAME = 'voc_detection'
SPLITS = ()  # of the data of other tasks; it opens its own


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError for a batch that the devices do not divide, or scales that the trunk cannot take."""
    devices.check_batch(f'{NAME}.batch_size', config.voc_detection.batch_size)
    scales, longest = presets.seen_at(config)
    geometry = fast_rcnn.geometry(config.model.kernels[0])
    for key, shorter in zip(('scales', 'test_scales'), scales.values()):
        if min(shorter) < 1 or longest < max(shorter):
            raise ConfigError(
                f'{NAME}.{key}={shorter} with {NAME}.longest={longest}: expected lengths of the shorter side, from 1 up'
                f' to what the longer one may be'
            )
        architecture.check_size(f'{NAME}.{key}', min(shorter), config, geometry)


def examine(config: ConfigDict, datasets: dict) -> str:
    """Raises DataError if VOC, a split, which must have objects, or its proposals are not as they must; returns ''."""
    del datasets
    records = _open(config)
    devkit.check_known(records, config.data.name)
    if config.voc_detection.proposals != proposals.SEARCH:
        for split in records:
            _proposals(config, split, records[split], None)
    return ''


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, networks: dict) -> dict:
    """Trains and tests the detector; adds what it finds to results.json.

    WORKDIR/voc_detection/PART gets the export, and the devkit's files of detections; figures/detections.png is drawn.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: not used.
      networks: {'learned'}: the discriminator, with made_from, which names its state, and variables().

    Returns:
      What is in results.json: under 'voc_detection' {PART, the preset and how many layers are frozen: {'dataset',
      'preset', 'frozen', 'steps', 'train', 'count', 'map' in %, 'ap': {class: in %, None of one that no test image
      has}}}.
    """
    del datasets
    workdir, found, options = Path(workdir), results.read(workdir), config.voc_detection
    part = f'{options.preset}_frozen{options.frozen}'
    made_from = results.origin(networks['learned'].made_from, config, NAME)
    rows = found.setdefault(NAME, {})
    if results.current(found, f'{NAME}/{part}', made_from):
        return found
    opened = _images(config, workdir)
    detect = detector.make(config, devices)
    training = stage.Stage(f'{NAME}/{part}', detect)
    base = {kind: {'discriminator': tree} for kind, tree in networks['learned'].variables().items()}
    state = loop.run(training, config, workdir, devices, opened, base, settings=made_from['settings'])
    folder = workdir / NAME / part
    loading.save(folder / 'export', state.variables, config, {'stage': f'{NAME}/{part}', 'step': int(state.step)})
    test = opened['test']
    detected = detect(state.variables, test)
    each = stage.precision(test.records, detected)
    rows[part] = {
        'dataset': config.data.name,
        'preset': options.preset,
        'frozen': options.frozen,
        'steps': int(state.step),
        'train': opened['train'].used,
        'count': len(detected),
        'map': _percent(average_precision.mean(each)),
        'ap': {name: _percent(value) for name, value in zip(NAMES, each)},
    }
    if processes.is_first():
        names = [test.records[row].name for row in detected]
        detections.write(folder / 'detections', config.data.test, names, list(detected.values()))
        first = {row: detected[row] for row in list(detected)[: pictures.COUNT]}
        pictures.draw(workdir / 'figures' / pictures.FILE, test.records, first, step=int(state.step))
        print(
            f"{NAME}: mAP {_text(rows[part]['map'])} %; the devkit's files and the export are in {folder}", flush=True
        )
    results.write(workdir, found)
    left_out.say_streamed(images.left_out for images in opened.values())
    return found


def table(found: dict) -> str:
    """Returns what `run` does as tables of text: mean average precisions beside the published, then every class's."""
    rows = [[name, row[1], ''] for name, *row in published.beside(published.VOC, {})]
    for part, row in found[NAME].items():
        frozen = f'conv1 to conv{row["frozen"]} frozen' if row['frozen'] > 1 else ['nothing frozen', 'conv1 frozen']
        frozen = frozen if isinstance(frozen, str) else frozen[row['frozen']]
        label = f'{results.label(found, f"{NAME}/{part}")}, {row["preset"]}, {frozen}'
        rows.append([label, _text(row['map']), f'{row["steps"]:,}'])
    counts = {f'{row["train"]:,} training and {row["count"]:,} test images' for row in found[NAME].values()}
    classes = [[name, *(_text(row['ap'][name]) for row in found[NAME].values())] for name in NAMES]
    return (
        f'VOC detection: mean average precision at IoU 0.5, %, at eleven recalls; {"; ".join(sorted(counts))}\n\n'
        + results.table(['', 'mAP', 'updates'], rows)
        + f'\n{results.table(["class", *found[NAME]], classes)}'
    )


def setting(name: str, row: dict) -> str:
    """Returns a line of what a row was reached on, beside what is published of VOC2007."""
    there = published.Setting(*published.VOC07_IMAGES, presets.PRESETS[row['preset']].steps)
    return published.setting(name, row['dataset'], published.Setting(row['train'], row['count'], row['steps']), there)


def _images(config, workdir):
    """Returns {'train', 'test'}: batches.Images."""
    records, (scales, longest) = _open(config), presets.seen_at(config)
    opened = {}
    for name, split in {'train': config.data.probe_train, 'test': config.data.test}.items():
        opened[name] = batches.Images(
            records[split],
            _proposals(config, split, records[split], workdir),
            scales[name],
            longest,
            config.voc_detection.boxes,
            config.data.workers,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            left_out=left_out.LeftOut(_place(config, split), len(records[split]), live=True),
        )
        opened[name].left_out.keep(workdir / left_out.FILE)
    if processes.is_first():
        print(f'{NAME}: {canvases.described(opened["train"].canvases)}', flush=True)
    return opened


def _open(config):
    """Returns {split: records} of the training and the test images."""
    data = config.data
    return devkit.opened(data.name, (data.probe_train, data.test), data.data_dir)


def _proposals(config, split, records, workdir):
    """Returns the proposals of a split, read or searched once."""
    source, folder = config.voc_detection.proposals.replace('{split}', split), None
    if source == proposals.SEARCH:
        given = config.voc_detection.proposal_folder
        folder = Path(given).expanduser() if given else workdir / NAME / 'proposals'
    return _loaded(records, source, _place(config, split), folder, config.data.workers)


@functools.lru_cache(maxsize=2)
def _loaded(records, source, place, folder, workers):
    return proposals.load(records, source, place=place, folder=folder, workers=workers)


def _place(config, split):
    return f'{split} of {config.data.name}'


def _percent(value):
    return None if value is None else 100 * value


def _text(value):
    return '-' if value is None else f'{value:.1f}'
