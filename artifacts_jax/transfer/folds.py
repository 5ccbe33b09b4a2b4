"""Predefined folds of a training set, as a file of indices: one line for each fold, as in STL-10's fold_indices.txt."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

from artifacts_jax.data.splits import DataError


def read(path: str | Path, *, count: int, size: int, examples: int) -> Int[np.ndarray, '{count} {size}']:
    """Reads the indices of the examples of each fold.

    Args:
      path: a text file; each line has the indices of a fold's examples, from 0, separated by spaces.
      count: how many folds it must hold.
      size: how many examples each fold must hold, all different; folds may overlap.
      examples: how many examples there are to choose from.

    Raises:
      DataError: the file cannot be read or holds something else; the message names line, find and expectation.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding='ascii').rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: cannot be read as a text file of folds ({error})') from error
    if len(lines) != count:
        raise DataError(f'{path}: has {len(lines)} lines, expected {count}, one for each fold')
    places = (f'{path}, line {n}' for n in range(1, count + 1))
    return np.array([_parse(line.split(), place, size, examples) for line, place in zip(lines, places)])


def _parse(words, place, size, examples):
    """Returns the indices that a line's words are."""
    if len(words) != size:
        raise DataError(f'{place}: has {len(words)} entries, expected {size} indices')
    seen = set()
    for word in words:
        if not word.isdecimal() or int(word) >= examples:
            raise DataError(f'{place}: holds {word!r}, expected integers from 0 to {examples - 1}')
        if int(word) in seen:
            raise DataError(f'{place}: holds {int(word)} twice, expected {size} different indices')
        seen.add(int(word))
    return [int(word) for word in words]
