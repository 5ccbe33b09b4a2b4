"""A run: the config's stages in order, each from where it stopped, in one work directory.

There are two kinds of stages. Those of TRAINED learn: modules with NAME, SPLITS, BASE, PROGRESS_METRICS, check, plan,
init_state, train_step, make_evaluator and make_plotter, which training/loop.py runs. EVALUATIONS find out what the
learned features are good for: modules as training/evaluation.py has them, which runs them.
"""

import contextlib
import dataclasses
import sys
from pathlib import Path

import jax
from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax import outline, renamed
from artifacts_jax.data import skipped, splits
from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices import host, processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports
from artifacts_jax.features import probe
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import checkpoint, evaluation, loop, replay, results, trees
from artifacts_jax.training.evaluation import Network, Run
from artifacts_jax.training.state import select
from artifacts_jax.transfer import knn, retrieval, segmentation_probe, stl10
from artifacts_jax.transfer.layerwise import task as layerwise
from artifacts_jax.transfer.voc import svm_task as voc_svm
from artifacts_jax.transfer.voc.classification import task as voc_classification
from artifacts_jax.transfer.voc.detection import task as voc_detection
from artifacts_jax.transfer.voc.segmentation import task as voc_segmentation

TRAINED = (autoencoder, artifacts)
EVALUATIONS = (
    *(probe, knn, retrieval, stl10, layerwise, segmentation_probe),
    *(voc_classification, voc_detection, voc_segmentation, voc_svm),
)
RANDOM = results.UNTRAINED  # config.pretrained of a network that has learned nothing
EXPORTS = {autoencoder: ('autoencoder/export', autoencoder.NETWORKS), artifacts: ('export', ('trunk',))}
INSTEAD = {autoencoder: 'autoencoder.pretrained', artifacts: 'pretrained'}  # the keys that have an export of it


def run(config: ConfigDict, workdir: str | Path, *, opened: dict | None = None) -> dict:
    """Runs the config's stages and returns the results, {} if no evaluation is among them.

    Args:
      config: a configuration, as get_config of artifacts_jax.configs.NAME returns it.
      workdir: is made, or resumed if it was made with the same configuration.
      opened: data that `check` has opened, for several runs.

    Raises:
      UserError: one of its kinds, with a message for the user.
    """
    config, workdir = configuration.check(config), host.folder(workdir, 'workdir')
    devices = Devices(config.parallel)
    resolved = Run(config, workdir, devices, Datasets(config, opened))
    trained, begun = _check(resolved)  # before the work directory keeps the configuration
    with _at_work(config, workdir, force=config.force or not begun):
        print(f'{workdir}: {", ".join(config.stages)} on {len(devices.devices)} x {jax.devices()[0].device_kind}')
        tasks = _own_tasks(config, trained)
        stages = [[task for task in kind if task in tasks] for kind in (TRAINED, EVALUATIONS)]
        for line in outline.describe(config, workdir, resolved.datasets, *stages):
            print(line, flush=True)
        resolved.datasets.write_skipped(workdir / skipped.FILE)
        for stage in TRAINED:
            if stage in trained:
                print(f'{stage.NAME}: taken from {_pretrained(config, stage)}')
            elif stage.NAME in config.stages and not (stage is autoencoder and artifacts in trained):
                base = stage.BASE and _learned(stage.BASE, trained, config, workdir, devices)
                state = loop.run(stage, config, workdir, devices, resolved.datasets, base)
                trained[stage] = state.get_trained_variables(config.optim.use_ema)
                print(f'{stage.NAME}: all {stage.plan(config)[0]:,} steps are done')
                _export(stage, trained[stage], config, workdir)
        found = _evaluate(resolved, trained)
        resolved.datasets.report_skipped()
        return found


def check(config: ConfigDict, workdir: str | Path, *, opened: dict | None = None) -> None:
    """Raises what `run` would raise before it begins anything; adds to the data that are opened."""
    streamed = config.copy_and_resolve_references()
    streamed.data.loading = 'stream'  # of which a few images are read
    _check(Run(config, host.folder(workdir, 'workdir'), Devices(config.parallel), Datasets(streamed, opened)))


