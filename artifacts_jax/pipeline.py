"""Runs the stages of a configuration in order, in one work directory; each stage resumes where it stopped.

There are two kinds of stages. TRAINED stages train networks: modules with NAME, SPLITS, BASE, PROGRESS_METRICS, check,
get_steps_and_batch_size, init_state, train_step, make_evaluator and make_plotter, which training/loop.py runs.
EVALUATIONS measure the quality of the learned features on downstream tasks: modules with the interface of
training/evaluation.py, which runs them.
"""

import contextlib
import dataclasses
import sys
from pathlib import Path

import jax
from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax import old_names, outline
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
RANDOM = results.UNTRAINED  # value of config.pretrained for an untrained network
# {stage: (folder of its export in the work directory, exported networks)}
EXPORTS = {autoencoder: ('autoencoder/export', autoencoder.NETWORKS), artifacts: ('export', ('trunk',))}
# {stage: configuration key of the export that can replace it}
PRETRAINED_KEYS = {autoencoder: 'autoencoder.pretrained', artifacts: 'pretrained'}


def run(config: ConfigDict, workdir: str | Path, *, cached: dict | None = None) -> dict:
    """Runs the stages of the configuration and returns the contents of results.json, {} without any evaluation.

    Args:
      config: a configuration, for example from get_config of artifacts_jax.configs.NAME.
      workdir: the work directory; it is created, or resumed if it has the same configuration.
      cached: data that `check` has opened, for several runs on the same data.

    Raises:
      UserError: the configuration, the data or the work directory is invalid; the subclass tells which.
    """
    config, workdir = configuration.check(config), host.folder(workdir, 'workdir')
    devices = Devices(config.parallel)
    context = Run(config, workdir, devices, Datasets(config, cached))
    trained, has_output = _check(context)  # before config.json is written, so that an error leaves no trace
    with _locked_workdir(config, workdir, force=config.force or not has_output):
        print(f'{workdir}: {", ".join(config.stages)} on {len(devices.devices)} x {jax.devices()[0].device_kind}')
        tasks = _list_tasks_to_run(config, trained)
        stages = [[task for task in kind if task in tasks] for kind in (TRAINED, EVALUATIONS)]
        for line in outline.describe(config, workdir, context.datasets, *stages):
            print(line, flush=True)
        context.datasets.write_skipped(workdir / skipped.FILE)
        for stage in TRAINED:
            if stage in trained:
                print(f'{stage.NAME}: loaded from {_get_pretrained(config, stage)}')
            elif stage.NAME in config.stages and not (stage is autoencoder and artifacts in trained):
                base = stage.BASE and _get_variables(stage.BASE, trained, config, workdir, devices)
                state = loop.run(stage, config, workdir, devices, context.datasets, base)
                trained[stage] = state.get_trained_variables(config.optim.use_ema)
                print(f'{stage.NAME}: all {stage.get_steps_and_batch_size(config)[0]:,} steps are done')
                _export(stage, trained[stage], config, workdir)
        all_results = _evaluate(context, trained)
        context.datasets.report_skipped()
        return all_results


def check(config: ConfigDict, workdir: str | Path, *, cached: dict | None = None) -> None:
    """Raises the errors that `run` would raise before its first stage; adds the data that it opens to `cached`."""
    streamed = config.copy_and_resolve_references()
    streamed.data.loading = 'stream'  # so that only a few images are read
    _check(Run(config, host.folder(workdir, 'workdir'), Devices(config.parallel), Datasets(streamed, cached)))


def _check(run):
    """Returns ({stage: variables} of the imported stages, whether the work directory has output of a run)."""
    config, workdir, devices = run.config, run.workdir, run.devices
    for task in _list_tasks(config):
        if task in EVALUATIONS or not _get_pretrained(config, task):
            task.check(config, devices)
    _check_bases(config, workdir)
    imported = {stage: _import(stage, config, devices) for stage in TRAINED if _get_pretrained(config, stage)}
    all_results = results.read(workdir)  # raises an error if the file is damaged, or belongs to a study
    for task in _list_tasks(config):
        evaluation.check_results(task, config, all_results)
    has_output = _has_output(workdir)  # a work directory without output accepts any configuration
    if not has_output or configuration.compare(config, workdir, force=config.force) is not None:
        _validate_data(run, imported)
    return imported, has_output


