"""The training loop of all stages: it restores, steps, logs, evaluates, plots, saves, and stops on preemption."""

import contextlib
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from artifacts_jax.config import UserError
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices, total
from artifacts_jax.old_names import find_stage_folder
from artifacts_jax.training import checkpoint, keys, metrics, trees
from artifacts_jax.training.checkpoint import CheckpointError, Checkpoints
from artifacts_jax.training.interruption import Interruption
from artifacts_jax.training.report import NullReport, Report
from artifacts_jax.training.state import State

STOP = 'stop'  # extra entry of a batch, bool [B]: True for the examples of a process that received a stop signal
NONFINITE_FOLDER = 'nonfinite'  # subfolder of a stage: the batch and PRNG key of each step with a NaN or infinite loss


class NonFiniteError(UserError, FloatingPointError):
    """A loss or gradient is NaN or infinite; the message names it, the step and the checkpoint to restart from."""


class Preempted(SystemExit):
    """The run received a stop signal, saved its state and can be resumed; the exit status is 75 (EX_TEMPFAIL)."""

    def __init__(self):
        super().__init__(75)


def run(
    stage,
    config: ConfigDict,
    workdir: Path,
    devices: Devices,
    datasets: dict,
    base: dict | None,
    *,
    settings_digest: str = '',
) -> State:
    """Trains a stage to its last step and returns the final state, read back from the last checkpoint.

    If the trained variables of the earlier stage (`base`) or the settings have changed since an earlier call, the
    stage's checkpoints and metrics are moved to its folder 'replaced', and training restarts from step 0.

    Args:
      stage: a module or an object with NAME, BASE (the stage that this one builds on, or None), PROGRESS_METRICS,
        get_steps_and_batch_size, init_state, train_step, make_evaluator and make_plotter. It also has
        initialise_from_data if its initial state depends on the training images.
      config: the run's configuration.
      workdir: the work directory; receives {NAME}/checkpoints, {NAME}/metrics.jsonl, tensorboard/{NAME} and figures/.
      devices: distributes steps and arrays over the devices.
      datasets: {'train', 'test', ...}: data sets; the stage trains on 'train'.
      base: the trained variables of stage.BASE, None if stage.BASE is None.
      settings_digest: a hash of the settings that the result depends on. If it has changed since the last checkpoint,
        training restarts.

    Raises:
      NonFiniteError: a loss or the norm of a gradient is NaN or infinite.
      CheckpointError: the disk is full, or the last checkpoint cannot be read back.
      Preempted: one of the processes received one of interruption.SIGNALS; the state is saved.
    """
    key, (steps, batch_size) = keys.stage_key(config.seed, stage.NAME), stage.get_steps_and_batch_size(config)
    devices.check_batch('batch_size', batch_size, config.accumulate)
    folder = find_stage_folder(workdir, stage.NAME) / 'checkpoints'  # also finds a folder with an old name of the stage
    # Provenance: the base variables and the settings that the checkpoints are computed from.
    provenance = f'{trees.compute_fingerprint(base)} {settings_digest}'.strip() if base else settings_digest
    _move_if_outdated(folder.parent, provenance)
    # Until the last checkpoint is on disk, a signal does not end the process; it only sets a flag.
    with (
        Interruption() as interruption,
        Checkpoints(folder, config, devices.replicated, provenance=provenance) as checkpoints,
    ):
        state = _restore_or_init(stage, config, workdir, devices, datasets, base, checkpoints)
        start = int(state.step)
        if start < steps:
            with _make_report(stage, config, workdir, start) as report:
                report.log(_summarise_parameters(stage, state))
                train_step = devices.train_step(_add_stop_metric(partial(stage.train_step, config=config)))
                check_and_log = partial(
                    _check_and_log, report, checkpoints, key, getattr(stage, 'SUPPORTS_REPLAY', False)
                )
                run_actions = _make_periodic_actions(stage, config, devices, datasets, checkpoints, report)
                batches = datasets['train'].train_batches(batch_size, start_step=start)
                pending = None  # (step, metrics, batch) of the last step, not yet checked for NaN
                if start == 0:
                    run_actions(state, {'eval'})
                for step in range(start + 1, steps + 1):
                    batch = next(batches)
                    stop_flags = np.full(len(batch['index']), interruption.stop_requested)
                    with report.time_section('compilation') if step == start + 1 else contextlib.nullcontext():
                        state, values = train_step(state, devices.put({**batch, STOP: stop_flags}), key)
                    # Metrics are fetched one step late, so that the devices never wait for the host.
                    should_stop = check_and_log(pending) if pending else False
                    actions, pending = _list_actions(step, steps, config), (step, values, batch)
                    if actions or should_stop:
                        should_stop |= check_and_log(pending)
                        pending = None
                        run_actions(state, actions, should_stop)
                del state, batches
                checkpoints.finish()
            state = checkpoints.restore(compute_state_shapes(stage, config))
            if int(state.step) != steps:
                raise CheckpointError(
                    f'the last checkpoint of {stage.NAME}, step {steps:,}, was saved in {folder} but cannot be read'
                    f' back: check that disk, then run the same command; it resumes from step {int(state.step):,}'
                )
        # If the signal came after the last step, everything is saved already.
        if processes.any_process(interruption.stop_requested):
            raise Preempted
        return state


