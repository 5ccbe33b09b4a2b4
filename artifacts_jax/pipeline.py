"""A run: the config's stages in order, each from where it stopped, in one work directory.

There are two kinds of stages, each with a protocol. Those of TRAINED learn: modules with NAME, SPLITS, BASE, SHOWN,
check, plan, init_state, train_step, evaluator and illustrator, which training/loop.py runs. EVALUATIONS find out what
the learned features are good for: modules with

    NAME                                                   in config.stages, and the name of its section of the config
    SPLITS                                                 of the data, that it needs
    check(config, devices)                                 raises ConfigError for what this machine cannot do
    examine(config, datasets)                              says why the data leaves it out, '' if not; or raises
    run(config, workdir, devices, datasets, networks)      does what results.json does not have yet; returns all of it
    table(results)                                         that as text

where `networks` are {'random', 'learned'}, each a Network.
"""

import contextlib
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax.data import left_out, splits
from artifacts_jax.devices import host, processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports
from artifacts_jax.features import probe
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import checkpoint, loop, replay, results, trees
from artifacts_jax.transfer import knn, stl10
from artifacts_jax.transfer.layerwise import task as layerwise
from artifacts_jax.transfer.segmentation_probe import task as segmentation_probe
from artifacts_jax.transfer.voc import svm_task as voc_svm
from artifacts_jax.transfer.voc.classification import task as voc_classification
from artifacts_jax.transfer.voc.detection import task as voc_detection
from artifacts_jax.transfer.voc.segmentation import task as voc_segmentation

TRAINED = (autoencoder, artifacts)
EVALUATIONS = (
    *(probe, knn, stl10, layerwise, segmentation_probe),
    *(voc_classification, voc_detection, voc_segmentation, voc_svm),
)
RANDOM = results.UNTRAINED  # config.pretrained of a network that has learned nothing
EXPORTS = {autoencoder: ('autoencoder/export', autoencoder.NETWORKS), artifacts: ('export', ('trunk',))}
INSTEAD = {autoencoder: 'autoencoder.pretrained', artifacts: 'pretrained'}  # the keys that have an export of it


class Network(NamedTuple):
    """A discriminator that is evaluated."""

    made_from: str  # names its state
    variables: Callable[[], dict]  # returns {'params': ..., 'batch_stats': ...}


class Datasets(dict):
    """{'train', 'probe_train', 'test'}: the config's splits, each opened when it is first asked for."""

    def __init__(self, config: ConfigDict):
        super().__init__()
        self._config = config
        self._data = self._file = None

    def __missing__(self, name):
        config = self._config
        split = config.data[name]
        for other, dataset in self.items():  # splits that are the same data are held once
            if config.data[other] == split:
                self[name] = dataset
                return dataset
        self._data = splits.open_data(config.data) if self._data is None else self._data
        self[name] = splits.load(
            config.data,
            split,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            data=self._data,
        )
        if self._file:
            self[name].left_out.keep(self._file)
        return self[name]

    def warn_of_common(self) -> None:
        """Warns of images that evaluations learn from and are tested on."""
        if {'probe_train', 'test'} <= self.keys():
            splits.warn_of_common(self._config.data, self._data)

    def keep_left_out(self, file: Path) -> None:
        """Names what is left out of the splits in a file, from now on; see data/left_out.py."""
        self._file = file
        for dataset in self.values():
            dataset.left_out.keep(file)

    def say_left_out(self) -> None:
        """Says how much of the streamed splits has been left out."""
        left_out.say_streamed(dataset.left_out for dataset in self.values())


def run(config: ConfigDict, workdir: str | Path) -> dict:
    """Runs the config's stages and returns the results, {} if no evaluation is among them.

    Args:
      config: a checked configuration.
      workdir: is made, or resumed if it was made with the same configuration.

    Raises:
      ForeseenError: one of its kinds, with a message for the user.
    """
    workdir = host.folder(workdir, 'workdir')
    devices, datasets = Devices(config.parallel), Datasets(config)
    done, begun = _check(config, workdir, devices, datasets)  # before the work directory keeps the configuration
    with _at_work(config, workdir, force=config.force or not begun):
        datasets.keep_left_out(workdir / left_out.FILE)
        found = _stages(config, workdir, devices, datasets, done)
        datasets.say_left_out()
        return found


