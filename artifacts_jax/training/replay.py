"""Runs a step with a NaN or infinite loss again, to inspect it."""

import zipfile
import zlib
from functools import partial
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.training import loop
from artifacts_jax.training.checkpoint import Checkpoints


def list_files(stage, workdir: Path) -> list[Path]:
    """Returns the files of the steps of a stage that can be replayed."""
    return list((Path(workdir) / stage.NAME / loop.NONFINITE_FOLDER).glob('*.npz'))


def run(
    path: Path, stage, config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, base: dict | None
) -> dict:
    """Restores the last checkpoint before a step, trains to that step, and prints its inputs and outputs.

    Nothing is saved. On the same devices, all steps are bit-identical to those of the run.

    Args:
      path: the file of the step, from `list_files`.
      stage, config, workdir, devices, datasets, base: as for `loop.run`.

    Returns:
      {'step', 'values': {name: scalar}, 'arrays': names of the state's arrays with NaN or infinity after the step}.

    Raises:
      ConfigError: the file of the step is damaged, or the run has a checkpoint after the step.
      CheckpointError: no checkpoint can be read.
    """
    try:
        with path.open('rb') as file, np.load(file, allow_pickle=False) as saved:
            step, key = int(path.stem), jax.random.wrap_key_data(saved['key'])
            batch = {name.removeprefix('batch_'): saved[name] for name in saved if name.startswith('batch_')}
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f'{path} cannot be read: {error}; delete it, and run without --replay') from error
    with Checkpoints(Path(workdir) / stage.NAME / 'checkpoints', config, devices.replicated) as checkpoints:
        if checkpoints.latest_step is None:
            state = loop.make_initial_state(stage, config, devices, base)
        else:
            state = checkpoints.restore(loop.compute_state_shapes(stage, config))
    start = int(state.step)
    print(f'{stage.NAME}: replays step {step:,} from the checkpoint at step {start:,}', flush=True)
    if start >= step:
        raise ConfigError(f'the run has continued: its checkpoint at step {start:,} is after {path}')
    train_step = devices.train_step(partial(stage.train_step, config=config))
    batches = datasets['train'].train_batches(stage.get_steps_and_batch_size(config)[1], start_step=start)
    for _ in range(start + 1, step):
        state, _ = train_step(state, devices.put(next(batches)), key)
    state, values = train_step(state, devices.put(processes.local_shard(batch)), key)
    values = {name: float(value) for name, value in values.items()}
    arrays = [
        jax.tree_util.keystr(path, simple=True, separator='/')
        for path, x in jax.tree_util.tree_leaves_with_path(state.replace(frozen=None))
        if not np.isfinite(np.asarray(x)).all()
    ]
    for name, x in batch.items():
        print(f'  batch {name}: {list(x.shape)} {x.dtype}, {x.min()} to {x.max()}')
    for name, value in values.items():
        print(f'  {name}: {value}')
    print(f'  arrays with NaN or infinity after the step: {len(arrays)}' + ''.join(f'\n    {name}' for name in arrays))
    return {'step': step, 'values': values, 'arrays': arrays}