def make_initial_state(stage, config: ConfigDict, devices: Devices, base: dict | None) -> State:
    """Returns the state of a stage at step 0, on the devices."""
    init = jax.jit(partial(stage.init_state, config=config), out_shardings=devices.replicated)
    return init(keys.stage_key(config.seed, stage.NAME), base)


def check_finished(stage, config: ConfigDict, workdir: Path, *, alternative: str = '') -> None:
    """Raises CheckpointError if the newest checkpoint of a stage is not from the last step.

    Only the step number in the name of the checkpoint is checked; its arrays are not read.

    Args:
      stage: the stage.
      config: the run's configuration.
      workdir: the run's work directory.
      alternative: an option that the message offers instead of running the stage.
    """
    info = checkpoint.read_info(find_stage_folder(workdir, stage.NAME) / 'checkpoints')
    _raise_if_incomplete(stage, config, workdir, info.step if info else 0, alternative)


def _raise_if_incomplete(stage, config, workdir, step, alternative=''):
    steps, _ = stage.get_steps_and_batch_size(config)
    if step != steps:
        raise CheckpointError(
            f'{stage.NAME} is at step {step:,} of {steps:,} in {workdir}: run this stage first (add it to'
            f' --config.stages){", or give " if alternative else ""}{alternative}'
        )


def load_final_state(stage, config: ConfigDict, workdir: Path, devices: Devices) -> State:
    """Returns the state after the last step of a stage.

    Raises:
      CheckpointError: the stage has not reached its last step; the message gives the step that it has reached.
    """
    with Checkpoints(find_stage_folder(workdir, stage.NAME) / 'checkpoints', config, devices.replicated) as checkpoints:
        shapes = compute_state_shapes(stage, config)
        state: Any = None if checkpoints.latest_step is None else checkpoints.restore(shapes)
    _raise_if_incomplete(stage, config, workdir, 0 if state is None else int(state.step))
    return state


def load_newest_state(stage, config: ConfigDict, workdir: Path, devices: Devices) -> State:
    """Returns the state of a stage's newest checkpoint, for inspection only: training cannot resume from it.

    The stage may be incomplete. With `optim.use_ema` the parameters are replaced by their moving average, which later
    stages use, too.

    Raises:
      CheckpointError: the stage has no checkpoint, or none that can be read.
    """
    folder, use_ema = find_stage_folder(workdir, stage.NAME) / 'checkpoints', config.optim.use_ema
    if not folder.is_dir():
        raise CheckpointError(f'no checkpoint of the stage {stage.NAME} in {workdir}: run it first')
    with Checkpoints(folder, config, devices.replicated) as checkpoints:
        # The moving average is stored in the optimiser's state. If use_ema is False, that state is not read.
        state = checkpoints.restore(compute_state_shapes(stage, config), training=use_ema)
    return state.replace(params=state.ema) if use_ema else state


def compute_state_shapes(stage, config: ConfigDict) -> State:
    """Returns the shapes and types of a stage's state; no array is computed."""
    base = stage.BASE and compute_state_shapes(stage.BASE, config).variables
    return jax.eval_shape(partial(stage.init_state, config=config), keys.stage_key(config.seed, stage.NAME), base)


def _restore_or_init(stage, config, workdir, devices, datasets, base, checkpoints):
    """Returns the state of the newest checkpoint, or the state at step 0 if there is no checkpoint."""
    if checkpoints.latest_step is None:
        state = make_initial_state(stage, config, devices, base)
        if hasattr(stage, 'initialise_from_data'):
            state = stage.initialise_from_data(state, config=config, devices=devices, datasets=datasets)
    else:
        state = checkpoints.restore(compute_state_shapes(stage, config))
    steps, _ = stage.get_steps_and_batch_size(config)
    if (start := int(state.step)) > steps:
        raise CheckpointError(
            f'{stage.NAME} is at step {start:,} in {workdir}, beyond the {steps:,} steps of the configuration: set the'
            f' number of steps to {start:,}, or use another --workdir'
        )
    return state