def _check(run):
    """Returns what is imported, {stage: variables}, and whether the work directory has been begun."""
    config, workdir, devices = run.config, run.workdir, run.devices
    for task in _tasks(config):
        if task in EVALUATIONS or not _pretrained(config, task):
            task.check(config, devices)
    _check_bases(config, workdir)
    imported = {stage: _import(stage, config, devices) for stage in TRAINED if _pretrained(config, stage)}
    found = results.read(workdir)  # which may be a study's, or damaged
    for task in _tasks(config):
        evaluation.check_results(task, config, found)
    begun = _begun(workdir)  # until then it takes any configuration
    if not begun or configuration.compare(config, workdir, force=config.force) is not None:
        _examine(run, imported)
    return imported, begun


def _check_bases(config, workdir):
    """Raises CheckpointError if a stage that others start from is not among them, not imported, and not done."""
    tasks = [task for task in _tasks(config) if task not in TRAINED or not _pretrained(config, task)]
    wanted = {artifacts if task in EVALUATIONS else task.BASE for task in tasks}
    for stage, key in INSTEAD.items():
        if stage in wanted and stage.NAME not in config.stages and not _pretrained(config, stage):
            loop.check_finished(stage, config, workdir, alternative=f'an export in --config.{key}')


def _tasks(config):
    return [task for task in (*TRAINED, *EVALUATIONS) if task.NAME in config.stages]


def _own_tasks(config, imported):
    """Returns the tasks that are not imported, nor needed only by one that is."""
    tasks = _tasks(config)
    return [task for task in tasks if task not in imported and not (task is autoencoder and artifacts in imported)]


def _begun(workdir):
    """Returns whether a work directory has anything that a configuration has made."""
    if not (workdir / 'config.json').is_file():
        return False
    saved = any(path.name.isdigit() for path in workdir.rglob('checkpoints/*'))
    return saved or (workdir / results.RESULTS_FILE).exists()


def _examine(run, imported):
    """Opens the data that the stages will need, so that nothing of it is found missing after hours.

    Raises:
      DataError: it is missing or invalid, or no stage can use it.
    """
    tasks = _own_tasks(run.config, imported)
    used = len(tasks)
    for task in tasks:
        for name in task.SPLITS:
            _ = run.datasets[name]
        if task in EVALUATIONS:
            try:
                run.data(task)
            except evaluation.NotApplicable as reason:
                print(f'{task.NAME} will be left out: {reason}', flush=True)
                used -= 1
    run.datasets.warn_of_overlap()
    if not used:
        stages = ', '.join(run.config.stages)
        raise splits.DataError(f'nothing to do: of {stages} all are imported, or have to be left out')


def replay_nonfinite(config: ConfigDict, workdir: str | Path) -> dict:
    """Runs the step again at which the work directory's run stopped for a loss that was not finite (replay.py).

    Raises:
      UserError: one of its kinds, with a message for the user.
    """
    workdir = host.folder(workdir, 'workdir')
    found = [(stage, path) for stage in TRAINED for path in replay.list_files(stage, workdir)]
    if not found:
        raise configuration.ConfigError(f'nothing to replay: no step in {workdir} had a loss that was not finite')
    (stage, path), devices = max(found, key=lambda step: step[1].stat().st_mtime), Devices(config.parallel)
    with _at_work(config, Path(workdir)):
        base = None
        if stage.BASE and _pretrained(config, stage.BASE):
            base = _import(stage.BASE, config, devices)
        elif stage.BASE:
            base = loop.load_final_state(stage.BASE, config, workdir, devices).get_trained_variables(
                config.optim.use_ema
            )
        return replay.run(path, stage, config, workdir, devices, Datasets(config), base)


@contextlib.contextmanager
def _at_work(config, workdir, *, force=False):
    """Keeps a work directory to this run, of one process or several, and to its configuration."""
    with contextlib.ExitStack() as stack:

        def begin():
            stack.enter_context(host.exclusive_lock(workdir))
            if (workdir / 'left_out.tsv').exists():  # its name before version 0.2
                (workdir / 'left_out.tsv').replace(workdir / skipped.FILE)
            different = configuration.compare(config, workdir, force=force)
            if different and _begun(workdir):
                print(f'warning: {different}\nIt goes on with the values of now.', file=sys.stderr)
            if different is not None:
                results.write_config(workdir, config)

        processes.run_on_first_process(begin, f'take {workdir}')
        processes.check_shared(workdir)
        yield
        processes.barrier('the end')  # of what the first process writes


