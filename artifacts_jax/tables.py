"""Runs the transfer tasks for an export, and prints the paper's tables with what it has reached.

python -m artifacts_jax.tables --pretrained=runs/imagenet/export --workdir=runs/tables --voc=VOCdevkit/VOC2007
python -m artifacts_jax.tables --pretrained=random --workdir=runs/control --tasks=voc07_classification --voc=voc/2007

The tasks are the configurations in configs/transfer/, on the trunk that the export's configuration describes. Each has
a work directory of its own, WORKDIR/TASK, which is resumed. A task whose data is not named is left out, and its numbers
are blank. WORKDIR gets: {TASK}/ (a run each) and tables.txt.
"""

import importlib
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.devices import host
from artifacts_jax.files import write_atomically

IMAGENET, PLACES, VOC = 'imagenet_linear', 'places_linear', 'voc07_classification'
DETECTION, SEGMENTATION = 'voc07_detection', 'voc12_segmentation'
DATA_FLAGS = {  # which flag names a task's data
    IMAGENET: 'imagenet',
    PLACES: 'places',
    VOC: 'voc',
    DETECTION: 'voc',
    SEGMENTATION: 'voc12',
}
TABLES = 'tables.txt'


def declare_flags() -> None:
    """Declares the command's flags; elsewhere they would clash with those of other programs."""
    flags.DEFINE_string('pretrained', None, 'the export, or random')
    flags.DEFINE_string('workdir', None, 'directory of the tasks; the same one again resumes them')
    flags.DEFINE_list('tasks', list(DATA_FLAGS), f'which of {", ".join(DATA_FLAGS)} to run')
    for name in dict.fromkeys(DATA_FLAGS.values()):
        tasks = ' and '.join(task for task in DATA_FLAGS if DATA_FLAGS[task] == name)
        flags.DEFINE_string(name, '', f'data of {tasks}: a folder, or the name of a tfds data set')
    flags.DEFINE_string('proposals', '', f'boxes of {DETECTION}: .mat or .npz, with {{split}} for the name of a split')
    flags.DEFINE_string('sbd', '', f'images that {SEGMENTATION} learns from, too: the folder benchmark_RELEASE')
    flags.DEFINE_string('seg11valid', '', f'what {SEGMENTATION} is tested on, if VOC2012 has no such list: a .txt')
    flags.DEFINE_string('data_dir', '', 'where tfds looks for prepared data; by default ~/tensorflow_datasets')


def run_tasks(
    pretrained: str, workdir: Path, data: dict[str, str], *, data_dir: str = '', keys: dict[str, dict] | None = None
) -> str:
    """Runs tasks, and returns the tables.

    Args:
      pretrained: the export that they start from, or 'random'.
      workdir: is made, or resumed.
      data: {task: its data, as config.data.name}, of the tasks to run; '' leaves one out.
      data_dir: where tfds looks for prepared data.
      keys: {task: {dotted key of its configuration: value}}, where '' leaves it as it is.

    Raises:
      UserError: one of its kinds; of what can be said before, before the first task begins.
    """
    from artifacts_jax import pipeline

    configs, opened = {}, {}
    for task, name in data.items():
        if not name:
            print(f'{task}: left out, since --{DATA_FLAGS[task]} names no data', flush=True)
            continue
        configs[task] = make_config(task, pretrained)
        configs[task].data.update(name=name, data_dir=data_dir)
        given = (keys or {}).get(task, {})
        configs[task].update_from_flattened_dict({key: value for key, value in given.items() if value})
        configuration.check(configs[task])
        try:
            pipeline.check(configs[task], workdir / task, opened=opened)
        except configuration.DifferentConfigError as error:  # this command cannot force it
            raise configuration.ConfigError(f'{error.different}\nUse another --workdir.') from error
    for task, config in configs.items():
        pipeline.run(config, workdir / task, opened=opened)
    text = format_tables(workdir)
    write_atomically(workdir / TABLES, text)
    return text


def make_config(task: str, pretrained: str) -> ConfigDict:
    """Returns the configuration of a task, with the trunk that an export's describes.

    Raises:
      UserError: there is no such export, or its configuration cannot be read.
    """
    from artifacts_jax.configs import default
    from artifacts_jax.exchange import exports

    config = importlib.import_module(f'artifacts_jax.configs.transfer.{task}').get_config()
    config.pretrained = pretrained
    if pretrained != 'random':
        folder = host.folder(pretrained, 'pretrained')
        exports.read_description(folder)  # which says what is wrong with one that is none
        described, _ = configuration.read(folder / 'config.json', default.get_config())
        config.model.update(described.model)
    return config


