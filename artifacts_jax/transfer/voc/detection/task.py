"""The task: trains Fast R-CNN on the objects of data.probe_train, such as trainval, and tests it on data.test."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import reading
from artifacts_jax.data.splits import Datasets
from artifacts_jax.data.voc import devkit
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import architecture, fast_rcnn
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import published
from artifacts_jax.transfer.voc import average_precision
from artifacts_jax.transfer.voc.detection import batches, detections, detector, proposals, scales, stage

NAME = 'voc_detection'
SPLITS = ()  # open_data opens VOC itself, not the splits of config.data


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the devices do not divide the batch, or if the scales do not fit the trunk."""
    devices.check_batch(f'{NAME}.batch_size', config.voc_detection.batch_size)
    shorter_sides, longest = scales.resolve_scales(config)
    geometry = fast_rcnn.geometry(config.model.kernels[0])
    for key, shorter in zip(('scales', 'test_scales'), shorter_sides.values()):
        if min(shorter) < 1 or longest < max(shorter):
            raise ConfigError(
                f'{NAME}.{key}={shorter} with {NAME}.longest={longest}: expected lengths of the shorter side from 1 to'
                f' {NAME}.longest'
            )
        architecture.check_size(f'{NAME}.{key}', min(shorter), config, geometry)


class Data:
    """The records and proposals of a configuration.

    Proposals from a file are read at once; selective search runs at the first access.
    """

    def __init__(self, config: ConfigDict, datasets: Datasets, records: dict[str, Sequence]):
        self.config, self.datasets, self.records = config, datasets, records
        if config.voc_detection.proposals != proposals.SELECTIVE_SEARCH:
            for split in records:
                _ = self.proposals(split, None)

    def proposals(self, split: str, workdir: Path | None) -> list:
        """Returns the proposals of each image of a split; they are read or computed once, and then cached."""
        options, folder = self.config.voc_detection, None
        source = options.proposals.replace('{split}', split)
        if source == proposals.SELECTIVE_SEARCH:
            configured = options.proposal_folder
            folder = Path(configured).expanduser() if configured else workdir / NAME / 'proposals'  # type: ignore[operator]
        title, workers = f'{split} of {self.config.data.name}', self.config.data.workers
        load = partial(proposals.load, self.records[split], source, split=title, folder=folder, workers=workers)
        return self.datasets.cache(('proposals', source, title, folder), load)

    def images(self, workdir: Path) -> dict[str, batches.Images]:
        """Returns {'train': images, 'test': images}."""
        config, (shorter_sides, longest) = self.config, scales.resolve_scales(self.config)
        return {
            name: batches.Images(
                proposals=self.proposals(split, workdir),
                shorter_sides=shorter_sides[name],
                longest=longest,
                max_proposals=config.voc_detection.boxes,
                **reading.make_options(config, self.records[split], f'{split} of {config.data.name}'),
            )
            for name, split in {'train': config.data.probe_train, 'test': config.data.test}.items()
        }


def open_data(config: ConfigDict, datasets: Datasets) -> Data:
    """Returns the data.

    Raises:
      DataError: VOC or a proposal file is missing or invalid, or a split has no objects.
    """
    records = devkit.open_splits(config, datasets)
    devkit.check_positives(records, config.data.name)
    return Data(config, datasets, records)


def list_entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {PRESET_frozenN: the trained network}, where N is the number of frozen layers."""
    options = config.voc_detection
    return {f'{options.preset}_frozen{options.frozen}': networks['learned']}


def evaluate(run: Run, data: Data, entry: Entry) -> dict:
    """Trains and tests the detector.

    Writes the export and the detections in the devkit's format into WORKDIR/voc_detection/ENTRY, and the figure
    figures/detections.png.

    Returns:
      {'dataset', 'preset', 'frozen', 'steps', 'train', 'count', 'map', 'ap': {class: average precision}}. 'train' and
      'count' are numbers of images. Precisions are in %, and None for a class without test objects.
    """
    config, folder, options = run.config, run.workdir / entry.name, run.config.voc_detection
    opened, detect = data.images(run.workdir), detector.make_detect_fn(config, run.devices)
    run.track_skipped(*opened.values())
    if processes.is_first():
        print(f'{NAME}: {scales.describe_padded_sizes(opened["train"].padded_sizes)}', flush=True)
    state = run.train(stage.Stage(NAME=entry.name, evaluate_fn=detect), entry, opened)
    detector.save(folder / 'export', state.variables, config, {'stage': entry.name, 'step': int(state.step)})
    test = opened['test']
    detected = detect(state.variables, test)
    precisions = stage.compute_average_precisions(test.records, detected)
    if processes.is_first():
        names = [test.records[row].name for row in detected]
        detections.write_devkit_files(folder / 'detections', config.data.test, names, list(detected.values()))
        first = {row: detected[row] for row in list(detected)[: detections.NUM_PHOTOGRAPHS]}
        figure = run.workdir / 'figures' / detections.FIGURE
        detections.plot_detections(figure, test.records, first, step=int(state.step))
        print(f"{NAME}: the export and the detections in the devkit's format are in {folder}", flush=True)
    return {
        'dataset': config.data.name,
        'preset': options.preset,
        'frozen': options.frozen,
        'steps': int(state.step),
        'train': opened['train'].num_used,
        'count': len(detected),
        'map': results.to_percent(average_precision.mean(precisions)),
        'ap': {name: results.to_percent(value) for name, value in zip(NAMES, precisions)},
    }


def summary(row: dict) -> list[str]:
    """Returns the mean average precision, as one line of text."""
    return [f'mAP {results.format_number(row["map"])} %']


def columns(row: dict) -> dict[str, str]:
    """Returns {heading: text} of a row."""
    return {'mAP': results.format_number(row['map']), 'updates': f'{row["steps"]:,}'}


def table(all_results: dict) -> str:
    """Returns the results as text tables: mAP beside the published rows, then the AP of each class."""
    rows = {}
    for entry, row in all_results[NAME].items():
        frozen = {0: 'nothing frozen', 1: 'conv1 frozen'}.get(row['frozen'], f'conv1 to conv{row["frozen"]} frozen')
        rows[f'{results.get_label(all_results, f"{NAME}/{entry}")}, {row["preset"]}, {frozen}'] = columns(row)
    counts = {f'{row["train"]:,} training and {row["count"]:,} test images' for row in all_results[NAME].values()}
    title = f'VOC detection: 11-point mean average precision at IoU 0.5, %; {"; ".join(sorted(counts))}'
    return published.format_voc_tables(title, 1, rows, {entry: row['ap'] for entry, row in all_results[NAME].items()})


def format_setting(name: str, row: dict) -> str:
    """Returns a line with the numbers of images and updates of a row, and of the published rows for VOC2007."""
    theirs = published.Setting(*published.VOC07_IMAGES, scales.PRESETS[row['preset']].steps)
    ours = published.Setting(row['train'], row['count'], row['steps'])
    return published.format_setting(name, row['dataset'], ours, theirs)
