"""Runs the transfer tasks on an export, and prints the paper's tables with its results.

python -m artifacts_jax.tables --pretrained=runs/imagenet/export --workdir=runs/tables --voc=VOCdevkit/VOC2007
python -m artifacts_jax.tables --pretrained=random --workdir=runs/control --tasks=voc07_classification --voc=voc/2007

Each task is a configuration in configs/transfer/. The export's configuration describes the trunk. Each task has its own
work directory, WORKDIR/TASK; an existing one is resumed. A task without data is skipped, and its results are blank. The
command writes WORKDIR/TASK/ for each task, and WORKDIR/tables.txt.
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
DATA_FLAGS = {  # {task: the flag that gives its data}
    IMAGENET: 'imagenet',
    PLACES: 'places',
    VOC: 'voc',
    DETECTION: 'voc',
    SEGMENTATION: 'voc12',
}
TABLES = 'tables.txt'


def declare_flags() -> None:
    """Declares the flags of this command.

    This is a function, because flags that are declared on import would clash with the flags of other commands.
    """
    flags.DEFINE_string('pretrained', None, 'the export, or random')
    flags.DEFINE_string('workdir', None, 'directory of the tasks; to resume them, give the same directory')
    flags.DEFINE_list('tasks', list(DATA_FLAGS), f'tasks to run, of {", ".join(DATA_FLAGS)}')
    for flag in dict.fromkeys(DATA_FLAGS.values()):
        tasks = ' and '.join(task for task in DATA_FLAGS if DATA_FLAGS[task] == flag)
        flags.DEFINE_string(flag, '', f'data of {tasks}: a folder, or the name of a tfds data set')
    flags.DEFINE_string(
        'proposals', '', f'proposals of {DETECTION}: .mat or .npz; {{split}} is replaced by the name of the split'
    )
    flags.DEFINE_string('sbd', '', f'additional training images of {SEGMENTATION}: the folder benchmark_RELEASE')
    flags.DEFINE_string('seg11valid', '', f'test list of {SEGMENTATION}, if VOC2012 does not have it: a .txt')
    flags.DEFINE_string('data_dir', '', 'directory of the tfds data sets; by default ~/tensorflow_datasets')


def run_tasks(
    pretrained: str, workdir: Path, data: dict[str, str], *, data_dir: str = '', keys: dict[str, dict] | None = None
) -> str:
    """Runs tasks, and returns the tables as text.

    All tasks are checked before the first task starts.

    Args:
      pretrained: the export that the tasks start from, or 'random'.
      workdir: the directory of the tasks; it is created, or resumed.
      data: {task: value of config.data.name}; a task with '' is skipped.
      data_dir: the directory of the tfds data sets.
      keys: {task: {dotted key of its configuration: value}}; '' keeps the value of the configuration.

    Raises:
      UserError: a subclass of it, if the export, the data or a configuration is wrong.
    """
    from artifacts_jax import pipeline

    configs, cached = {}, {}
    for task, name in data.items():
        if not name:
            print(f'{task}: skipped, because --{DATA_FLAGS[task]} is not given', flush=True)
            continue
        configs[task] = make_config(task, pretrained)
        configs[task].data.update(name=name, data_dir=data_dir)
        overrides = {key: value for key, value in (keys or {}).get(task, {}).items() if value}
        configs[task].update_from_flattened_dict(overrides)
        configuration.check(configs[task])
        try:
            pipeline.check(configs[task], workdir / task, cached=cached)
        except configuration.DifferentConfigError as error:  # without the advice to add --config.force
            raise configuration.ConfigError(f'{error.differences}\nUse another --workdir.') from error
    for task, config in configs.items():
        pipeline.run(config, workdir / task, cached=cached)
    text = format_tables(workdir)
    write_atomically(workdir / TABLES, text)
    return text


def make_config(task: str, pretrained: str) -> ConfigDict:
    """Returns the configuration of a task, with the trunk of an export.

    Args:
      task: a key of DATA_FLAGS.
      pretrained: the export, or 'random'.

    Raises:
      UserError: the export does not exist, or its configuration cannot be read.
    """
    from artifacts_jax.configs import default
    from artifacts_jax.exchange import exports

    config = importlib.import_module(f'artifacts_jax.configs.transfer.{task}').get_config()
    config.pretrained = pretrained
    if pretrained != 'random':
        folder = host.folder(pretrained, 'pretrained')
        exports.read_description(folder)  # raises an error that explains why a folder is not an export
        export_config, _ = configuration.read(folder / 'config.json', default.get_config())
        config.model.update(export_config.model)
    return config


def format_tables(workdir: Path) -> str:
    """Returns the paper's tables as text, with the results of the tasks in a work directory."""
    from artifacts_jax.training import results
    from artifacts_jax.transfer import published
    from artifacts_jax.transfer.layerwise import task as layerwise

    all_results = {task: results.read(workdir / task) for task in DATA_FLAGS if (workdir / task).is_dir()}

    def get_label(task, name):
        return results.get_label(all_results.get(task, {}), name)

    linear, settings = {}, ''
    for preset, row in all_results.get(IMAGENET, {}).get('layerwise', {}).items():
        name = f'{get_label(IMAGENET, f"layerwise/{preset}")}, {preset}'
        linear[name] = tuple(row['layers'][layer][0]['accuracy'] for layer in published.LAYERS)
        settings += layerwise.format_setting(name, preset, row)
    text = _format_table(published.IMAGENET, linear, settings) + _format_table(published.VOC, *_voc_rows(all_results))
    for preset, row in all_results.get(PLACES, {}).get('layerwise', {}).items():
        name = f'{get_label(PLACES, f"layerwise/{preset}")}, {preset}'
        numbers = [f'{row["layers"][layer][0]["accuracy"]:.1f}' for layer in published.LAYERS]
        text += 'Places, linear classifiers on frozen layers: top-1 accuracy, %\n\n'
        text += results.format_table(['', *published.LAYERS], [[name, *numbers]])
        count = row['layers'][published.LAYERS[0]][0]['count']
        text += f'{name}: {row["dataset"]}, {row["train"]:,} training and {count:,} test images\n\n'
    return text


