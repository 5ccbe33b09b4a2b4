"""Lists of images, a name a line, and folders with a file for each name."""

import collections
import os
from collections.abc import Sequence
from pathlib import Path

from artifacts_jax.data.errors import DataError


def names(path: Path) -> list[str]:
    """Returns the names in a list of images, in its order.

    Raises:
      DataError: it cannot be read, is empty, has more than a name in a line, or names an image twice.
    """
    found = []
    for n, line in enumerate(lines(path), 1):
        words = line.split()
        if len(words) > 1:
            raise DataError(f'{path}, line {n}: is {line!r}, expected the name of an image')
        found += words
    if not found:
        raise DataError(f'{path}: names no image')
    if repeated := [name for name, count in collections.Counter(found).items() if count > 1]:
        raise DataError(f'{path}: names {repeated[0]} more than once')
    return found


def lines(path: Path) -> list[str]:
    """Returns the lines of a text file.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: cannot be read as text ({error})') from error


def files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Returns {name without suffix: file} of a folder, the first by `suffixes` of those of one name."""
    found = {}
    rank = {suffix: n for n, suffix in enumerate(suffixes)}
    for file in os.listdir(folder) if folder.is_dir() else ():
        name, suffix = os.path.splitext(file)
        rival = found.get(name)
        if (place := rank.get(suffix.lower())) is not None and (rival is None or (place, file) < rival):
            found[name] = (place, file)
    return {name: folder / file for name, (_, file) in found.items()}
