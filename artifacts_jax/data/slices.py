"""Parts of a split: slices, spelt as tfds spells them, a fixed part that is held out, and what two parts share."""

import re
import sys
from collections.abc import Collection, Hashable

import numpy as np
from jaxtyping import Bool, Float, Int

from artifacts_jax.data.errors import DataError

SLICE = re.compile(r'([\w-]+|[\w./-]*\.[\w./-]*)(?:\[(?:(-?[\d_]+(?:\.\d*)?)(%?))?:(?:(-?[\d_]+(?:\.\d*)?)(%?))?\])?')


def split_name(split: str) -> str:
    """Returns the split that a slice such as 'train[:90%]' is cut from.

    Raises:
      DataError: it is neither a split's name nor a slice of one.
    """
    return _match(split)[1]


def compute_bounds(
    split: str, examples: int | Float[np.ndarray, ' N'], *, place: object = 'the data'
) -> tuple[int, int]:
    """Returns the (first example, end) of a slice, rounded as tfds does; of a name alone, those of the whole split.

    Args:
      split: such as 'train', 'train[:90%]', 'train[10:20]' or 'train[-10%:]'; two bounds have one unit.
      examples: how many the whole split has; or a number in [0, 1) for each, ascending, by which per cent are cut.
      place: where they are, for messages.

    Raises:
      DataError: it is spelt otherwise, no example is in it, or it goes beyond the split.
    """
    _, start, start_unit, stop, stop_unit = _match(split).groups()
    count = examples if isinstance(examples, int) else len(examples)

    def bound(text, default):
        if text is None:
            return default
        if not (start_unit or stop_unit):
            return int(text) + count * (int(text) < 0)
        if isinstance(examples, int):
            found = round(float(text) * count / 100)
            return found + count * (found < 0)
        part = float(text) / 100 + (text.startswith('-'))
        return int(np.searchsorted(examples, part)) if 0 <= part <= 1 else -1

    first, end = bound(start, 0), bound(stop, count)
    if not 0 <= first < end <= count:
        raise DataError(f'{split!r} of {place} asks for examples {first:,} up to {end:,}; there are {count:,}')
    return first, end


def is_held_out(index: Int[np.ndarray, ' N'], part: float) -> Bool[np.ndarray, ' N']:
    """Returns which examples are held out: as good as random, and a function of the example's index alone.

    Args:
      index: the examples' positions in their split.
      part: how many are held out, in [0, 1].
    """
    scrambled = index.astype(np.uint64) * np.uint64(2654435761) % np.uint64(2**32)
    return scrambled < part * 2**32


def warn_of_overlap(learned: Collection[Hashable], tested: Collection[Hashable], *, train: str, test: str) -> None:
    """Warns of images that are learned from and tested on, whose results are worth little.

    Args:
      learned: what tells the images of `train` apart, such as their names.
      tested: the same of `test`.
      train: the split that is learned from.
      test: the split that is tested on.
    """
    if common := len(set(tested).intersection(learned)):
        print(
            f'warning: {common:,} of the {len(tested):,} images of {test} are learned from, too: they are in {train}',
            file=sys.stderr,
            flush=True,
        )


def _match(split):
    match = SLICE.fullmatch(split)
    if not match:
        raise DataError(f'cannot read the split {split!r}; expected NAME or NAME[FROM:TO], such as train[:90%]')
    if not match[3] and not match[5] and any('.' in bound for bound in match.group(2, 4) if bound):
        raise DataError(f'{split!r} asks for a fraction of an example; did you mean per cent, such as train[:90%]?')
    return match