def check(config: ConfigDict, workdir: str | Path) -> None:
    """Raises what `run` would raise before it begins anything."""
    streamed = config.copy_and_resolve_references()
    streamed.data.loading = 'stream'  # of which a few images are read
    _check(config, host.folder(workdir, 'workdir'), Devices(config.parallel), Datasets(streamed))


def _check(config, workdir, devices, datasets):
    """Returns what is imported, {stage: variables}, and whether the work directory has been begun."""
    for task in _tasks(config):
        if task in EVALUATIONS or not _pretrained(config, task):
            task.check(config, devices)
    _check_bases(config, workdir)
    done = {stage: _import(stage, config, devices) for stage in TRAINED if _pretrained(config, stage)}
    _ = results.read(workdir)  # which may be a study's, or damaged
    begun = _begun(workdir)  # until then it takes any configuration
    if not begun or configuration.compare(config, workdir, force=config.force) is not None:
        _examine(config, datasets, done)
    return done, begun


def _check_bases(config, workdir):
    """Raises CheckpointError if a stage that others start from is not among them, not imported, and not done."""
    tasks = [task for task in _tasks(config) if task not in TRAINED or not _pretrained(config, task)]
    wanted = {artifacts if task in EVALUATIONS else task.BASE for task in tasks}
    for stage, key in INSTEAD.items():
        if stage in wanted and stage.NAME not in config.stages and not _pretrained(config, stage):
            loop.check_finished(stage, config, workdir, instead=f'an export in --config.{key}')


def _tasks(config):
    return [task for task in (*TRAINED, *EVALUATIONS) if task.NAME in config.stages]


def _begun(workdir):
    """Returns whether a work directory has anything that a configuration has made."""
    if not (workdir / 'config.json').is_file():
        return False
    saved = any(path.name.isdigit() for path in workdir.rglob('checkpoints/*'))
    return saved or (workdir / results.NUMBERS).exists()


def _examine(config, datasets, done):
    """Looks at the data that the stages will need, so that nothing of it is found missing after hours.

    Raises:
      DataError: it is not there, or no stage can use it.
    """
    tasks = [task for task in _tasks(config) if task not in done and not (task is autoencoder and artifacts in done)]
    used = len(tasks)
    for task in tasks:
        for name in task.SPLITS:
            _ = datasets[name]
        if task in EVALUATIONS and (reason := task.examine(config, datasets)):
            print(f'{task.NAME} will be left out: {reason}', flush=True)
            used -= 1
    datasets.warn_of_common()
    if not used:
        raise splits.DataError(f'nothing to do: of {", ".join(config.stages)} all are imported, or have to be left out')


def replay_nonfinite(config: ConfigDict, workdir: str | Path) -> dict:
    """Runs the step again at which the work directory's run stopped for a loss that was not finite (replay.py).

    Raises:
      ForeseenError: one of its kinds, with a message for the user.
    """
    workdir = host.folder(workdir, 'workdir')
    found = [(stage, path) for stage in TRAINED for path in replay.saved(stage, workdir)]
    if not found:
        raise configuration.ConfigError(f'nothing to replay: no step in {workdir} had a loss that was not finite')
    (stage, path), devices = max(found, key=lambda step: step[1].stat().st_mtime), Devices(config.parallel)
    with _at_work(config, Path(workdir)):
        base = None
        if stage.BASE and _pretrained(config, stage.BASE):
            base = _import(stage.BASE, config, devices)
        elif stage.BASE:
            base = loop.finished(stage.BASE, config, workdir, devices).learned(config.optim.use_ema)
        return replay.run(path, stage, config, workdir, devices, Datasets(config), base)


@contextlib.contextmanager
def _at_work(config, workdir, *, force=False):
    """Keeps a work directory to this run, of one process or several, and to its configuration."""
    with contextlib.ExitStack() as stack:

        def begin():
            stack.enter_context(host.alone(workdir))
            different = configuration.compare(config, workdir, force=force)
            if different and _begun(workdir):
                print(f'warning: {different}\nIt goes on with the values of now.', file=sys.stderr)
            if different is not None:
                results.write_config(workdir, config)

        processes.led(begin, f'take {workdir}')
        processes.check_shared(workdir)
        yield
        processes.wait('the end')  # of what the first process writes


