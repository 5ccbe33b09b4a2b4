"""A split as a random-access sequence of examples, whatever holds them, and the parts that it is cut into.

A data set is a mapping from a split's name to its Source: folders.py, listings.py, tfds_data.py, arrays.py and
photographs.py make one each, which splits.open_data finds.
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

ALIASES = {'val': 'validation', 'validation': 'val'}  # which tfds and folders of ImageNet call differently
HELD_OUT = 0.1  # part of 'train' that stands for 'test' where there is no other split


class Example(NamedTuple):
    """An example as it is stored."""

    image: bytes | Path | UInt8[np.ndarray, 'H W 3']  # a file's content, or where it is, or pixels
    label: int  # -1 where unknown
    name: str  # for messages


@runtime_checkable
class Source(Protocol):
    """One split: `len(source)` examples, of which `source[i]` is read when it is asked for."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the classes; () if there are no labels."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """Some examples of a source, which is a source again."""

    whole: Source
    rows: Int[np.ndarray, ' N']

    @property
    def label_names(self) -> tuple[str, ...]:
        """Those of the whole."""
        return self.whole.label_names

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.whole[self.rows[index]]


def sort_keys(source: Source) -> Float[np.ndarray, ' N']:
    """Returns by which number in [0, 1) each example is cut from its split; they ascend.

    They are of a source's own choice, as `sort_keys`, or else the examples' positions, so that a tenth is a tenth.
    """
    return source.sort_keys if hasattr(source, 'sort_keys') else np.arange(len(source)) / len(source)


def select_rows(data: Mapping[str, Source], split: str, config: ConfigDict) -> tuple[str, Int[np.ndarray, ' N']]:
    """Returns (name of the split that it is cut from, which of its examples) a split or a slice of one is.

    Where 'train' is the only split and 'test' is asked for, by `split` or by the configuration, a fixed tenth of its
    examples is 'test', and the others are 'train'. 'val' and 'validation' are one name where only one of them is there.

    Args:
      data: the data set.
      split: a split's name, or a slice of it as tfds spells it.
      config: the run's `config.data`.

    Raises:
      DataError: there is no such split, or no example in it.
    """
    name = slices.split_name(split)
    if name not in data and ALIASES.get(name) in data:
        name = ALIASES[name]
    asked = {slices.split_name(each) for each in (split, config.train, config.probe_train, config.test)}
    cut = list(data) == ['train'] and 'test' in asked and name in ('train', 'test')
    stored = 'train' if cut else name
    if stored not in data:
        raise DataError(f'{config.name} has no split {split!r}; there are: {", ".join(data) or "none"}')
    whole = data[stored]
    if not len(whole):
        raise DataError(f'split {stored!r} of {config.name} is empty')
    where, chosen = sort_keys(whole), np.arange(len(whole))
    if cut:
        if len(whole) == 1:
            raise DataError(
                f'{config.name} has one image, which cannot be in train and test: expected more, or a split test'
            )
        chosen = chosen[_held_out(whole, where) == (name == 'test')]
        where = (where - (1 - HELD_OUT)) / HELD_OUT if name == 'test' else where / (1 - HELD_OUT)
    examples = where[chosen] if hasattr(whole, 'sort_keys') else len(chosen)
    first, end = slices.compute_bounds(split, examples, place=config.name)
    return stored, chosen[first:end]


def _held_out(whole, where):
    """Returns which examples stand for 'test', bool [N]: the last tenth by their own places, or as good as random."""
    out = where >= 1 - HELD_OUT if hasattr(whole, 'sort_keys') else slices.is_held_out(np.arange(len(whole)), HELD_OUT)
    if out.all() or not out.any():  # of very few
        out = np.arange(len(whole)) == len(whole) - 1
    return out
