"""Where data that a configuration names by a path is, also after it has moved."""

import os
from pathlib import Path

from ml_collections import ConfigDict

from artifacts_jax.data.errors import DataError

PHOTOGRAPHS = 'photographs'  # the name of the built-in data set


def locate(config: ConfigDict) -> Path | None:
    """Returns the folder or file that the run's `config.data` names, None if it is the name of a tfds data set.

    One that is not there any more is looked for in, and as, `data_dir`.

    Raises:
      DataError: it looks like a path, but there is nothing.
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
        nor = f', and nothing of it in {moved}' if config.data_dir else ''
        raise DataError(
            f'there is no folder or file {config.name}{nor}; expected are images, as FOLDER/SPLIT/CLASS/IMAGE.jpg, or'
            f' arrays, as FOLDER/SPLIT.npz (docs/data.md)'
        )
    return None
