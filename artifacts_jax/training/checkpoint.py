"""Checkpoints of a stage, one per step, written asynchronously by Orbax; variables and optimiser are separate items."""

import contextlib
import errno
import functools
import json
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding
from ml_collections import ConfigDict

from artifacts_jax.config import UserError
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import shape_tree
from artifacts_jax.training.state import State
from artifacts_jax.training.trees import compute_checksums, find_differences

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE)
PROVENANCE = 'made from'  # key in the item 'checksums' that identifies what the state builds on


class CheckpointError(UserError):
    """A checkpoint is missing, damaged or different from what is expected, or it cannot be written."""


class DamagedError(CheckpointError):
    """A checkpoint cannot be read, or its arrays do not match their checksums."""


class DifferentError(CheckpointError):
    """A checkpoint has other arrays than expected: the architecture differs, or the description is damaged."""


class Checkpoints:
    """The checkpoints of one stage; a context manager, which waits at its end until every save is on disk.

    Each checkpoint has four items: 'variables' (parameters and batch statistics, trained and frozen; transfer reads
    only these), 'training' (step, optimiser states, moving average and history), 'config' and 'checksums' (JSON).

    Args:
      folder: has one subfolder for each checkpoint, whose name is the number of completed steps.
      config: the run's configuration, which is saved in each checkpoint.
      sharding: how restored arrays are placed on the current devices.
      provenance: identifies what the state builds on, such as a fingerprint of frozen networks; saved in each
        checkpoint.
    """

    def __init__(self, folder: Path, config: ConfigDict, sharding: Sharding | None = None, *, provenance: str = ''):
        silence_logging()
        self.folder = Path(folder).absolute()
        self._provenance = provenance
        self._config = json.loads(config.to_json_best_effort())
        self._sharding = sharding
        self._save_bytes = 0  # size of the newest save
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
            return  # another process may be gone, and the end of a save would wait for it forever
        with self._convert_disk_errors():
            self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The number of completed steps of the newest checkpoint, None if there is no checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: State) -> None:
        """Starts to save the state after `step` steps; does nothing if that step is saved.

        Raises:
          CheckpointError: the disk has no room for this checkpoint, or had none for the previous one. Earlier
            checkpoints stay valid.
        """
        if step in self._manager.all_steps():
            return
        items = {'variables': state.variables, 'training': _training(state)}
        args = ocp.args.Composite(
            **{name: ocp.args.StandardSave(tree) for name, tree in items.items()},
            config=ocp.args.JsonSave(self._config),
            checksums=ocp.args.JsonSave({**compute_checksums(items), PROVENANCE: self._provenance}),
        )
        self._save_bytes = sum(x.nbytes for x in jax.tree.leaves(items))
        with self._convert_disk_errors(self._save_bytes):
            self._manager.save(step, args=args)

    def finish(self) -> None:
        """Waits until the last save is on disk.

        Raises:
          CheckpointError: the disk has no room for it.
        """
        with self._convert_disk_errors():
            self._manager.wait_until_finished()

    @contextlib.contextmanager
    def _convert_disk_errors(self, needed=0):
        """Raises CheckpointError if fewer than `needed` bytes are free, or for an error of the disk while writing."""
        free = shutil.disk_usage(self.folder).free
        newest = max((int(path.name) for path in self.folder.iterdir() if path.name.isdigit()), default=0)
        advice = f'; free some space, then run the same command: it resumes from step {newest:,}'
        if free < needed:
            raise CheckpointError(
                f'no room for a checkpoint in {self.folder}: it needs {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB'
                f' are free{advice}'
            )
        try:
            yield
        except Exception as error:
            reason = _find_errno(error)
            if reason is None:
                raise
            if reason not in FULL:
                raise CheckpointError(
                    f'a checkpoint cannot be written in {self.folder}: {os.strerror(reason)}; correct this,'
                    f' then run the same command: it resumes from step {newest:,}'
                ) from error
            raise CheckpointError(
                f'no room for a checkpoint in {self.folder}: it needs {self._save_bytes / 1e6:,.1f} MB, and'
                f' {free / 1e6:,.1f} MB were free{advice}'
            ) from error

    def restore(self, target: State, *, training: bool = True) -> State:
        """Returns the state of the newest valid checkpoint.

        A checkpoint is skipped, with a warning that names it and the one before, if any process finds it damaged, or if
        its arrays differ from those of `target` while an older checkpoint matches. With `training`, skipped checkpoints
        are moved to the folder 'damaged', because training will save their steps again.

        Args:
          target: the shapes and types of the state, as from jax.eval_shape.
          training: False does not read optimiser states, moving average and history, so that fewer errors are
            possible. The returned state cannot be trained, and another version of the program may have written it.

        Raises:
          CheckpointError: no checkpoint can be read as this state; the message gives the reason.
        """
        items = {'variables': target.variables, **({'training': _training(target)} if training else {})}
        steps = sorted(self._manager.all_steps(), reverse=True)
        if not steps:
            raise CheckpointError(f'no checkpoint in {self.folder}: run the stage that writes it first')
        errors = []
        for step in steps:
            restored, error = self._try_restore(step, items)
            if error is None:
                break
            errors.append(error)
        else:
            different = [error for error in errors if isinstance(error, DifferentError)]
            if different:
                raise different[0]
            raise CheckpointError(f'{errors[-1]}; {self.folder} has no other checkpoint') from errors[-1]
        for error, before in zip(errors, steps[1:]):
            print(f'warning: {error}; using {self.folder / str(before)}', file=sys.stderr, flush=True)
        if training:
            self._move_to_damaged([skipped for skipped in steps if skipped > step])
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

    def _try_restore(self, step, items):
        """Returns (items, None), or (None, error) if the checkpoint cannot be restored in any of the processes."""
        restored = error = None
        try:
            restored = self._restore(step, items)
        except CheckpointError as caught:
            error = caught
        if processes.any_process(error is not None):
            return None, error or DamagedError(f'another process cannot restore {self.folder / str(step)}')
        return restored, None

    def _restore(self, step, items):
        path = self.folder / str(step)
        args = {name: ocp.args.StandardRestore(shape_tree(tree, self._sharding)) for name, tree in items.items()}
        try:
            saved = self._manager.item_metadata(step)
            different = [line for name, tree in items.items() for line in find_differences(saved[name].tree, tree)]
            if not different:
                args['checksums'] = ocp.args.JsonRestore()
                restored = self._manager.restore(step, args=ocp.args.Composite(**args))
        except Exception as error:
            reason = str(error).split(' [tensorstore_spec=')[0]  # cuts off a long description of the storage
            raise DamagedError(f'checkpoint {path} cannot be restored: {reason}') from error
        if different:
            raise DifferentError(f'{path} was written by another architecture:\n  ' + '\n  '.join(different))
        trees, expected = {name: restored[name] for name in items}, restored['checksums']
        wrong = [name for name, checksum in compute_checksums(trees).items() if expected.get(name) != checksum]
        if wrong:
            raise DamagedError(f'checkpoint {path} is damaged: the checksum of {wrong[0]} is wrong')
        return trees

    def _move_to_damaged(self, steps):
        folder = self.folder.with_name('damaged')

        def move():
            for step in steps:
                folder.mkdir(exist_ok=True)
                numbers = [int(path.suffix[1:]) for path in folder.glob(f'{step}.*')]
                (self.folder / str(step)).rename(folder / f'{step}.{max(numbers, default=0) + 1}')

        processes.run_on_first_process(move, 'move a damaged checkpoint')
        self._manager.reload()