def _check_bases(config, workdir):
    """Raises CheckpointError if a stage needs another one that is not in config.stages, not imported, not complete."""
    tasks = [task for task in _list_tasks(config) if task not in TRAINED or not _get_pretrained(config, task)]
    required = {artifacts if task in EVALUATIONS else task.BASE for task in tasks}
    for stage, key in PRETRAINED_KEYS.items():
        if stage in required and stage.NAME not in config.stages and not _get_pretrained(config, stage):
            loop.check_finished(stage, config, workdir, alternative=f'an export in --config.{key}')


def _list_tasks(config):
    return [task for task in (*TRAINED, *EVALUATIONS) if task.NAME in config.stages]


def _list_tasks_to_run(config, imported):
    """Returns the tasks without imported stages, and without the autoencoder if `artifacts` is imported."""
    tasks = _list_tasks(config)
    return [task for task in tasks if task not in imported and not (task is autoencoder and artifacts in imported)]


def _has_output(workdir):
    """Returns whether a work directory has a checkpoint or results of a run."""
    if not (workdir / 'config.json').is_file():
        return False
    has_checkpoint = any(path.name.isdigit() for path in workdir.rglob('checkpoints/*'))
    return has_checkpoint or (workdir / results.RESULTS_FILE).exists()


def _validate_data(run, imported):
    """Opens the data of all stages, so that an error in the data stops the run at once and not after hours.

    Raises:
      DataError: the data is missing or invalid, or no stage can use it.
    """
    tasks = _list_tasks_to_run(run.config, imported)
    num_applicable = len(tasks)
    for task in tasks:
        for name in task.SPLITS:
            _ = run.datasets[name]
        if task in EVALUATIONS:
            try:
                run.data(task)
            except evaluation.NotApplicable as reason:
                print(f'{task.NAME} will be skipped: {reason}', flush=True)
                num_applicable -= 1
    run.datasets.warn_of_overlap()
    if not num_applicable:
        stages = ', '.join(run.config.stages)
        raise splits.DataError(
            f'nothing to do: each stage of --config.stages ({stages}) is imported or does not apply to the data'
        )


def replay_nonfinite(config: ConfigDict, workdir: str | Path) -> dict:
    """Repeats the training step at which the run stopped because of a NaN or infinite loss (replay.py).

    Returns:
      A description of the step; see replay.run.

    Raises:
      UserError: the work directory has no such step, or cannot be used.
    """
    workdir = host.folder(workdir, 'workdir')
    candidates = [(stage, path) for stage in TRAINED for path in replay.list_files(stage, workdir)]
    if not candidates:
        raise configuration.ConfigError(f'nothing to replay: no step in {workdir} had a NaN or infinite loss')
    (stage, path), devices = max(candidates, key=lambda step: step[1].stat().st_mtime), Devices(config.parallel)
    with _locked_workdir(config, Path(workdir)):
        base = None
        if stage.BASE and _get_pretrained(config, stage.BASE):
            base = _import(stage.BASE, config, devices)
        elif stage.BASE:
            base = loop.load_final_state(stage.BASE, config, workdir, devices).get_trained_variables(
                config.optim.use_ema
            )
        return replay.run(path, stage, config, workdir, devices, Datasets(config), base)


@contextlib.contextmanager
def _locked_workdir(config, workdir, *, force=False):
    """Locks a work directory for all processes of this run, and writes its config.json."""
    with contextlib.ExitStack() as stack:

        def lock():
            stack.enter_context(host.exclusive_lock(workdir))
            if (workdir / 'left_out.tsv').exists():  # its name before version 0.2
                (workdir / 'left_out.tsv').replace(workdir / skipped.FILE)
            difference = configuration.compare(config, workdir, force=force)
            if difference and _has_output(workdir):
                print(f'warning: {difference}\nThe run continues with the current values.', file=sys.stderr)
            if difference is not None:
                results.write_config(workdir, config)

        processes.run_on_first_process(lock, f'lock {workdir}')
        processes.check_shared(workdir)
        yield
        processes.barrier('the end')  # no process exits before the first one has written all files


