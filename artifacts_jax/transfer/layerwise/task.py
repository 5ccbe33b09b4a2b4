"""The task: linear classifiers on conv1 to conv5, learned from data.probe_train and tested on data.test."""

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
SPLITS = ('probe_train', 'test')  # of the data, that it needs


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the devices, or the crops do not fit the images or the trunk."""
    _, batch_size = presets.plan(PRESETS[config.layerwise.preset], 1, batch_size=config.layerwise.batch_size)
    devices.check_batch('layerwise.batch_size', batch_size)
    size = stage.get_crop_size(config)
    if size > config.data.size:
        raise ConfigError(
            f'layerwise.crop_size={size} is larger than the images, data.size={config.data.size}: give'
            f' a smaller crop; published is 227 or 224 of 256'
        )
    architecture.check_size('layerwise.crop_size', size, config, stage.get_geometry(config))


def open_data(config: ConfigDict, datasets: Datasets) -> Datasets:
    """Returns the data sets.

    Raises:
      DataError: there are no labels, or test images of classes without training images.
    """
    splits.check_labels(config.data, datasets, stage=NAME)
    return datasets


def entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {preset: the learned network}."""
    return {config.layerwise.preset: networks['learned']}


def is_complete(config: ConfigDict, row: dict) -> bool:
    """Returns whether a row has the ten crops, if they are asked for."""
    return not config.layerwise.ten_crop or 'ten_crop' in row


def evaluate(run: Run, data: Datasets, entry: Entry) -> dict:
    """Trains and tests the classifiers.

    Returns:
      {'dataset', 'train', 'test', 'steps', 'rates', 'layers': {layer: {'accuracy', 'top5' in %, 'correct', 'count'} for
      each rate}, 'ten_crop': the same, if asked}.
    """
    config, train, test = run.config, data['probe_train'], data['test']
    classes = splits.count_classes(config.data, 'probe_train', train, stage=NAME)
    count = stage.make_counter(classes, config, run.devices)
    training = stage.Stage(NAME=entry.name, images=train.num_examples, classes=classes, predict=count)
    state = run.train(training, entry, {'train': train, 'test': test})
    row = {
        'dataset': config.data.name,
        'train': train.num_used,
        'steps': training.plan(config)[0],
        'rates': [PRESETS[entry.key].rate * factor for factor in config.layerwise.rate_factors],
        'layers': _accuracies(*count(state.variables, test)),
    }
    if config.layerwise.ten_crop:
        ten = stage.make_counter(classes, config, run.devices, ten_crop=True)
        row['ten_crop'] = _accuracies(*ten(state.variables, test))
    return row


def summary(row: dict) -> list[str]:
    """Returns the accuracy of each layer, of the first learning rate."""
    return [f'{layer} {accuracies[0]["accuracy"]:.2f} %' for layer, accuracies in row['layers'].items()]


def table(found: dict) -> str:
    """Returns the rows as tables of text: top-1 accuracies in %, for ImageNet beside the published ones."""
    text = ''
    for preset, row in found[NAME].items():
        ours = {}
        here = f'{results.get_label(found, f"{NAME}/{preset}")}, {preset}'
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
        text += (setting(here, preset, row) if imagenet else '') + '\n'
    return text.removesuffix('\n')


def setting(name: str, preset: str, row: dict) -> str:
    """Returns a line of what a preset's row was reached on, beside what is published of ImageNet."""
    steps, _ = presets.plan(PRESETS[preset], published.IMAGENET_IMAGES[0])
    here = published.Setting(row['train'], row['layers'][LAYERS[0]][0]['count'], row['steps'])
    return published.format_setting(name, row['dataset'], here, published.Setting(*published.IMAGENET_IMAGES, steps))


def _accuracies(right, count):
    """Returns {layer: [{'accuracy', 'top5', 'correct', 'count'} for each rate]}."""
    return {
        layer: [
            {'accuracy': 100 * first / count, 'top5': 100 * five / count, 'correct': first, 'count': count}
            for first, five in x.tolist()
        ]
        for layer, x in right.items()
    }