def _voc_rows(all_results):
    """Returns ({name: values of the columns of published.VOC, None without a result}, lines about data and steps)."""
    from artifacts_jax.training import results
    from artifacts_jax.transfer.voc.classification import task as voc_classification
    from artifacts_jax.transfer.voc.detection import task as voc_detection
    from artifacts_jax.transfer.voc.segmentation import task as voc_segmentation

    rows, settings = {}, ''
    if row := all_results.get(VOC, {}).get('voc_classification', {}).get('all'):
        name = results.get_label(all_results[VOC], 'voc_classification/all')
        rows[name] = (row['map'], None, None)
        settings += voc_classification.format_setting(f'{name}, classification', 'all', row)
    for entry, row in all_results.get(DETECTION, {}).get('voc_detection', {}).items():
        label = results.get_label(all_results[DETECTION], f'voc_detection/{entry}')
        name = f'{label}, {entry.replace("_", " ")}'
        rows[name] = (None, row['map'], None)
        settings += voc_detection.format_setting(f'{name}, detection', row)
    for entry, row in all_results.get(SEGMENTATION, {}).get('voc_segmentation', {}).items():
        label = results.get_label(all_results[SEGMENTATION], f'voc_segmentation/{entry}')
        for test, metrics in row['tests'].items():
            name = f'{label}, {entry}, {Path(test).stem}'
            rows[name] = (None, None, metrics['miou'])
            settings += voc_segmentation.format_setting(f'{name}, segmentation', row, test)
    return rows, settings


def _format_table(table, our_rows, settings):
    """Returns a published table as text, with our rows below the published rows, and lines about data and steps."""
    from artifacts_jax.training import results
    from artifacts_jax.transfer import published

    rows = published.format_rows(table.rows | (our_rows or {'here': (None,) * len(table.columns)}))
    return f'{table.title}\n\n{results.format_table(["", *table.columns], rows)}{settings}\n'


def main():
    """Runs the tasks that the command line gives, and prints the tables."""
    options = flags.FLAGS
    if unknown := [task for task in options.tasks if task not in DATA_FLAGS]:
        raise configuration.ConfigError(f'--tasks={unknown[0]}: unknown task; expected some of {", ".join(DATA_FLAGS)}')
    if not options.tasks:
        raise configuration.ConfigError(f'--tasks=: no task; expected some of {", ".join(DATA_FLAGS)}')
    used = {DATA_FLAGS[task] for task in options.tasks}
    if unused := [flag for flag in DATA_FLAGS.values() if options[flag].value and flag not in used]:
        tasks = ' and '.join(task for task in DATA_FLAGS if DATA_FLAGS[task] == unused[0])
        raise configuration.ConfigError(f'--{unused[0]} is the data of {tasks}, which --tasks does not include')
    data = {task: getattr(options, DATA_FLAGS[task]) for task in options.tasks}
    workdir = host.folder(options.workdir, 'workdir')
    keys = {
        DETECTION: {'voc_detection.proposals': options.proposals},
        SEGMENTATION: {'voc_segmentation.sbd': options.sbd, 'data.test': options.seg11valid},
    }
    if not any(data.values()) and not any((workdir / task).is_dir() for task in DATA_FLAGS):
        data_flags = ', '.join(f'--{flag}' for flag in sorted(used))
        raise configuration.ConfigError(
            f'no task has data, and {workdir} has no results to print: give the data with {data_flags}'
        )
    print(run_tasks(options.pretrained, workdir, data, data_dir=options.data_dir, keys=keys))


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['pretrained', 'workdir'])