def _get_variables(stage, trained, config, workdir, devices):
    """Returns the variables of a trained or imported stage; loads the final state of an earlier call if needed."""
    if stage not in trained:
        trained[stage] = loop.load_final_state(stage, config, workdir, devices).get_trained_variables(
            config.optim.use_ema
        )
    return trained[stage]


def _evaluate(run, trained):
    """Runs the evaluations of config.stages and returns the contents of results.json, {} without any evaluation."""
    tasks, all_results = [task for task in EVALUATIONS if task.NAME in run.config.stages], {}
    if tasks or artifacts in trained:
        run = dataclasses.replace(run, networks=_make_networks(run, trained))
        results.replace_outdated(run.workdir, run.networks['learned'].provenance)
    for task in tasks:
        all_results = evaluation.evaluate(task, run)
        run.task_data.pop(task.NAME, None)  # frees memory before the next evaluation
        if not results.has_rows(all_results, task.NAME):
            continue
        tables = [other.table(all_results) for other in EVALUATIONS if results.has_rows(all_results, other.NAME)]
        results.write_tables(run.workdir, '\n'.join(tables))
        tables_path, results_path = run.workdir / results.TABLES_FILE, run.workdir / results.RESULTS_FILE
        figures = f', figures in {run.workdir}/figures' if (run.workdir / 'figures').is_dir() else ''
        print(f'\n{task.table(all_results)}')
        print(f'{task.NAME}: done; tables are in {tables_path}, all numbers in {results_path}{figures}')
    return all_results


def _make_networks(run, trained):
    """Returns {'random', 'learned': the Network that is evaluated}."""
    config, devices, export = run.config, run.devices, _get_pretrained(run.config, artifacts)
    name = RANDOM if export == RANDOM else 'imported' if export else f'artifacts at step {config.artifacts.steps}'

    def untrained():
        return select(loop.make_initial_state(artifacts, config, devices, None).variables, ('discriminator',))

    def learned():
        return select(_get_variables(artifacts, trained, config, run.workdir, devices), ('discriminator',))

    network = Network('', learned)
    provenance = f'{name}{results.TRAINED}{trees.compute_fingerprint(network.variables)}'
    return {
        'random': Network(f'seed {config.seed} at step 0', untrained),
        'learned': dataclasses.replace(network, provenance=provenance),
    }


def _export(stage, variables, config, workdir):
    """Exports the trained networks of a stage, with the configuration that its last step was trained with."""
    name, networks = EXPORTS[stage]
    step, saved_config, _ = checkpoint.read_info(workdir / stage.NAME / 'checkpoints') or (None, {}, '')
    current, saved = (
        configuration.flatten(old_names.rename_keys(configuration.to_json(c))) for c in (config.to_dict(), saved_config)
    )
    settings = sorted(configuration.select_settings(saved, stage.NAME))
    changed = [key for key in settings if key in current and saved[key] != current[key]]
    if changed:
        values = ', '.join(f'{key}={saved[key]}' for key in changed)
        print(f'warning: {stage.NAME} was trained with {values}, not with the current values', file=sys.stderr)
    folder = workdir / name
    export_config = configuration.overlay(config, {key: x for key, x in saved.items() if key in current})
    exports.save(folder, variables, export_config, networks=networks, source={'stage': stage.NAME, 'step': step})
    usage = 'artifacts_jax.load_features' if stage is artifacts else f'--config.{PRETRAINED_KEYS[stage]}'
    print(f'{folder}: the trained {" and ".join(networks)}, for {usage}')


def _get_pretrained(config, stage):
    """Returns the path of the export that replaces a stage, 'random' for an untrained network, '' for neither."""
    return (config.pretrained if stage is artifacts else '') or config[stage.NAME].pretrained


def _import(stage, config, devices):
    """Returns the variables of a stage that later stages need, loaded from its export, on the devices."""
    folder = _get_pretrained(config, stage)
    if folder == RANDOM and stage is artifacts:
        return loop.make_initial_state(artifacts, config, devices, None).variables
    if stage is autoencoder:
        variables = exports.load_networks(folder, autoencoder.NETWORKS, config)
    else:
        variables = {
            kind: {'discriminator': tree} for kind, tree in exports.load_networks(folder, ('trunk',), config).items()
        }
    return jax.device_put(variables, devices.replicated)
