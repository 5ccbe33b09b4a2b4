"""Checkpoints of a stage, through Orbax: by step, asynchronous, with variables, optimiser and config apart."""

import contextlib
import errno
import functools
import json
import logging
import os
import shutil
import sys
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from ml_collections import ConfigDict

from artifacts_jax.config import UserError
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import shape_tree
from artifacts_jax.training.state import State
from artifacts_jax.training.trees import checksums, differences

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE)
PROVENANCE = 'made from'  # beside the checksums: what the state builds on


class CheckpointError(UserError):
    """A checkpoint that is missing or does not hold what it should."""


class DamagedError(CheckpointError):
    """A checkpoint that cannot be read, or whose arrays are not those that were saved."""


class DifferentError(CheckpointError):
    """A checkpoint of other arrays than are wanted: of another architecture, or with a damaged description."""


class Checkpoints:
    """The checkpoints of one stage; use it as a context, which ends with every save on disk.

    Each has four items: 'variables' (parameters and statistics, trained and frozen, all that transfer needs),
    'training' (step, optimiser states, moving average and history), 'config' and 'checksums' (JSON).

    Args:
      folder: holds one folder for each step, named by the steps completed.
      config: the run's configuration, saved beside the state.
      sharding: how restored arrays are placed on the current devices.
      provenance: what the state builds on, such as a fingerprint of frozen networks; saved beside it.
    """

    def __init__(self, folder: Path, config: ConfigDict, sharding: Sharding | None = None, *, provenance: str = ''):
        silence_logging()
        self.folder = Path(folder).absolute()
        self._provenance = provenance
        self._config = json.loads(config.to_json_best_effort())
        self._sharding = sharding
        self._needed = 0  # bytes of the newest save
        self._manager = ocp.CheckpointManager(
            self.folder,
            item_handlers={
                'variables': ocp.StandardCheckpointHandler(),
                'training': ocp.StandardCheckpointHandler(),
                'config': ocp.JsonCheckpointHandler(),
                'checksums': ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                preservation_policy=ocp.checkpoint_managers.LatestN(config.keep_checkpoints)
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, kind, error, traceback):
        if isinstance(error, RuntimeError | ValueError) and jax.process_count() > 1:
            return  # as when another process is gone, for which the end of a save would wait
        with self._room():
            self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The steps completed at the newest checkpoint, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: State) -> None:
        """Starts to save the state after `step` steps; saving a step again does nothing.

        Raises:
          CheckpointError: the disk has no room for it, or had none for the one before; earlier ones stay as they are.
        """
        if step in self._manager.all_steps():
            return
        items = {'variables': state.variables, 'training': _training(state)}
        args = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
            config=ocp.args.JsonSave(self._config),
            checksums=ocp.args.JsonSave({**checksums(items), PROVENANCE: self._provenance}),
        )
        self._needed = sum(x.nbytes for x in jax.tree.leaves(items))
        with self._room(self._needed):
            self._manager.save(step, args=args)

    def finish(self) -> None:
        """Returns when the last save is on disk.

        Raises:
          CheckpointError: the disk has no room for it.
        """
        with self._room():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _room(self, needed=0):
        """Makes one error of a full disk, found beforehand or while writing, and of others that the system has."""
        free = shutil.disk_usage(self.folder).free
        whole = max((int(path.name) for path in self.folder.iterdir() if path.name.isdigit()), default=0)
        advice = f'; make room and run the same command: it goes on from step {whole:,}'
        if free < needed:
            raise CheckpointError(
                f'no room for a checkpoint in {self.folder}: it takes {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB'
                f' are free{advice}'
            )
        try:
            yield
        except Exception as error:
            reason = _reason(error)
            if reason is None:
                raise
            if reason not in FULL:
                raise CheckpointError(
                    f'a checkpoint cannot be written in {self.folder}: {os.strerror(reason)}; see to that, and run the'
                    f' same command: it goes on from step {whole:,}'
                ) from error
            raise CheckpointError(
                f'no room for a checkpoint in {self.folder}: it takes {self._needed / 1e6:,.1f} MB, and'
                f' {free / 1e6:,.1f} MB were free{advice}'
            ) from error

    def restore(self, target: State, *, training: bool = True) -> State:
        """Returns the newest state that is whole; `target` gives the shapes and types, as from jax.eval_shape.

        A checkpoint that is damaged for any process, or differs from one before that is as it should be, is left out
        with a warning that names it and the one before. To train on, it is moved aside, into the folder 'damaged',
        since its step will be saved again.

        Args:
          target: what is wanted.
          training: False leaves out optimiser states, moving average and history, which less can go wrong with: the
            state is good for everything but training, and may have been trained by another version of the program.

        Raises:
          CheckpointError: no checkpoint can be read as this state; the message says why.
        """
        items = {'variables': target.variables, **({'training': _training(target)} if training else {})}
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise CheckpointError(f'no checkpoint in {self.folder}: run the stage that writes it first')
        errors = []
        for step in steps:
            restored, error = self._restored(step, items)
            if error is None:
                break
            errors.append(error)
        else:
            different = [error for error in errors if isinstance(error, DifferentError)]
            if different:
                raise different[0]
            raise CheckpointError(f'{errors[-1]}; there is no other in {self.folder}') from errors[-1]
        for error, before in zip(errors, steps[1:]):
            print(f'warning: {error}; going back to {self.folder / str(before)}', file=sys.stderr, flush=True)
        if training:
            self._set_aside([damaged for damaged in steps if damaged > step])
        variables = restored['variables']
        rest = restored.get('training') or {'step': step, 'opt_state': {}, 'ema': None, 'history': None}
        frozen = target.frozen and {
            kind: {network: variables[kind][network] for network in tree} for kind, tree in target.frozen.items()
        }
        return target.replace(
            params={n: variables['params'][n] for n in target.params},
            batch_stats={n: variables['batch_stats'][n] for n in target.batch_stats},
            frozen=frozen,
            **rest,
        )

    def _restored(self, step, items):
        """Returns (what `_restore` does, None), or (None, an error if there is one in any process)."""
        restored = error = None
        try:
            restored = self._restore(step, items)
        except CheckpointError as caught:
            error = caught
        if processes.any_process(error is not None):
            return None, error or DamagedError(f'another process cannot restore {self.folder / str(step)}')
        return restored, None

    def _restore(self, step, items):
        where = self.folder / str(step)
        args = {name: ocp.args.StandardRestore(shape_tree(tree, self._sharding)) for name, tree in items.items()}
        try:
            saved = self._manager.item_metadata(step)
            different = [line for name, tree in items.items() for line in differences(saved[name].tree, tree)]
            if not different:
                args['checksums'] = ocp.args.JsonRestore()
                restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:
            reason = str(error).split(' [tensorstore_spec=')[0]  # a description of the whole storage
            raise DamagedError(f'checkpoint {where} cannot be restored: {reason}') from error
        if different:
            raise DifferentError(f'{where} was written by another architecture:\n  ' + '\n  '.join(different))
        read = {name: restored[name] for name in items}
        expected = restored['checksums']
        wrong = [name for name, checksum in checksums(read).items() if expected.get(name) != checksum]
        if wrong:
            raise DamagedError(f'checkpoint {where} is damaged: {wrong[0]} is not what was saved')
        return read

    def _set_aside(self, steps):
        folder = self.folder.with_name('damaged')

        def move():
            for step in steps:
                folder.mkdir(exist_ok=True)
                taken = [int(path.suffix[1:]) for path in folder.glob(f'{step}.*')]
                (self.folder / str(step)).rename(folder / f'{step}.{max(taken, default=0) + 1}')

        processes.run_on_first_process(move, 'set a damaged checkpoint aside')
        self._manager.reload()


