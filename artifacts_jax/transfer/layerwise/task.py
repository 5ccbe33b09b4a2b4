"""The task `layerwise`: linear classifiers on conv1 to conv5, trained on data.probe_train, tested on data.test."""

from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import splits
from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import architecture
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import published
from artifacts_jax.transfer.layerwise import presets, stage
from artifacts_jax.transfer.layerwise.presets import LAYERS, PRESETS

NAME = 'layerwise'
SPLITS = ('probe_train', 'test')  # the splits of the data that this task needs


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the batch size is not divisible by the devices, or the crops do not fit images or trunk."""
    _, batch_size = presets.get_steps_and_batch_size(
        PRESETS[config.layerwise.preset], 1, batch_size=config.layerwise.batch_size
    )
    devices.check_batch('layerwise.batch_size', batch_size)
    size = stage.get_crop_size(config)
    if size > config.data.size:
        raise ConfigError(
            f'layerwise.crop_size={size}: larger than the images, data.size={config.data.size}; set a smaller crop size'
            f' (published: 227 or 224 of 256)'
        )
    architecture.check_size('layerwise.crop_size', size, config, stage.get_geometry(config))


def open_data(config: ConfigDict, datasets: Datasets) -> Datasets:
    """Returns the data sets.

    Raises:
      DataError: there are no labels, or a class of the test images has no training images.
    """
    splits.check_labels(config.data, datasets, stage=NAME)
    return datasets


def list_entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {preset: the trained network}."""
    return {config.layerwise.preset: networks['learned']}


def is_complete(config: ConfigDict, row: dict) -> bool:
    """Returns whether a row has the ten-crop results, if layerwise.ten_crop is set."""
    return not config.layerwise.ten_crop or 'ten_crop' in row


def evaluate(run: Run, data: Datasets, entry: Entry) -> dict:
    """Trains and tests the classifiers.

    Returns:
      {'dataset', 'train', 'steps', 'rates', 'layers': {layer: [result for each rate]}}. A result is {'accuracy' and
      'top5' in %, 'correct', 'count'}. With layerwise.ten_crop, 'ten_crop' has the results of ten crops, like 'layers'.
    """
    config, train, test = run.config, data['probe_train'], data['test']
    num_classes = splits.count_classes(config.data, 'probe_train', train, stage=NAME)
    count_correct = stage.make_counter(num_classes, config, run.devices)
    training = stage.Stage(
        NAME=entry.name, num_images=train.num_examples, num_classes=num_classes, evaluate_fn=count_correct
    )
    state = run.train(training, entry, {'train': train, 'test': test})
    row = {
        'dataset': config.data.name,
        'train': train.num_used,
        'steps': training.get_steps_and_batch_size(config)[0],
        'rates': [PRESETS[entry.key].rate * factor for factor in config.layerwise.rate_factors],
        'layers': _compute_accuracies(*count_correct(state.variables, test)),
    }
    if config.layerwise.ten_crop:
        count_ten_crop = stage.make_counter(num_classes, config, run.devices, ten_crop=True)
        row['ten_crop'] = _compute_accuracies(*count_ten_crop(state.variables, test))
    return row


def summary(row: dict) -> list[str]:
    """Returns the lines to print for a row: the accuracy of each layer, for the first learning rate."""
    return [f'{layer} {accuracies[0]["accuracy"]:.2f} %' for layer, accuracies in row['layers'].items()]


def table(all_results: dict) -> str:
    """Returns the rows as text tables: top-1 accuracies in %, for ImageNet with the published ones."""
    text = ''
    for preset, row in all_results[NAME].items():
        ours = {}
        here = f'{results.get_label(all_results, f"{NAME}/{preset}")}, {preset}'
        imagenet = row['dataset'].startswith('imagenet2012')
        for kind, name in (('layers', here), ('ten_crop', f'{here}, ten crops')):
            for n, rate in enumerate(row['rates'] if kind in row else ()):
                label = name if len(row['rates']) == 1 else f'{name}, rate {rate:g}'
                ours[label] = tuple(row[kind][layer][n]['accuracy'] for layer in LAYERS)
        if imagenet:
            title, rows = published.IMAGENET.title, published.add_published_rows(published.IMAGENET, ours)
        else:
            title = f'{row["dataset"]}, linear classifiers on frozen layers: top-1 accuracy, %'
            rows = [[name, *(f'{x:.2f}' for x in numbers)] for name, numbers in ours.items()]
        counts = f'{row["train"]:,} training and {row["layers"][LAYERS[0]][0]["count"]:,} test images'
        text += f'{title}; {counts}\n\n{results.format_table(["", *LAYERS], rows)}'
        text += (format_setting(here, preset, row) if imagenet else '') + '\n'
    return text.removesuffix('\n')


def format_setting(name: str, preset: str, row: dict) -> str:
    """Returns a line with the setting of a row, and the published setting on ImageNet."""
    steps, _ = presets.get_steps_and_batch_size(PRESETS[preset], published.IMAGENET_IMAGES[0])
    ours = published.Setting(row['train'], row['layers'][LAYERS[0]][0]['count'], row['steps'])
    return published.format_setting(name, row['dataset'], ours, published.Setting(*published.IMAGENET_IMAGES, steps))


def _compute_accuracies(correct, count):
    """Returns {layer: [{'accuracy', 'top5', 'correct', 'count'} for each rate]} from counts as of `make_counter`."""
    return {
        layer: [
            {'accuracy': 100 * first / count, 'top5': 100 * five / count, 'correct': first, 'count': count}
            for first, five in x.tolist()
        ]
        for layer, x in correct.items()
    }
