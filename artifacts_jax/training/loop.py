"""The only training loop: restore, step, log, evaluate, draw, save, and stop on preemption."""

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
from artifacts_jax.renamed import find_stage_folder
from artifacts_jax.training import checkpoint, keys, metrics, trees
from artifacts_jax.training.checkpoint import CheckpointError, Checkpoints
from artifacts_jax.training.interruption import Interruption
from artifacts_jax.training.report import NullReport, Report
from artifacts_jax.training.state import State

STOP = 'stop'  # in a batch: whether its host was told to stop
NONFINITE_FOLDER = 'nonfinite'  # folder of a stage with the batch and key of each step whose loss was not finite


class NonFiniteError(UserError, FloatingPointError):
    """A loss or gradient that is NaN or infinite; the message names it, the step and the checkpoint to restart from."""


class Preempted(SystemExit):
    """The run was told to stop, saved its state and can be resumed; the exit status is 75 (EX_TEMPFAIL)."""

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
    settings: str = '',
) -> State:
    """Trains a stage to its last step and returns the final state, as it is read back from what was saved.

    What an earlier call has trained on another base, or with other settings, is set aside, into the stage's folder
    'replaced', and the stage begins anew.

    Args:
      stage: a module, or an object, with NAME, BASE, PROGRESS_METRICS, plan, init_state, train_step, make_evaluator and
        make_plotter; and with initialise_from_data, if its first state depends on the data.
      config: the run's configuration; `stage.plan(config)` gives the number of updates and the batch size.
      workdir: gets {NAME}/checkpoints, {NAME}/metrics.jsonl, tensorboard/{NAME} and figures/.
      devices: the mapping over devices.
      datasets: {'train', 'test', ...}: data sets; the stage learns from 'train'.
      base: the variables of stage.BASE, if it has one.
      settings: names the configuration, if the stage should not go on with another one.

    Raises:
      NonFiniteError: a loss or the norm of a gradient is not finite.
      CheckpointError: the disk is full, or the last checkpoint cannot be read back.
      Preempted: one of interruption.SIGNALS came to any of the processes; the state is saved.
    """
    key, (steps, batch_size) = keys.stage_key(config.seed, stage.NAME), stage.plan(config)
    devices.check_batch('batch_size', batch_size, config.accumulate)
    folder = find_stage_folder(workdir, stage.NAME) / 'checkpoints'
    provenance = f'{trees.fingerprint(base)} {settings}'.strip() if base else settings
    _set_aside(folder.parent, provenance)
    # A signal is noted until the last save is on disk.
    with (
        Interruption() as interruption,
        Checkpoints(folder, config, devices.replicated, provenance=provenance) as checkpoints,
    ):
        state = _first(stage, config, workdir, devices, datasets, base, checkpoints)
        start = int(state.step)
        if start < steps:
            with _report(stage, config, workdir, start) as report:
                report.say(_described(stage, state))
                train_step = devices.train_step(_with_stop(partial(stage.train_step, config=config)))
                look = partial(_look, report, checkpoints, key, getattr(stage, 'SUPPORTS_REPLAY', False))
                pause = _pauses(stage, config, devices, datasets, checkpoints, report)
                batches, pending = datasets['train'].train_batches(batch_size, start_step=start), None
                if start == 0:
                    pause(state, {'eval'})
                for step in range(start + 1, steps + 1):
                    batch = next(batches)
                    stop = np.full(len(batch['index']), interruption.asked)
                    with report.aside('compilation') if step == start + 1 else contextlib.nullcontext():
                        state, values = train_step(state, devices.put({**batch, STOP: stop}), key)
                    # Looked at one step late, so that the devices never wait for the host.
                    asked = look(pending) if pending else False
                    due, pending = _due(step, steps, config), (step, values, batch)
                    if due or asked:
                        asked |= look(pending)
                        pending = None
                        pause(state, due, asked)
                del state, batches
                checkpoints.finish()
            state = checkpoints.restore(compute_state_shapes(stage, config))
            if int(state.step) != steps:
                raise CheckpointError(
                    f'the end of {stage.NAME}, step {steps:,}, was saved in {folder} but cannot be read back: see to'
                    f' that disk, and run the same command, which goes on from step {int(state.step):,}'
                )
        if processes.any_process(interruption.asked):  # after the last step, all of which is saved
            raise Preempted
        return state


def make_initial_state(stage, config: ConfigDict, devices: Devices, base: dict | None) -> State:
    """Returns the state at step 0, on the devices."""
    init = jax.jit(partial(stage.init_state, config=config), out_shardings=devices.replicated)
    return init(keys.stage_key(config.seed, stage.NAME), base)


def check_finished(stage, config: ConfigDict, workdir: Path, *, instead: str = '') -> None:
    """Raises CheckpointError if a stage has not run to its end, as its newest checkpoint is named.

    Args:
      stage: the stage.
      config: the run's configuration.
      workdir: the run's work directory.
      instead: what may take the stage's place, for the message.
    """
    found = checkpoint.described(find_stage_folder(workdir, stage.NAME) / 'checkpoints')
    _check_done(stage, config, workdir, found[0] if found else 0, instead)


def _check_done(stage, config, workdir, done, instead=''):
    steps, _ = stage.plan(config)
    if done != steps:
        raise CheckpointError(
            f'{stage.NAME} is at step {done:,} of {steps:,} in {workdir}: run it first, with it among'
            f' --config.stages{", or give " if instead else ""}{instead}'
        )