def _make_report(stage, config, workdir, start):
    steps, batch_size = stage.get_steps_and_batch_size(config)
    options = {'steps': steps, 'batch_size': batch_size, 'log_every': config.log_every}
    report_class = Report if processes.is_first() else NullReport
    return report_class(Path(workdir), stage.NAME, start, **options, progress_metrics=stage.PROGRESS_METRICS)


def _summarise_parameters(stage, state):
    counts = {network: parameter_overview.count_parameters(tree) for network, tree in state.params.items()}
    return f'{stage.NAME}: trained parameters: ' + ', '.join(f'{name} {count:,}' for name, count in counts.items())


def _list_actions(step, steps, config):
    """Returns the names of the actions that are due after a step; after the last step, all of them."""
    intervals = {'eval': config.eval_every, 'figure': config.figure_every, 'checkpoint': config.checkpoint_every}
    return {name for name, interval in intervals.items() if step == steps or step % interval == 0}


def _make_periodic_actions(stage, config, devices, datasets, checkpoints, report):
    """Returns run_actions(state, actions, should_stop), which evaluates, plots, saves and, if asked, stops."""
    evaluate, plot = stage.make_evaluator(config, devices, datasets), stage.make_plotter(config, devices, datasets)
    key, (steps, _) = keys.stage_key(config.seed, stage.NAME), stage.get_steps_and_batch_size(config)

    def run_actions(state, actions, should_stop=False):
        step = int(state.step)
        if 'eval' in actions:
            with report.time_section('evaluation'):
                report.log_test(step, evaluate(state, key))
        if 'figure' in actions:
            with report.time_section('figures'):
                plot(state, key, report.figures)
                report.plot_curves()
        # The checkpoint is saved last, so that the metrics and figures of a saved step always exist.
        if 'checkpoint' in actions or should_stop:
            with report.time_section('checkpoints'):
                checkpoints.save(step, devices.to_global(state))
        if should_stop:
            report.log(f'stopped at step {step:,} of {steps:,}, state saved; run the same command to resume')
            raise Preempted

    return run_actions


def _add_stop_metric(train_step):
    """Returns train_step with one more metric, STOP: the sum of all stop flags, so that every host stops."""

    def step(state, batch, key, *, axis_name):
        count = total(batch[STOP].sum(), axis_name)
        state, values = train_step(state, {n: x for n, x in batch.items() if n != STOP}, key, axis_name=axis_name)
        return state, {**values, STOP: count}

    return step


def _check_and_log(report, checkpoints, key, supports_replay, pending):
    """Raises NonFiniteError if a value of a step is NaN or infinite, else logs the step; returns whether to stop."""
    step, values, batch = pending
    values = jax.device_get(values)
    should_stop = bool(values.pop(STOP))
    for name in metrics.find_nonfinite(values):
        last = checkpoints.latest_step
        path = checkpoints.folder.parent / NONFINITE_FOLDER / f'{step}.npz'
        batch = processes.gather(batch)
        if processes.is_first():
            path.parent.mkdir(exist_ok=True)
            with path.with_suffix('.tmp').open('wb') as file:
                np.savez(file, key=jax.random.key_data(key), **{f'batch_{name}': x for name, x in batch.items()})
            Path(file.name).replace(path)
        raise NonFiniteError(
            f'{name} is {values[name]} at step {step:,} of {report.stage}: '
            + ('there is no checkpoint' if last is None else f'restart from {checkpoints.folder / str(last)}')
            + f'; the batch and PRNG key of this step are in {path}'
            + ('; to run this step again, add --replay to the same command' if supports_replay else '')
        )
    report.log_train(step, values)
    return should_stop


def _move_if_outdated(folder, provenance):
    """Moves checkpoints and metrics of a stage to its folder 'replaced' if their provenance differs."""
    info = checkpoint.read_info(folder / 'checkpoints')
    if info is None or info.provenance in ('', provenance):
        return

    def move():
        target = folder / 'replaced' / f'{sum(1 for _ in folder.glob("replaced/*")) + 1}'
        target.mkdir(parents=True)
        for name in ('checkpoints', 'metrics.jsonl'):
            if (folder / name).exists():
                (folder / name).rename(target / name)
        print(
            f'{folder.name}: training restarts from step 0, because its base stage or its settings have changed; the'
            f' earlier checkpoints and metrics are in {target}'
        )

    processes.run_on_first_process(move, f'move {folder} to "replaced"')