def format_tables(workdir: Path) -> str:
    """Returns the paper's tables as text, each with a row of what the tasks in a work directory have reached."""
    from artifacts_jax.training import results
    from artifacts_jax.transfer import published
    from artifacts_jax.transfer.layerwise import task as layerwise

    found = {task: results.read(workdir / task) for task in DATA_FLAGS if (workdir / task).is_dir()}

    def here(task, part):
        return results.get_label(found.get(task, {}), part)

    linear, settings = {}, ''
    for preset, row in found.get(IMAGENET, {}).get('layerwise', {}).items():
        name = f'{here(IMAGENET, f"layerwise/{preset}")}, {preset}'
        linear[name] = tuple(row['layers'][layer][0]['accuracy'] for layer in published.LAYERS)
        settings += layerwise.setting(name, preset, row)
    text = _table(published.IMAGENET, linear, settings) + _table(published.VOC, *_voc(found))
    for preset, row in found.get(PLACES, {}).get('layerwise', {}).items():
        name = f'{here(PLACES, f"layerwise/{preset}")}, {preset}'
        numbers = [f'{row["layers"][layer][0]["accuracy"]:.1f}' for layer in published.LAYERS]
        text += 'Places, linear classifiers on frozen layers: top-1 accuracy, %\n\n'
        text += results.format_table(['', *published.LAYERS], [[name, *numbers]])
        count = row['layers'][published.LAYERS[0]][0]['count']
        text += f'{name}: {row["dataset"]}, {row["train"]:,} training and {count:,} test images\n\n'
    return text


def _voc(found):
    """Returns ({name: numbers of VOC's columns, None where there is none}, what they were reached on)."""
    from artifacts_jax.training import results
    from artifacts_jax.transfer.voc.classification import task as voc_classification
    from artifacts_jax.transfer.voc.detection import task as voc_detection
    from artifacts_jax.transfer.voc.segmentation import task as voc_segmentation

    rows, settings = {}, ''
    if row := found.get(VOC, {}).get('voc_classification', {}).get('all'):
        name = results.get_label(found[VOC], 'voc_classification/all')
        rows[name] = (row['map'], None, None)
        settings += voc_classification.setting(f'{name}, classification', 'all', row)
    for part, row in found.get(DETECTION, {}).get('voc_detection', {}).items():
        name = f'{results.get_label(found[DETECTION], f"voc_detection/{part}")}, {part.replace("_", " ")}'
        rows[name] = (None, row['map'], None)
        settings += voc_detection.setting(f'{name}, detection', row)
    for part, row in found.get(SEGMENTATION, {}).get('voc_segmentation', {}).items():
        for test, measured in row['tests'].items():
            name = f'{results.get_label(found[SEGMENTATION], f"voc_segmentation/{part}")}, {part}, {Path(test).stem}'
            rows[name] = (None, None, measured['miou'])
            settings += voc_segmentation.setting(f'{name}, segmentation', row, test)
    return rows, settings


def _table(table, ours, settings):
    from artifacts_jax.training import results
    from artifacts_jax.transfer import published

    rows = published.listed(table.rows | (ours or {'here': (None,) * len(table.columns)}))
    return f'{table.title}\n\n{results.format_table(["", *table.columns], rows)}{settings}\n'


def main():
    """Runs the tasks of the command line and prints the tables."""
    given = flags.FLAGS
    if unknown := [task for task in given.tasks if task not in DATA_FLAGS]:
        raise configuration.ConfigError(f'--tasks: there is no {unknown[0]!r}; there are {", ".join(DATA_FLAGS)}')
    if not given.tasks:
        raise configuration.ConfigError(f'--tasks= names none; there are {", ".join(DATA_FLAGS)}')
    used = {DATA_FLAGS[task] for task in given.tasks}
    if idle := [name for name in DATA_FLAGS.values() if given[name].value and name not in used]:
        tasks = ' or '.join(task for task in DATA_FLAGS if DATA_FLAGS[task] == idle[0])
        raise configuration.ConfigError(f'--{idle[0]} names data of {tasks}, which --tasks leaves out')
    data = {task: getattr(given, DATA_FLAGS[task]) for task in given.tasks}
    workdir = host.folder(given.workdir, 'workdir')
    keys = {
        DETECTION: {'voc_detection.proposals': given.proposals},
        SEGMENTATION: {'voc_segmentation.sbd': given.sbd, 'data.test': given.seg11valid},
    }
    if not any(data.values()) and not any((workdir / task).is_dir() for task in DATA_FLAGS):
        names = ', '.join(f'--{name}' for name in sorted(used))
        raise configuration.ConfigError(
            f'there is nothing to run, and nothing in {workdir} to print: name data by {names}'
        )
    print(run_tasks(given.pretrained, workdir, data, data_dir=given.data_dir, keys=keys))


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['pretrained', 'workdir'])
