"""Batches of images of one size with one label each, in memory or streamed, in the order of ordered.py."""

import dataclasses
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, UInt8

from artifacts_jax.data import decoding, ordered, reading, sources
from artifacts_jax.data.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory(ordered.ArrayDataset):
    """A split decoded once, or arrays: images, and labels, -1 where there is none.

    In batches 'image' is uint8 [b, size, size, 3], and 'label' int32 [b].
    """

    images: UInt8[np.ndarray, 'all size size 3']
    labels: Int32[np.ndarray, ' all']
    label_names: tuple[str, ...]
    rows: Int[np.ndarray, ' N'] | Any = None  # which of them are the split's, None: all

    def __post_init__(self):
        if self.rows is None:
            object.__setattr__(self, 'rows', np.arange(len(self.images)))

    @property
    def num_examples(self) -> int:
        """The examples of the split, over all hosts."""
        return len(self.rows)

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 if there are no labels."""
        return len(self.label_names) if (self.labels[self.rows] >= 0).all() else 0

    @property
    def present(self) -> set[int]:
        """The classes that there is an image of."""
        return set(np.unique(self.labels[self.rows]).tolist())

    def examples(self, rows: Int[np.ndarray, ' b']) -> dict[str, np.ndarray]:
        """Returns 'image' and 'label' of the examples at these positions."""
        chosen = self.rows[rows]
        return {'image': self.images[chosen], 'label': self.labels[chosen]}

    def subset(self, indices: Int[np.ndarray, ' part']) -> 'InMemory':
        """Returns the examples at these positions, as a data set of its own.

        Raises:
          DataError: examples were left out, so that the others' positions are not what they were.
        """
        if len(self.skipped):
            raise DataError(
                f'{len(indices):,} examples were asked for by their positions, but {len(self.skipped):,} of the split'
                f' were left out (see the warnings): mend these'
            )
        chosen = self.rows[indices]
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen], rows=None)


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed(reading.StreamedDataset):
    """A split of which each example is read and decoded as it is needed. Its batches are those of InMemory."""

    label_names: tuple[str, ...]

    @classmethod
    def create(cls, source: sources.Source, size: int, label_names: tuple[str, ...], **options) -> 'Streamed':
        """Returns the split.

        Args:
          source: its examples.
          size: of the images, pixels.
          label_names: of the classes, () where there are no labels.
          **options: other fields of reading.StreamedDataset.
        """
        return cls(
            records=source,
            load=partial(_load, size=size, classes=len(source.label_names)),
            shapes={'image': ((size, size, 3), np.uint8), 'label': ((), np.int32)},
            label_names=label_names,
            **options,
        )

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 if there are no labels."""
        return len(self.label_names)

    @property
    def present(self) -> set[int]:
        """The classes that there is an image of; all of them where that is not known before reading."""
        part = self.records
        labels = getattr(part.whole, 'labels', None) if isinstance(part, sources.Slice) else None
        return set(range(self.num_classes) if labels is None else np.unique(labels[part.rows]).tolist())

    def subset(self, indices: Int[np.ndarray, ' part']) -> InMemory:
        """Raises DataError: parts are taken of data sets in memory."""
        raise DataError(
            f'{len(indices):,} chosen examples of {self.skipped.split} were asked for, which is streamed: set'
            f' data.loading=memory, or data.memory_limit_gb above its size'
        )

    def decode(self) -> InMemory:
        """Returns the split decoded once, without the examples that cannot be used; says how many these are.

        Raises:
          DataError: none is left.
        """
        columns = self.read_all()
        return InMemory(columns['image'], columns['label'], self.label_names, **self.get_options())


def _load(example, size, classes):
    """Returns 'image' uint8 [size, size, 3] and 'label' of an example of a source."""
    image = decoding.decode(example.image, size)
    if not -1 <= example.label < (classes or np.inf):
        raise decoding.UnusableError(f'label {example.label} of {classes} classes')
    return {'image': image, 'label': example.label}
