"""Data sets of square images of one size, each with one label, in memory or streamed; see ordered.py for the order."""

import dataclasses
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, UInt8

from artifacts_jax.data import decoding, ordered, reading, sources
from artifacts_jax.data.errors import DataError


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory(ordered.ArrayDataset):
    """A split in memory: images, and labels, -1 where unknown.

    A batch has 'image' uint8 [b, size, size, 3] and 'label' int32 [b].
    """

    images: UInt8[np.ndarray, 'all size size 3']
    labels: Int32[np.ndarray, ' all']
    label_names: tuple[str, ...]
    rows: Int[np.ndarray, ' N'] | Any = None  # indices of the images that belong to the split, None: all

    def __post_init__(self):
        if self.rows is None:
            object.__setattr__(self, 'rows', np.arange(len(self.images)))

    @property
    def num_examples(self) -> int:
        """The number of examples of the split, over all hosts."""
        return len(self.rows)

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 if an example has no label."""
        return len(self.label_names) if (self.labels[self.rows] >= 0).all() else 0

    @property
    def present(self) -> set[int]:
        """The classes that have an image, as labels."""
        return set(np.unique(self.labels[self.rows]).tolist())

    def examples(self, rows: Int[np.ndarray, ' b']) -> dict[str, np.ndarray]:
        """Returns 'image' and 'label' of the examples with these indices."""
        indices = self.rows[rows]
        return {'image': self.images[indices], 'label': self.labels[indices]}

    def subset(self, indices: Int[np.ndarray, ' subset']) -> 'InMemory':
        """Returns the examples with these indices as a new data set.

        Raises:
          DataError: examples were skipped, which changes the indices of the other examples.
        """
        if len(self.skipped):
            raise DataError(
                f'cannot select {len(indices):,} examples by index, because {len(self.skipped):,} examples of the split'
                f' were skipped (see the warnings): repair or replace their files'
            )
        rows = self.rows[indices]
        return dataclasses.replace(self, images=self.images[rows], labels=self.labels[rows], rows=None)


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed(reading.StreamedDataset):
    """A streamed split: examples are read and decoded while training. Its batches are those of InMemory."""

    label_names: tuple[str, ...]

    @classmethod
    def create(cls, source: sources.Source, size: int, label_names: tuple[str, ...], **options) -> 'Streamed':
        """Returns the streamed split of a source.

        Args:
          source: the examples.
          size: side of the square images, pixels.
          label_names: the class names, () if an example has no label.
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
        """The number of classes, 0 if an example has no label."""
        return len(self.label_names)

    @property
    def present(self) -> set[int]:
        """The classes that have an image, as labels; all classes if the source does not list its labels."""
        source = self.records
        labels = getattr(source.whole, 'labels', None) if isinstance(source, sources.Slice) else None
        return set(range(self.num_classes) if labels is None else np.unique(labels[source.rows]).tolist())

    def subset(self, indices: Int[np.ndarray, ' subset']) -> InMemory:
        """Raises DataError: only a data set in memory has subsets."""
        raise DataError(
            f'cannot select {len(indices):,} examples of {self.skipped.split} by index, because it is streamed: set'
            f' data.loading=memory, or data.memory_limit_gb above its size'
        )

    def decode(self) -> InMemory:
        """Returns the split in memory, without skipped examples, whose number is reported.

        Raises:
          DataError: all examples are skipped.
        """
        columns = self.read_all()
        return InMemory(columns['image'], columns['label'], self.label_names, **self.get_options())


def _load(example, size, classes):
    """Returns 'image' uint8 [size, size, 3] and 'label' of an example, decoded."""
    image = decoding.decode(example.image, size)
    if not -1 <= example.label < (classes or np.inf):
        raise decoding.UnusableError(f'label {example.label} is outside of the {classes} classes')
    return {'image': image, 'label': example.label}