def _learned(stage, trained, config, workdir, devices):
    """Returns the variables of a stage that is trained, in this call or an earlier one, or imported."""
    if stage not in trained:
        trained[stage] = loop.load_final_state(stage, config, workdir, devices).get_trained_variables(
            config.optim.use_ema
        )
    return trained[stage]


def _evaluate(run, trained):
    """Returns the results of the evaluations among the stages, {} if there are none."""
    tasks, found = [task for task in EVALUATIONS if task.NAME in run.config.stages], {}
    if tasks or artifacts in trained:
        run = dataclasses.replace(run, networks=_networks(run, trained))
        results.replace_outdated(run.workdir, run.networks['learned'].provenance)
    for task in tasks:
        found = evaluation.evaluate(task, run)
        run.task_data.pop(task.NAME, None)
        if not results.has_rows(found, task.NAME):
            continue
        tables = '\n'.join(each.table(found) for each in EVALUATIONS if results.has_rows(found, each.NAME))
        results.write_tables(run.workdir, tables)
        print(
            f'\n{task.table(found)}\n{task.NAME}: done; tables are in {run.workdir / results.TABLES_FILE}, all numbers'
        )
        figures = f', figures in {run.workdir}/figures' if (run.workdir / 'figures').is_dir() else ''
        print(f'in {run.workdir / results.RESULTS_FILE}{figures}')
    return found


def _networks(run, trained):
    """Returns the networks that are evaluated."""
    config, devices, imported = run.config, run.devices, _pretrained(run.config, artifacts)
    name = RANDOM if imported == RANDOM else 'imported' if imported else f'artifacts at step {config.artifacts.steps}'

    def untrained():
        return select(loop.make_initial_state(artifacts, config, devices, None).variables, ('discriminator',))

    def learned():
        return select(_learned(artifacts, trained, config, run.workdir, devices), ('discriminator',))

    network = Network('', learned)
    provenance = f'{name}{results.TRAINED}{trees.fingerprint(network.variables)}'
    return {
        'random': Network(f'seed {config.seed} at step 0', untrained),
        'learned': dataclasses.replace(network, provenance=provenance),
    }


def _export(stage, variables, config, workdir):
    """Exports what a stage has learned, with the configuration that its last step was made by."""
    name, parts = EXPORTS[stage]
    step, made_by, _ = checkpoint.read_info(workdir / stage.NAME / 'checkpoints') or (None, {}, '')
    now, then = (
        configuration.flatten(renamed.rename_keys(configuration.to_json(c))) for c in (config.to_dict(), made_by)
    )
    changed = [k for k in sorted(configuration.select_settings(then, stage.NAME)) if k in now and then[k] != now[k]]
    if changed:
        lines = ', '.join(f'{k}={then[k]}' for k in changed)
        print(f'warning: {stage.NAME} was trained with {lines}, not with the values of now', file=sys.stderr)
    folder, made_by = workdir / name, configuration.overlay(config, {k: x for k, x in then.items() if k in now})
    exports.save(folder, variables, made_by, networks=parts, source={'stage': stage.NAME, 'step': step})
    print(f'{folder}: the learned {" and ".join(parts)}, for artifacts_jax.load_features')


def _pretrained(config, stage):
    """Returns the export that takes a trained stage's place, 'random' for a network of no training, '' for neither."""
    return (config.pretrained if stage is artifacts else '') or config[stage.NAME].pretrained


def _import(stage, config, devices):
    """Returns from an export what later stages need of a stage's variables."""
    folder = _pretrained(config, stage)
    if folder == RANDOM and stage is artifacts:
        return loop.make_initial_state(artifacts, config, devices, None).variables
    if stage is autoencoder:
        variables = exports.load_networks(folder, autoencoder.NETWORKS, config)
    else:
        variables = {
            kind: {'discriminator': tree} for kind, tree in exports.load_networks(folder, ('trunk',), config).items()
        }
    return jax.device_put(variables, devices.replicated)
