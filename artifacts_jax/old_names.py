"""Renamed sections and stages: configurations, work directories and exports with an old name still load.

The random keys of a stage and the digests of its settings are derived from the old name, so that results stay equal.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict

NEW = {'transfer': 'stl10'}  # {old name: new name}
OLD = {new: old for old, new in NEW.items()}


class Config(ConfigDict):
    """A configuration that also accepts the old names of sections and stages."""

    def __getitem__(self, key):
        return super().__getitem__(to_new_name(key))

    def __setitem__(self, key, value):
        if key == 'stages' and isinstance(value, tuple):
            value = tuple(to_new_name(stage) if isinstance(stage, str) else stage for stage in value)
        super().__setitem__(to_new_name(key), value)

    def __contains__(self, key):
        return super().__contains__(to_new_name(key))

    def get_type(self, key: str) -> type:
        """Returns the type of a key's value."""
        return super().get_type(to_new_name(key))

    def update(self, *other, **values) -> None:
        """Sets the values of a mapping, like `dict.update`."""
        super().update(*(rename_keys(mapping) for mapping in other), **rename_keys(values))


def to_new_name(name: str) -> str:
    """Returns a dotted key, or the path of a result such as 'stl10/linear/all', with the new name of its section."""
    return _replace(name, NEW)


def to_old_name(name: str) -> str:
    """Returns a dotted key, or the path of a result, with the old name of its section."""
    return _replace(name, OLD)


def rename_keys(mapping: Mapping) -> dict:
    """Returns a mapping with the new names of its keys."""
    return {to_new_name(name): value for name, value in mapping.items()}


def find_stage_folder(folder: Path, stage: str) -> Path:
    """Returns the subfolder of a stage; it has the old name if an earlier version created it."""
    folder, name, (section, *_) = Path(folder), to_old_name(stage), stage.split('/')
    return folder / (name if (folder / to_old_name(section)).is_dir() and not (folder / section).is_dir() else stage)


def _replace(name, names):
    section = re.split('[./]', name, maxsplit=1)[0]
    return names.get(section, section) + name[len(section) :]