@functools.cache
def silence_logging() -> None:
    """Suppresses, from now on, messages and stack traces of Orbax about errors that Orbax also raises.

    When one of the many reads or writes of Orbax fails, it cancels the others. They end later in other threads, and
    each would print that its result was never retrieved.
    """
    logging.getLogger('asyncio').setLevel(logging.CRITICAL)
    logging.getLogger('absl').addFilter(lambda record: 'orbax' not in record.pathname)
    default_hook = sys.unraisablehook

    def ignore_orbax(unraisable):
        code = getattr(unraisable.object, 'cr_code', None)
        if not (code and 'orbax' in code.co_filename) and str(unraisable.exc_value) != 'Event loop is closed':
            default_hook(unraisable)

    sys.unraisablehook = ignore_orbax


def _find_errno(error):
    """Returns the errno of an exception, or the errno whose text its message has; None if there is neither."""
    number = getattr(error, 'errno', None)
    if number in (*FULL, *DENIED):
        return number
    return next((number for number in (*FULL, *DENIED) if os.strerror(number) in str(error)), None)


class CheckpointInfo(NamedTuple):
    """The description of a checkpoint."""

    step: int  # steps completed
    config: dict  # the configuration that it was trained with; {} if it cannot be read
    provenance: str  # identifies what the stage builds on; '' if unknown


def read_info(folder: Path) -> CheckpointInfo | None:
    """Returns the description of the newest checkpoint in a folder, None if the folder has no checkpoint.

    The configuration is empty if the checkpoint is damaged. The provenance is also empty if an earlier version, which
    did not store it, wrote the checkpoint.
    """
    steps = [int(path.name) for path in Path(folder).glob('*') if path.name.isdigit()]
    if not steps:
        return None
    newest = Path(folder) / str(max(steps))
    try:
        checksums, config = (json.loads((newest / item / 'metadata').read_text()) for item in ('checksums', 'config'))
    except (OSError, ValueError):
        return CheckpointInfo(max(steps), {}, '')
    return CheckpointInfo(max(steps), config, checksums.get(PROVENANCE, ''))


def _training(state):
    return {'step': state.step, 'opt_state': state.opt_state, 'ema': state.ema, 'history': state.history}
