"""Streamed data sets: threads read the examples of the next batches in advance.

| class | examples |
|---|---|
| `StreamedDataset` | of one shape: `load` turns a record into arrays, `collate` stacks them into a batch |
| `PaddedDataset` | images of many sizes: those of a global batch are padded to one size |
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import PyTree, Shaped, UInt8
from ml_collections import ConfigDict

from artifacts_jax.data import decoding
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.ordered import ArrayDataset, Dataset, pad_batch
from artifacts_jax.data.skipped import SkippedExamples
from artifacts_jax.devices import host

CHUNK = 8  # examples per call of a thread, since Grain's overhead is as long as the time of a small image
ENDLESS = 2**62  # more examples than any training uses


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RecordDataset(Dataset):
    """The base class of streamed data sets; each host reads only its slice of every batch."""

    records: Any  # a sequence of records with an attribute `name`; indexing it reads no pixels
    workers: int = 0  # threads, 0: one for each CPU

    @property
    def num_examples(self) -> int:
        """The number of examples of the split, over all hosts."""
        return len(self.records)

    @property
    def num_used(self) -> int:
        """The number of examples without those that were skipped so far, over all hosts."""
        return len(self.records) - self.skipped.count_all()

    def load_or_skip(self, load: Callable[[Any], Any], record: Any) -> Any:
        """Returns load(record), or None if the record cannot be used; then it is added to the skipped examples."""
        try:
            return load(record)
        except decoding.UnusableError as error:
            self.skipped.add(record.name, str(error))
            return None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StreamedDataset(RecordDataset):
    """Streamed examples of one shape.

    A skipped training example is replaced by a second copy of another example of its batch, not by the next example.
    Every batch therefore depends only on its step, and a resumed run need not read the earlier batches.
    """

    load: Callable[[Any], dict]  # turns a record into {name: array}; raises UnusableError
    shapes: dict[str, tuple]  # {name: (shape, dtype)} of an example

    def example(self, row: int) -> dict | None:
        """Returns {name: array} of an example, or None if it is skipped."""
        return self.load_or_skip(self.load, self.records[row])

    def collate(self, examples: Sequence[dict], count: int) -> dict[str, np.ndarray]:
        """Returns {name: array [count, ...]} of the examples, padded with zeros."""
        columns = {name: np.zeros((count, *shape), dtype) for name, (shape, dtype) in self.shapes.items()}
        for n, example in enumerate(examples):
            for name, value in example.items():
                columns[name][n] = value
        return columns

    def decode(self) -> ArrayDataset:
        """Returns the data set in memory, without skipped examples, whose number is reported.

        Raises:
          DataError: all examples are skipped.
        """
        return ArrayDataset(columns=self.read_all(), **self.get_options())

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields training batches; see ArrayDataset.train_batches."""
        index = self._host_slice(batch_size)

        def row(n):
            step, offset = divmod(n, len(index))
            return self._row(step * batch_size + int(index[offset]))

        stream = self._stream(row, start_step * len(index), ENDLESS, ahead=len(index))
        while True:
            examples = list(itertools.islice(stream, len(index)))
            usable = [example for example in examples if example]
            if not usable:
                raise DataError(f'{self.skipped.split}: no example of a batch can be used (see the warnings)')
            batch = [example or usable[n % len(usable)] for n, example in enumerate(examples)]
            yield {**self.collate(batch, len(batch)), 'index': index}

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields evaluation batches; see ArrayDataset.eval_batches."""
        batches = list(self._eval_rows(batch_size, limit))
        all_rows = np.concatenate([rows for rows, _ in batches])
        stream = self._stream(lambda n: int(all_rows[n]), 0, len(all_rows), ahead=batch_size)
        for rows, size in batches:
            examples = list(itertools.islice(stream, len(rows)))
            usable = [n for n, example in enumerate(examples) if example]
            batch = self.collate([examples[n] for n in usable], len(usable))
            yield pad_batch({**batch, 'index': rows[usable]}, size)

    def read_all(self) -> dict[str, np.ndarray]:
        """Returns {name: array [N, ...]} of all examples without skipped ones, whose number is reported.

        Raises:
          DataError: all examples are skipped.
        """
        columns, count = self.collate((), self.num_examples), 0
        for example in filter(None, self._stream(lambda n: n, 0, self.num_examples, ahead=256)):
            for name, value in example.items():
                columns[name][count] = value
            count += 1
        self.skipped.report()
        if not count:
            raise DataError(f'{self.skipped.split}: no example can be used (see the warnings)')
        return {name: column[:count] for name, column in columns.items()}

    def _stream(self, row, start, end, *, ahead):
        """Yields self.example(row(n)) for n from start to end - 1; threads read `ahead` examples in advance."""

        def read_chunk(first):
            return [self.example(row(n)) for n in range(first, min(first + CHUNK, end))]

        for chunk in prefetch(read_chunk, start, end, CHUNK, workers=self.workers, count=-(-ahead // CHUNK)):
            yield from chunk


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PaddedDataset(RecordDataset):
    """Streamed images of many sizes; those of a global batch are padded to one size that fits all of them."""

    def views(self, step: int, batch_size: int) -> list:
        """Returns the random view (such as image, scale, flip) of each training example of a global batch."""
        raise NotImplementedError

    def collate(self, views: Sequence, global_views: Sequence) -> dict[str, np.ndarray]:
        """Returns {name: array [b, ...]} of this host's views.

        Args:
          views: those of this host.
          global_views: those of the global batch, which set the padded size.
        """
        raise NotImplementedError

    def collate_test(
        self, rows: Sequence[int], images: Sequence[UInt8[np.ndarray, '_ _ 3'] | None], global_rows: Sequence[int]
    ) -> dict[str, np.ndarray]:
        """Returns {name: array [b, ...]} of test images.

        Args:
          rows: indices of this host's examples in the split; those beyond its end are padding.
          images: the images at `rows`; None for padding and skipped images.
          global_rows: indices of the examples of the global batch, without padding.
        """
        raise NotImplementedError

    def image(self, record: Any) -> UInt8[np.ndarray, 'H W 3'] | None:
        """Returns the image of a record, or None if it is skipped."""
        return self.load_or_skip(lambda record: record.read_image(), record)

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Returns this host's slice of the global training batch at a step."""
        index, views = self._host_slice(batch_size), self.views(step, batch_size)
        return {**self.collate([views[n] for n in index], views), 'index': index}

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields training batches; see ArrayDataset.train_batches."""
        return prefetch(lambda step: self.batch(step, batch_size), start_step, ENDLESS, workers=self.workers)

    def test_batch(self, number: int, batch_size: int, limit: int = 0) -> dict[str, np.ndarray]:
        """Returns this host's slice of test batch `number`; the other arguments are those of eval_batches."""
        count = min(limit or len(self.records), len(self.records))
        global_rows = range(number * batch_size, min((number + 1) * batch_size, count))
        index = number * batch_size + self._host_slice(batch_size)
        images = [self.image(self.records[int(n)]) if n < count else None for n in index]
        valid = np.array([image is not None for image in images])
        return {**self.collate_test(index.tolist(), images, global_rows), 'index': index, 'valid': valid}

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields evaluation batches; see ArrayDataset.eval_batches. 'valid' is False for skipped images, too."""
        count = -(-min(limit or len(self.records), len(self.records)) // batch_size)
        return prefetch(lambda n: self.test_batch(n, batch_size, limit), 0, count, workers=self.workers)


def make_options(config: ConfigDict, records: Sequence, split: str, *, live: bool = True) -> dict:
    """Returns {field: value} of RecordDataset for a split of a run.

    Args:
      config: the run's configuration.
      records: the records of the split.
      split: name of the split for messages, such as 'trainval of VOCdevkit/VOC2007'.
      live: whether skipped examples are reported during reading.
    """
    return {
        'records': records,
        'workers': config.data.workers,
        'seed': config.seed,
        'process_index': jax.process_index(),
        'process_count': jax.process_count(),
        'skipped': SkippedExamples(split, len(records), live=live),
    }


def should_load_in_memory(config: ConfigDict, count: int, size: int) -> bool:
    """Returns whether to decode a split once and keep it in memory.

    Args:
      config: the run's `config.data`.
      count: the number of images.
      size: side of the square images, pixels.
    """
    fits = count * size**2 * 3 <= config.memory_limit_gb * 1e9
    return config.loading == 'memory' or (config.loading == 'auto' and fits)


def pad_array(
    image: Shaped[np.ndarray, 'H W ...'], size: tuple[int, int], value: int = 0
) -> Shaped[np.ndarray, '_ _ ...']:
    """Returns an array padded with `value` at the bottom and at the right to this height and width."""
    padded = np.full((*size, *image.shape[2:]), value, image.dtype)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def prefetch(
    make: Callable[[int], PyTree], start: int, end: int, step: int = 1, *, workers: int = 0, count: int = 0
) -> Iterator[PyTree]:
    """Yields make(start), make(start + step), ...; threads make the next values in advance.

    Args:
      make: makes a batch.
      start: the first argument of `make`.
      end: the arguments are less than this.
      step: difference between two arguments.
      workers: threads, 0: one for each CPU.
      count: number of values made in advance; at least twice the number of threads.
    """
    workers = workers or host.cpus()
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(count, 2 * workers))
    iterator = iter(grain.MapDataset.range(start, end, step).map(make).to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()