def load_final_state(stage, config: ConfigDict, workdir: Path, devices: Devices) -> State:
    """Returns the final state of a stage that has run before.

    Raises:
      CheckpointError: it has not run to its end; the message says how far it is.
    """
    with Checkpoints(find_stage_folder(workdir, stage.NAME) / 'checkpoints', config, devices.replicated) as checkpoints:
        shapes = compute_state_shapes(stage, config)
        state: Any = None if checkpoints.latest_step is None else checkpoints.restore(shapes)
    _check_done(stage, config, workdir, 0 if state is None else int(state.step))
    return state


def load_newest_state(stage, config: ConfigDict, workdir: Path, devices: Devices) -> State:
    """Returns the state at a stage's newest checkpoint, finished or not, for looking at: it cannot be trained on.

    With `optim.use_ema` its parameters are their moving average, as later stages take them.

    Raises:
      CheckpointError: there is none, or it cannot be read.
    """
    folder, averaged = find_stage_folder(workdir, stage.NAME) / 'checkpoints', config.optim.use_ema
    if not folder.is_dir():
        raise CheckpointError(f'no checkpoint of the stage {stage.NAME} in {workdir}: run it first')
    with Checkpoints(folder, config, devices.replicated) as checkpoints:
        state = checkpoints.restore(compute_state_shapes(stage, config), training=averaged)
    return state.replace(params=state.ema) if averaged else state


def compute_state_shapes(stage, config: ConfigDict) -> State:
    """Returns the shapes and types of a stage's state, with nothing computed."""
    base = stage.BASE and compute_state_shapes(stage.BASE, config).variables
    return jax.eval_shape(partial(stage.init_state, config=config), keys.stage_key(config.seed, stage.NAME), base)


def _first(stage, config, workdir, devices, datasets, base, checkpoints):
    """Returns the state to go on from: that of the newest checkpoint, or at step 0."""
    if checkpoints.latest_step is None:
        state = make_initial_state(stage, config, devices, base)
        if hasattr(stage, 'initialise_from_data'):
            state = stage.initialise_from_data(state, config=config, devices=devices, datasets=datasets)
    else:
        state = checkpoints.restore(compute_state_shapes(stage, config))
    steps, _ = stage.plan(config)
    if (start := int(state.step)) > steps:
        raise CheckpointError(
            f'{stage.NAME} is at step {start:,} in {workdir}, past the {steps:,} that are asked for: ask for'
            f' {start:,}, or use another --workdir'
        )
    return state


def _report(stage, config, workdir, start):
    steps, batch_size = stage.plan(config)
    options = {'steps': steps, 'batch_size': batch_size, 'log_every': config.log_every, 'shown': stage.PROGRESS_METRICS}
    return (Report if processes.is_first() else NullReport)(Path(workdir), stage.NAME, start, **options)


def _described(stage, state):
    counts = {network: parameter_overview.count_parameters(tree) for network, tree in state.params.items()}
    named = ', '.join(f'{count:,} of the {network}' for network, count in counts.items())
    return f'{stage.NAME}: trained parameters are {named}'


def _due(step, steps, config):
    """Returns what is due after a step, which the last one all is."""
    intervals = {'eval': config.eval_every, 'figure': config.figure_every, 'checkpoint': config.checkpoint_every}
    return {name for name, steps_between in intervals.items() if step == steps or step % steps_between == 0}


def _pauses(stage, config, devices, datasets, checkpoints, report):
    """Returns pause(state, due, asked), which does what is due after a step, and saves the state if asked to stop."""
    evaluate, draw = stage.make_evaluator(config, devices, datasets), stage.make_plotter(config, devices, datasets)
    key, (steps, _) = keys.stage_key(config.seed, stage.NAME), stage.plan(config)

    def pause(state, due, asked=False):
        step = int(state.step)
        if 'eval' in due:
            with report.aside('evaluation'):
                report.test(step, evaluate(state, key))
        if 'figure' in due:
            with report.aside('figures'):
                draw(state, key, report.figures)
                report.curves()
        if 'checkpoint' in due or asked:  # last: what belongs to this step is written already
            with report.aside('checkpoints'):
                checkpoints.save(step, devices.to_global(state))
        if asked:
            report.say(f'stopped at step {step:,} of {steps:,}, saved; run the same command to go on')
            raise Preempted

    return pause


def _with_stop(train_step):
    """Returns the step with one more value: on how many examples a host has said STOP, which so reaches all hosts."""

    def step(state, batch, key, *, axis_name):
        asked = total(batch[STOP].sum(), axis_name)
        state, values = train_step(state, {n: x for n, x in batch.items() if n != STOP}, key, axis_name=axis_name)
        return state, {**values, STOP: asked}

    return step


def _look(report, checkpoints, key, replayed, pending):
    """Refuses a step with a loss or gradient that is not finite, and logs it in its turn; returns whether to stop."""
    step, values, batch = pending
    values = jax.device_get(values)
    stop = bool(values.pop(STOP))
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
            + f'; its batch and key are in {path}'
            + ('; the same command with --replay shows the step' if replayed else '')
        )
    report.train(step, values)
    return stop


def _set_aside(folder, provenance):
    """Moves what a stage has made, into its folder 'replaced', if it was made from something else."""
    found = checkpoint.described(folder / 'checkpoints')
    if found is None or found[2] in ('', provenance):
        return

    def move():
        place = folder / 'replaced' / f'{sum(1 for _ in folder.glob("replaced/*")) + 1}'
        place.mkdir(parents=True)
        for name in ('checkpoints', 'metrics.jsonl'):
            if (folder / name).exists():
                (folder / name).rename(place / name)
        print(f'{folder.name}: begins anew, since what it builds on has changed; what was there is in {place}')

    processes.run_on_first_process(move, f'set {folder} aside')
