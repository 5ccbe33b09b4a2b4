"""A split as a random-access sequence of examples, independent of the storage, and slices of it.

A data set maps the name of a split to its Source. folders.py, listings.py, tfds_data.py, arrays.py and photographs.py
each open one kind of data set; splits.open_data selects the kind.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8
from ml_collections import ConfigDict

from artifacts_jax.data import slices
from artifacts_jax.data.errors import DataError

ALIASES = {'val': 'validation', 'validation': 'val'}  # tfds and folders of ImageNet use different names
HELD_OUT = 0.1  # fraction of 'train' that becomes 'test' if 'train' is the only split


class Example(NamedTuple):
    """An example as it is stored, not decoded."""

    image: bytes | Path | UInt8[np.ndarray, 'H W 3']  # the content of a file, its path, or pixels
    label: int  # -1 where unknown
    name: str  # for messages


@runtime_checkable
class Source(Protocol):
    """One split: `len(source)` examples; `source[i]` reads example i."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names; () without labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """A subset of the examples of a source; it is itself a Source."""

    whole: Source
    rows: Int[np.ndarray, ' N']

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names of the whole split."""
        return self.whole.label_names

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.whole[self.rows[index]]


def sort_keys(source: Source) -> Float[np.ndarray, ' N']:
    """Returns the sort key of each example, in [0, 1) and ascending; slices in per cent are ranges of sort keys.

    A source with an attribute `sort_keys` defines its own keys. For other sources the key is the index of the example
    divided by the number of examples, so that a slice of 10 % holds exactly 10 % of the examples.
    """
    return source.sort_keys if hasattr(source, 'sort_keys') else np.arange(len(source)) / len(source)


def select_rows(data: Mapping[str, Source], split: str, config: ConfigDict) -> tuple[str, Int[np.ndarray, ' N']]:
    """Returns (name of the stored split, indices of its examples) for a split or a slice of one.

    If 'train' is the only split, and `split` or the configuration names 'test', then a fixed tenth of the examples is
    'test', and the others are 'train'. 'val' and 'validation' are aliases if only one of the two exists.

    Args:
      data: the data set, {split: source}.
      split: the name of a split, or a slice of it in tfds syntax.
      config: the run's `config.data`.

    Raises:
      DataError: the split does not exist, or has no examples.
    """
    name = slices.split_name(split)
    if name not in data and ALIASES.get(name) in data:
        name = ALIASES[name]
    requested = {slices.split_name(text) for text in (split, config.train, config.probe_train, config.test)}
    is_divided = list(data) == ['train'] and 'test' in requested and name in ('train', 'test')
    stored = 'train' if is_divided else name
    if stored not in data:
        raise DataError(f'{config.name} has no split {split!r}; it has: {", ".join(data) or "none"}')
    whole = data[stored]
    if not len(whole):
        raise DataError(f'split {stored!r} of {config.name} is empty')
    keys, indices = sort_keys(whole), np.arange(len(whole))
    if is_divided:
        if len(whole) == 1:
            raise DataError(
                f'{config.name} has only one image, but train and test need one each; add images, or a split test'
            )
        indices = indices[_is_held_out(whole, keys) == (name == 'test')]
        keys = (keys - (1 - HELD_OUT)) / HELD_OUT if name == 'test' else keys / (1 - HELD_OUT)  # in [0, 1) again
    examples = keys[indices] if hasattr(whole, 'sort_keys') else len(indices)
    first, end = slices.compute_bounds(split, examples, data_name=config.name)
    return stored, indices[first:end]


def _is_held_out(whole, keys):
    """Returns which examples of 'train' become 'test', bool [N]: the last tenth by sort key, or a random tenth."""
    out = keys >= 1 - HELD_OUT if hasattr(whole, 'sort_keys') else slices.is_held_out(np.arange(len(whole)), HELD_OUT)
    if out.all() or not out.any():  # if there are very few examples
        out = np.arange(len(whole)) == len(whole) - 1
    return out
