"""The task: Fast R-CNN learns VOC's objects from data.probe_train, such as trainval, and is tested on data.test."""

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
SPLITS = ()  # of the data of other tasks; it opens its own


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError for a batch that the devices do not divide, or scales that the trunk cannot take."""
    devices.check_batch(f'{NAME}.batch_size', config.voc_detection.batch_size)
    shorter_sides, longest = scales.resolve_scales(config)
    geometry = fast_rcnn.geometry(config.model.kernels[0])
    for key, shorter in zip(('scales', 'test_scales'), shorter_sides.values()):
        if min(shorter) < 1 or longest < max(shorter):
            raise ConfigError(
                f'{NAME}.{key}={shorter} with {NAME}.longest={longest}: expected lengths of the shorter side, from 1 up'
                f' to what the longer one may be'
            )
        architecture.check_size(f'{NAME}.{key}', min(shorter), config, geometry)


class Data:
    """Records and proposals of a configuration; those of selective search are searched when they are asked for."""

    def __init__(self, config: ConfigDict, datasets: Datasets, records: dict[str, Sequence]):
        self.config, self.datasets, self.records = config, datasets, records
        if config.voc_detection.proposals != proposals.SELECTIVE_SEARCH:
            for split in records:
                _ = self.proposals(split, None)

    def proposals(self, split: str, workdir: Path | None) -> list:
        """Returns the boxes of each image of a split, read or searched once."""
        options, folder = self.config.voc_detection, None
        source = options.proposals.replace('{split}', split)
        if source == proposals.SELECTIVE_SEARCH:
            given = options.proposal_folder
            folder = Path(given).expanduser() if given else workdir / NAME / 'proposals'  # type: ignore[operator]
        place, workers = f'{split} of {self.config.data.name}', self.config.data.workers
        load = partial(proposals.load, self.records[split], source, place=place, folder=folder, workers=workers)
        return self.datasets.cache(('proposals', source, place, folder), load)

    def images(self, workdir: Path) -> dict[str, batches.Images]:
        """Returns {'train', 'test'}."""
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
      DataError: VOC, a split, which must have objects, or its proposals are not as they must.
    """
    records = devkit.open_splits(config, datasets)
    devkit.check_positives(records, config.data.name)
    return Data(config, datasets, records)


def entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {the preset and how many layers are frozen: the learned network}."""
    options = config.voc_detection
    return {f'{options.preset}_frozen{options.frozen}': networks['learned']}


def evaluate(run: Run, data: Data, entry: Entry) -> dict:
    """Trains and tests the detector.

    WORKDIR/voc_detection/ENTRY gets the export, and the devkit's files of detections; figures/detections.png is drawn.

    Returns:
      {'dataset', 'preset', 'frozen', 'steps', 'train', 'count', 'map' in %, 'ap': {class: in %, None of one that no
      test image has}}.
    """
    config, folder, options = run.config, run.workdir / entry.name, run.config.voc_detection
    opened, detect = data.images(run.workdir), detector.make_detect_fn(config, run.devices)
    run.track_skipped(*opened.values())
    if processes.is_first():
        print(f'{NAME}: {scales.describe_padded_sizes(opened["train"].padded_sizes)}', flush=True)
    state = run.train(stage.Stage(NAME=entry.name, predict=detect), entry, opened)
    detector.save(folder / 'export', state.variables, config, {'stage': entry.name, 'step': int(state.step)})
    test = opened['test']
    detected = detect(state.variables, test)
    each = stage.compute_average_precisions(test.records, detected)
    if processes.is_first():
        names = [test.records[row].name for row in detected]
        detections.write_devkit_files(folder / 'detections', config.data.test, names, list(detected.values()))
        first = {row: detected[row] for row in list(detected)[: detections.NUM_PHOTOGRAPHS]}
        figure = run.workdir / 'figures' / detections.FIGURE
        detections.plot_detections(figure, test.records, first, step=int(state.step))
        print(f"{NAME}: the devkit's files and the export are in {folder}", flush=True)
    return {
        'dataset': config.data.name,
        'preset': options.preset,
        'frozen': options.frozen,
        'steps': int(state.step),
        'train': opened['train'].num_used,
        'count': len(detected),
        'map': results.to_percent(average_precision.mean(each)),
        'ap': {name: results.to_percent(value) for name, value in zip(NAMES, each)},
    }


def summary(row: dict) -> list[str]:
    """Returns the mean average precision."""
    return [f'mAP {results.format_number(row["map"])} %']


def columns(row: dict) -> dict[str, str]:
    """Returns the cells of a row."""
    return {'mAP': results.format_number(row['map']), 'updates': f'{row["steps"]:,}'}


def table(found: dict) -> str:
    """Returns the rows as tables of text: mean average precisions beside the published, then every class's."""
    rows = {}
    for part, row in found[NAME].items():
        frozen = {0: 'nothing frozen', 1: 'conv1 frozen'}.get(row['frozen'], f'conv1 to conv{row["frozen"]} frozen')
        rows[f'{results.get_label(found, f"{NAME}/{part}")}, {row["preset"]}, {frozen}'] = columns(row)
    counts = {f'{row["train"]:,} training and {row["count"]:,} test images' for row in found[NAME].values()}
    title = f'VOC detection: mean average precision at IoU 0.5, %, at eleven recalls; {"; ".join(sorted(counts))}'
    return published.format_voc_tables(title, 1, rows, {part: row['ap'] for part, row in found[NAME].items()})


def format_setting(name: str, row: dict) -> str:
    """Returns a line of what a row was reached on, beside what is published of VOC2007."""
    there = published.Setting(*published.VOC07_IMAGES, scales.PRESETS[row['preset']].steps)
    here = published.Setting(row['train'], row['count'], row['steps'])
    return published.format_setting(name, row['dataset'], here, there)