@functools.cache
def silence_logging() -> None:
    """Keeps quiet, from now on, what Orbax prints of errors that it also raises, stack traces among that.

    When one of its many reads or writes fails, the others are given up; they end later, in other threads, and each
    would print that nobody waits for it.
    """
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    logging.getLogger('absl').addFilter(lambda record: 'orbax' not in record.pathname)
    show = sys.unraisablehook

    def show_others(unraisable):
        code = getattr(unraisable.object, 'cr_code', None)
        if not (code and 'orbax' in code.co_filename) and str(unraisable.exc_value) != 'Event loop is closed':
            show(unraisable)

    sys.unraisablehook = show_others


def _reason(error):
    """Returns the number of the system's error that an error is, or tells of; None if it does not."""
    number = getattr(error, 'errno', None)
    if number in (*FULL, *DENIED):
        return number
    return next((number for number in (*FULL, *DENIED) if os.strerror(number) in str(error)), None)


def described(folder: Path) -> tuple[int, dict, str] | None:
    """Returns (step, configuration, what it was made from) of the newest checkpoint in a folder, None if there is none.

    Of a checkpoint that is damaged, or older than these descriptions, the last is ''.
    """
    steps = [int(path.name) for path in Path(folder).glob('*') if path.name.isdigit()]
    if not steps:
        return None
    newest = Path(folder) / str(max(steps))
    try:
        checksums, config = (json.loads((newest / item / 'metadata').read_text()) for item in ('checksums', 'config'))
    except (OSError, ValueError):
        return max(steps), {}, ''
    return max(steps), config, checksums.get(PROVENANCE, '')


def _training(state):
    return {'step': state.step, 'opt_state': state.opt_state, 'ema': state.ema, 'history': state.history}
