"""The task: linear classifiers on conv1 to conv5, learned from data.probe_train and tested on data.test."""

from pathlib import Path

from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import splits
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import architecture
from artifacts_jax.training import loop, results
from artifacts_jax.transfer import published
from artifacts_jax.transfer.layerwise import presets, stage
from artifacts_jax.transfer.layerwise.presets import LAYERS, PRESETS

NAME = 'layerwise'
SPLITS = ('probe_train', 'test')  # of the data, that it needs


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the devices, or the crops do not fit the images or the trunk."""
    _, batch_size = presets.plan(PRESETS[config.layerwise.preset], 1, batch_size=config.layerwise.batch_size)
    devices.check_batch('layerwise.batch_size', batch_size)
    size = stage.crop_size(config)
    if size > config.data.size:
        raise ConfigError(
            f'layerwise.crop_size={size} is larger than the images, data.size={config.data.size}: give'
            f' a smaller crop; published is 227 or 224 of 256'
        )
    architecture.check_size('layerwise.crop_size', size, config, stage.geometry(config))


def examine(config: ConfigDict, datasets: dict) -> str:
    """Raises DataError if there are no labels, or classes to tell that none can be learned of; returns ''."""
    splits.check_learned(config.data, datasets, stage=NAME)
    return ''


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, networks: dict) -> dict:
    """Trains and tests the classifiers; adds them to results.json.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: {'probe_train', 'test'}: labelled data sets.
      networks: {'learned'}: the discriminator, with made_from, which names its state, and variables().

    Returns:
      What is in results.json: under 'layerwise' {preset: {'dataset', 'train', 'test', 'steps', 'rates', 'layers':
      {layer: {'accuracy', 'top5' in %, 'correct', 'count'} for each rate}, 'ten_crop': the same, if asked}}.
    """
    found, preset = results.read(workdir), config.layerwise.preset
    made_from = results.origin(networks['learned'].made_from, config, NAME)
    rows = found.setdefault(NAME, {})
    done = results.current(found, f'{NAME}/{preset}', made_from)
    if done and (not config.layerwise.ten_crop or 'ten_crop' in rows[preset]):
        return found
    classes = splits.classes(config.data, 'probe_train', datasets['probe_train'], stage=NAME)
    train, test = datasets['probe_train'], datasets['test']
    count = stage.counter(classes, config, devices)
    training = stage.Stage(f'{NAME}/{preset}', train.num_examples, classes, count)
    base = {kind: {'discriminator': tree} for kind, tree in networks['learned'].variables().items()}
    split = {'train': train, 'test': test}
    state = loop.run(training, config, Path(workdir), devices, split, base, settings=made_from['settings'])
    row = {
        'dataset': config.data.name,
        'train': train.used,
        'steps': training.plan(config)[0],
        'rates': [PRESETS[preset].rate * factor for factor in config.layerwise.rate_factors],
        'layers': _accuracies(*count(state.variables, test)),
    }
    if config.layerwise.ten_crop:
        ten = stage.counter(classes, config, devices, ten_crop=True)
        row['ten_crop'] = _accuracies(*ten(state.variables, test))
    rows[preset] = row
    results.write(workdir, found)
    if processes.is_first():
        for layer, accuracies in row['layers'].items():
            print(f'{NAME}:   {layer} {accuracies[0]["accuracy"]:.2f} %', flush=True)
    return found


def table(found: dict) -> str:
    """Returns what `run` does as tables of text: top-1 accuracies in %, for ImageNet beside the published ones."""
    text = ''
    for preset, row in found[NAME].items():
        ours = {}
        here = f'{results.label(found, f"{NAME}/{preset}")}, {preset}'
        imagenet = row['dataset'].startswith('imagenet2012')
        for kind, name in (('layers', here), ('ten_crop', f'{here}, ten crops')):
            for n, rate in enumerate(row['rates'] if kind in row else ()):
                label = name if len(row['rates']) == 1 else f'{name}, rate {rate:g}'
                ours[label] = tuple(row[kind][layer][n]['accuracy'] for layer in LAYERS)
        if imagenet:
            title, rows = published.IMAGENET.title, published.beside(published.IMAGENET, ours)
        else:
            title = f'{row["dataset"]}, linear classifiers on frozen layers: top-1 accuracy, %'
            rows = [[name, *(f'{x:.2f}' for x in numbers)] for name, numbers in ours.items()]
        counts = f'{row["train"]:,} training and {row["layers"][LAYERS[0]][0]["count"]:,} test images'
        text += f'{title}; {counts}\n\n{results.table(["", *LAYERS], rows)}'
        text += (setting(here, preset, row) if imagenet else '') + '\n'
    return text.removesuffix('\n')


def setting(name: str, preset: str, row: dict) -> str:
    """Returns a line of what a preset's row was reached on, beside what is published of ImageNet."""
    steps, _ = presets.plan(PRESETS[preset], published.IMAGENET_IMAGES[0])
    here = published.Setting(row['train'], row['layers'][LAYERS[0]][0]['count'], row['steps'])
    return published.setting(name, row['dataset'], here, published.Setting(*published.IMAGENET_IMAGES, steps))


def _accuracies(right, count):
    """Returns {layer: [{'accuracy', 'top5', 'correct', 'count'} for each rate]}."""
    return {
        layer: [
            {'accuracy': 100 * first / count, 'top5': 100 * five / count, 'correct': first, 'count': count}
            for first, five in x.tolist()
        ]
        for layer, x in right.items()
    }
