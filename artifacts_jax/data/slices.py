"""Slices of a split in tfds syntax, the held-out subset of a split, and the overlap of two splits."""

import re
import sys
from collections.abc import Collection, Hashable

import numpy as np
from jaxtyping import Bool, Float, Int

from artifacts_jax.data.errors import DataError

SLICE = re.compile(r'([\w-]+|[\w./-]*\.[\w./-]*)(?:\[(?:(-?[\d_]+(?:\.\d*)?)(%?))?:(?:(-?[\d_]+(?:\.\d*)?)(%?))?\])?')


def split_name(split: str) -> str:
    """Returns the name of the split in a slice: 'train' for 'train[:90%]'.

    Raises:
      DataError: the text is neither the name of a split nor a slice.
    """
    return _match(split)[1]


def compute_bounds(
    split: str, examples: int | Float[np.ndarray, ' N'], *, data_name: object = 'the data'
) -> tuple[int, int]:
    """Returns (index of the first example, index after the last example) of a slice, rounded as in tfds.

    Args:
      split: such as 'train', 'train[:90%]', 'train[10:20]' or 'train[-10%:]'; both bounds have the same unit. A name
        without a slice means the whole split.
      examples: the number of examples of the whole split; or a number in [0, 1) for each example, in ascending order,
        by which a slice in per cent selects examples.
      data_name: name of the data set, for messages.

    Raises:
      DataError: the syntax is wrong, or the slice is empty or exceeds the split.
    """
    _, start, start_unit, stop, stop_unit = _match(split).groups()
    count = examples if isinstance(examples, int) else len(examples)

    def bound(text, default):
        if text is None:
            return default
        if not (start_unit or stop_unit):
            return int(text) + count * (int(text) < 0)
        if isinstance(examples, int):
            index = round(float(text) * count / 100)
            return index + count * (index < 0)
        fraction = float(text) / 100 + (text.startswith('-'))
        return int(np.searchsorted(examples, fraction)) if 0 <= fraction <= 1 else -1

    first, end = bound(start, 0), bound(stop, count)
    if not 0 <= first < end <= count:
        raise DataError(f'{split!r} of {data_name} means the examples {first:,} to {end:,}, but there are {count:,}')
    return first, end


def is_held_out(index: Int[np.ndarray, ' N'], fraction: float) -> Bool[np.ndarray, ' N']:
    """Returns which examples are held out: a pseudo-random subset that depends only on the indices.

    Args:
      index: the indices of the examples in their split.
      fraction: of the examples to hold out, in [0, 1].
    """
    scrambled = index.astype(np.uint64) * np.uint64(2654435761) % np.uint64(2**32)
    return scrambled < fraction * 2**32


def warn_of_overlap(train_ids: Collection[Hashable], test_ids: Collection[Hashable], *, train: str, test: str) -> None:
    """Warns if training and test images overlap, which makes the results too optimistic.

    Args:
      train_ids: identifiers of the training images, such as their names.
      test_ids: identifiers of the test images.
      train: name of the training split.
      test: name of the test split.
    """
    if common := len(set(test_ids).intersection(train_ids)):
        print(
            f'warning: {common:,} of the {len(test_ids):,} test images of {test} are also training images of {train}',
            file=sys.stderr,
            flush=True,
        )


def _match(split):
    match = SLICE.fullmatch(split)
    if not match:
        raise DataError(f'{split!r} is not a split; expected NAME or NAME[FROM:TO], such as train[:90%]')
    if not match[3] and not match[5] and any('.' in bound for bound in match.group(2, 4) if bound):
        raise DataError(f'{split!r} has a fractional index; did you mean per cent, such as train[:90%]?')
    return match
