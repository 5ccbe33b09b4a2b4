"""The task: AlexNet learns VOC's classes from data.probe_train, such as trainval, and is tested on data.test."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from artifacts_jax.data.splits import Datasets
from artifacts_jax.data.voc import devkit
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import alexnet, architecture
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import published
from artifacts_jax.transfer.voc import average_precision
from artifacts_jax.transfer.voc.classification import stage

NAME = 'voc_classification'
SPLITS = ()  # of the data of other tasks; it opens its own


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the devices, or the trunk cannot take crops of their size."""
    options = config.voc_classification
    devices.check_batch(f'{NAME}.batch_size', options.batch_size)
    geometry = alexnet.GEOMETRIES[options.geometry]
    architecture.check_size(f'{NAME}.crop_size', options.crop_size, config, geometry, connected=True)


def open_data(config: ConfigDict, datasets: Datasets) -> dict[str, Sequence]:
    """Returns {split: records} of the training and the test images.

    Raises:
      DataError: VOC or a split is not there, is not what it should be, or has no objects.
    """
    records = devkit.open_splits(config, datasets)
    devkit.check_positives(records, config.data.name)
    return records


def entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {the layers that learn: the learned network}."""
    return {config.voc_classification.train: networks['learned']}


def evaluate(run: Run, data: dict[str, Sequence], entry: Entry) -> dict:
    """Trains and tests the network.

    Returns:
      {'dataset', 'preset', 'steps', 'train', 'count', 'map' and 'map_1_crop' in %, 'ap': {class: in %, None of one that
      no test image has}}.
    """
    config = run.config
    splits = {'train': config.data.probe_train, 'test': config.data.test}
    opened = {
        name: stage.open_images(config, data[split], f'{split} of {config.data.name}') for name, split in splits.items()
    }
    run.track_skipped(*opened.values())
    score = stage.make_scorer(config, run.devices)
    state = run.train(stage.Stage(NAME=entry.name, predict=score), entry, opened)
    values = {}
    for name, count in (('map_1_crop', 1), ('map', stage.CROPS)):
        scores, labels = score(state.variables, opened['test'], crops=count)
        each = average_precision.compute_per_class(scores, labels)
        values[name] = results.to_percent(average_precision.mean(each))
    return {
        'dataset': config.data.name,
        'preset': config.voc_classification.preset,
        'steps': int(state.step),
        'train': opened['train'].num_used,
        'count': len(labels),
        **values,
        'ap': {name: results.to_percent(value) for name, value in zip(NAMES, each)},
    }


def summary(row: dict) -> list[str]:
    """Returns the mean average precision."""
    return [f'mAP {results.format_number(row["map"])} % over {stage.CROPS} crops']


def columns(row: dict) -> dict[str, str]:
    """Returns the cells of a row."""
    texts = {name: results.format_number(row[key]) for name, key in (('mAP', 'map'), ('one crop', 'map_1_crop'))}
    return {**texts, 'updates': f'{row["steps"]:,}'}


def table(found: dict) -> str:
    """Returns the rows as tables of text: mean average precisions beside the published, then every class's."""
    rows, settings = {}, ''
    for train, row in found[NAME].items():
        here = results.get_label(found, f'{NAME}/{train}')
        label = f'{here}, {row["preset"]}, {"all layers" if train == "all" else f"from {train} on"}'
        rows[label] = columns(row)
        settings += format_setting(label, train, row)
    counts = {f'{row["train"]:,} training and {row["count"]:,} test images' for row in found[NAME].values()}
    title = f'VOC classification: mean average precision, %, over ten random crops; {"; ".join(sorted(counts))}'
    classes = {train: row['ap'] for train, row in found[NAME].items()}
    return published.format_voc_tables(title, 0, rows, classes, settings)


def format_setting(name: str, train: str, row: dict) -> str:
    """Returns a line of what the row of a choice of `train` was reached on, beside what is published of VOC2007."""
    there = published.Setting(*published.VOC07_IMAGES, stage.PRESETS[row['preset']][train].steps)
    here = published.Setting(row['train'], row['count'], row['steps'])
    return published.format_setting(name, row['dataset'], here, there)
