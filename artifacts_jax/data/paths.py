"""Finds the folder or file of a data set, also after it has moved."""

import os
from pathlib import Path

from ml_collections import ConfigDict

from artifacts_jax.data.errors import DataError

PHOTOGRAPHS = 'photographs'  # the name of the built-in data set


def locate(config: ConfigDict) -> Path | None:
    """Returns the folder or file that the run's `config.data` names, or None for the name of a tfds data set.

    If `name` does not exist any more, `data_dir` is tried as its new path, and as the new parent folder.

    Raises:
      DataError: `name` looks like a path, but does not exist.
    """
    path = Path(config.name).expanduser()
    if path.exists():
        return path
    moved = Path(config.data_dir).expanduser()
    train, *others = (split.partition('[')[0] for split in (config.train, config.probe_train, config.test))
    if config.data_dir and os.sep in config.name:
        if (moved / path.name).exists():
            return moved / path.name
        if moved.suffix == '.npz' or (moved / train).is_dir() or (moved / f'{train}.npz').is_file():
            return moved
        if any((moved / listing).is_file() for listing in (train, *others)):
            return moved
    if config.name.startswith((os.sep, '.', '~')) or path.suffix == '.npz':
        also = f', and data.data_dir={moved} does not contain it' if config.data_dir else ''
        raise DataError(
            f'data.name={config.name}: this folder or file does not exist{also}; expected images, as'
            f' FOLDER/SPLIT/CLASS/IMAGE.jpg, or arrays, as FOLDER/SPLIT.npz (docs/data.md)'
        )
    return None