def _stages(config, workdir, devices, datasets, done):
    """Runs the stages; `done` has the variables of those that are imported, {stage: variables}."""

    def learned(stage):
        """The variables of a stage that is done, in this call or an earlier one, or imported."""
        if stage not in done:
            done[stage] = loop.finished(stage, config, workdir, devices).learned(config.optim.use_ema)
        return done[stage]

    print(f'{workdir}: {", ".join(config.stages)} on {len(devices.devices)} x {jax.devices()[0].device_kind}')
    for stage in TRAINED:
        if stage in done:
            print(f'{stage.NAME}: taken from {_pretrained(config, stage)}')
        elif stage.NAME in config.stages and not (stage is autoencoder and artifacts in done):
            base = stage.BASE and learned(stage.BASE)
            state = loop.run(stage, config, workdir, devices, datasets, base)
            done[stage] = state.learned(config.optim.use_ema)
            print(f'{stage.NAME}: all {stage.plan(config)[0]:,} steps are done')
            _export(stage, done[stage], config, workdir)
    tasks, found = [task for task in EVALUATIONS if task.NAME in config.stages], {}
    if tasks or artifacts in done:
        networks = _networks(config, devices, partial(learned, artifacts))
        results.retire(workdir, networks['learned'].made_from)
    for task in tasks:
        if task.NAME not in results.read(workdir) and (reason := task.examine(config, datasets)):
            print(f'{task.NAME}: left out: {reason}')
            continue
        found = task.run(config, workdir, devices, datasets, networks)
        tables = '\n'.join(each.table(found) for each in EVALUATIONS if each.NAME in found)
        results.write_tables(workdir, tables)
        print(f'\n{task.table(found)}\n{task.NAME}: done; tables are in {workdir / results.TABLES}, all numbers in')
        figures = f', figures in {workdir}/figures' if (workdir / 'figures').is_dir() else ''
        print(f'{workdir / results.NUMBERS}{figures}')
    return found


def _networks(config, devices, learned):
    """Returns the networks that are evaluated; `learned` returns the variables of the artifacts stage."""
    taken = _pretrained(config, artifacts)
    name = RANDOM if taken == RANDOM else 'imported' if taken else f'{artifacts.NAME} at step {config.artifacts.steps}'
    state = trees.fingerprint(artifacts.discriminator(learned()))
    return {
        'random': Network(
            f'seed {config.seed} at step 0',
            lambda: artifacts.discriminator(loop.initial(artifacts, config, devices, None).variables),
        ),
        'learned': Network(f'{name}{results.LEARNED}{state}', lambda: artifacts.discriminator(learned())),
    }


def _export(stage, variables, config, workdir):
    """Exports what a stage has learned, with the configuration that its last step was made by."""
    name, parts = EXPORTS[stage]
    step, made_by, _ = checkpoint.described(workdir / stage.NAME / 'checkpoints') or (None, {}, '')
    now, then = (configuration.flatten(configuration.as_json(c)) for c in (config.to_dict(), made_by))
    changed = [k for k in sorted(configuration.settings(then, stage.NAME)) if k in now and then[k] != now[k]]
    if changed:
        lines = ', '.join(f'{k}={then[k]}' for k in changed)
        print(f'warning: {stage.NAME} was trained with {lines}, not with the values of now', file=sys.stderr)
    folder, made_by = workdir / name, configuration.overlaid(config, {k: x for k, x in then.items() if k in now})
    exports.save(folder, variables, made_by, parts=parts, source={'stage': stage.NAME, 'step': step})
    print(f'{folder}: the learned {" and ".join(parts)}, for artifacts_jax.load_features')


def _pretrained(config, stage):
    """Returns the export that takes a trained stage's place, 'random' for a network of no training, '' for neither."""
    return (config.pretrained if stage is artifacts else '') or config[stage.NAME].pretrained


def _import(stage, config, devices):
    """Returns from an export what later stages need of a stage's variables."""
    folder = _pretrained(config, stage)
    if folder == RANDOM and stage is artifacts:
        return loop.initial(artifacts, config, devices, None).variables
    if stage is autoencoder:
        variables = exports.load(folder, autoencoder.NETWORKS, config)
    else:
        variables = {kind: {'discriminator': tree} for kind, tree in exports.load(folder, ('trunk',), config).items()}
    return jax.device_put(variables, devices.replicated)
