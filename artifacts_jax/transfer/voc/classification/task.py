"""The task `voc_classification`: AlexNet is trained on data.probe_train, such as trainval, and tested on data.test."""

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
SPLITS = ()  # none: this task opens its own data


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the devices cannot share the batch equally, or the crops are too small for the trunk."""
    options = config.voc_classification
    devices.check_batch(f'{NAME}.batch_size', options.batch_size)
    geometry = alexnet.GEOMETRIES[options.geometry]
    architecture.check_size(f'{NAME}.crop_size', options.crop_size, config, geometry, connected=True)


def open_data(config: ConfigDict, datasets: Datasets) -> dict[str, Sequence]:
    """Returns {split: records} of the training and test images.

    Raises:
      DataError: VOC or a split is missing or invalid, or has no objects.
    """
    records = devkit.open_splits(config, datasets)
    devkit.check_positives(records, config.data.name)
    return records


def list_entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {choice of voc_classification.train: the trained network}."""
    return {config.voc_classification.train: networks['learned']}


def evaluate(run: Run, data: dict[str, Sequence], entry: Entry) -> dict:
    """Trains and tests the network.

    Returns:
      {'dataset', 'preset', 'steps', 'train', 'count', 'map' and 'map_1_crop' in %, 'ap': {class: in %, or None for a
      class without test images}}.
    """
    config = run.config
    splits = {'train': config.data.probe_train, 'test': config.data.test}
    images = {
        name: stage.open_images(config, data[split], f'{split} of {config.data.name}') for name, split in splits.items()
    }
    run.track_skipped(*images.values())
    score = stage.make_scorer(config, run.devices)
    state = run.train(stage.Stage(NAME=entry.name, evaluate_fn=score), entry, images)
    values = {}
    for name, count in (('map_1_crop', 1), ('map', stage.CROPS)):
        scores, labels = score(state.variables, images['test'], crops=count)
        precisions = average_precision.compute_per_class(scores, labels)
        values[name] = results.to_percent(average_precision.mean(precisions))
    return {
        'dataset': config.data.name,
        'preset': config.voc_classification.preset,
        'steps': int(state.step),
        'train': images['train'].num_used,
        'count': len(labels),
        **values,
        'ap': {name: results.to_percent(value) for name, value in zip(NAMES, precisions)},
    }


def summary(row: dict) -> list[str]:
    """Returns the lines to print for a row: the mean average precision."""
    return [f'mAP {results.format_number(row["map"])} % over {stage.CROPS} crops']


def columns(row: dict) -> dict[str, str]:
    """Returns the table cells of a row."""
    texts = {name: results.format_number(row[key]) for name, key in (('mAP', 'map'), ('one crop', 'map_1_crop'))}
    return {**texts, 'updates': f'{row["steps"]:,}'}


def table(all_results: dict) -> str:
    """Returns the rows as text tables: mean average precisions with the published ones, then those of each class."""
    rows, settings = {}, ''
    for train, row in all_results[NAME].items():
        here = results.get_label(all_results, f'{NAME}/{train}')
        label = f'{here}, {row["preset"]}, {"all layers" if train == "all" else f"from {train} on"}'
        rows[label] = columns(row)
        settings += format_setting(label, train, row)
    counts = {f'{row["train"]:,} training and {row["count"]:,} test images' for row in all_results[NAME].values()}
    title = f'VOC classification: mean average precision, %, over ten random crops; {"; ".join(sorted(counts))}'
    classes = {train: row['ap'] for train, row in all_results[NAME].items()}
    return published.format_voc_tables(title, 0, rows, classes, settings)


def format_setting(name: str, train: str, row: dict) -> str:
    """Returns a line with the setting of a row, and the published setting on VOC2007."""
    theirs = published.Setting(*published.VOC07_IMAGES, stage.PRESETS[row['preset']][train].steps)
    ours = published.Setting(row['train'], row['count'], row['steps'])
    return published.format_setting(name, row['dataset'], ours, theirs)
