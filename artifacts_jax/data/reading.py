"""Examples that are read when they are needed, ahead of time, by threads.

| class | examples |
|---|---|
| `StreamedDataset` | of one shape: `load` makes arrays of a record, and `collate` a batch of these |
| `PaddedDataset` | images of many sizes, those of a global batch padded to one |
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

CHUNK = 8  # examples that a thread reads at a time: Grain takes as long as a small image does
LAST = 2**62  # more examples than will ever be trained on


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class RecordDataset(Dataset):
    """Examples that are read when they are needed; each host reads its own part of every batch."""

    records: Any  # a sequence, each with a name; indexing it reads no pixels
    workers: int = 0  # threads, 0: as many as there are CPUs

    @property
    def num_examples(self) -> int:
        """The examples of the split, over all hosts."""
        return len(self.records)

    @property
    def num_used(self) -> int:
        """As Dataset.num_used."""
        return len(self.records) - self.skipped.count_all()

    def load_or_skip(self, load: Callable[[Any], Any], record: Any) -> Any:
        """Returns what load(record) does, None if the record cannot be used, which is reported."""
        try:
            return load(record)
        except decoding.UnusableError as error:
            self.skipped.add(record.name, str(error))
            return None


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StreamedDataset(RecordDataset):
    """Examples of one shape.

    In the place of a training example that is left out another of its batch counts twice, so that a restart need not
    read what came before.
    """

    load: Callable[[Any], dict]  # makes {name: array} of a record; raises UnusableError
    shapes: dict[str, tuple]  # {name: (shape, dtype)} of an example

    def example(self, row: int) -> dict | None:
        """Returns {name: array} of an example, None of one that is left out."""
        return self.load_or_skip(self.load, self.records[row])

    def collate(self, examples: Sequence[dict], count: int) -> dict[str, np.ndarray]:
        """Returns {name: array [count, ...]} of examples, and zeros after them."""
        columns = {name: np.zeros((count, *shape), dtype) for name, (shape, dtype) in self.shapes.items()}
        for n, example in enumerate(examples):
            for name, value in example.items():
                columns[name][n] = value
        return columns

    def decode(self) -> ArrayDataset:
        """Returns the examples read once, without those that cannot be used; reports how many these are.

        Raises:
          DataError: none is left.
        """
        return ArrayDataset(columns=self.read_all(), **self.get_options())

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As ArrayDataset.train_batches."""
        index = self._share(batch_size)

        def row(n):
            step, place = divmod(n, len(index))
            return self._row(step * batch_size + int(index[place]))

        stream = self._decoded(row, start_step * len(index), LAST, ahead=len(index))
        while True:
            places = list(itertools.islice(stream, len(index)))
            whole = [example for example in places if example]
            if not whole:
                raise DataError(f'no example of a whole batch of {self.skipped.split} can be used (see the warnings)')
            chosen = [example or whole[n % len(whole)] for n, example in enumerate(places)]
            yield {**self.collate(chosen, len(chosen)), 'index': index}

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As ArrayDataset.eval_batches."""
        batches = list(self._eval_rows(batch_size, limit))
        mine = np.concatenate([rows for rows, _ in batches])
        stream = self._decoded(lambda n: int(mine[n]), 0, len(mine), ahead=batch_size)
        for rows, size in batches:
            examples = list(itertools.islice(stream, len(rows)))
            whole = [n for n, example in enumerate(examples) if example]
            yield pad_batch({**self.collate([examples[n] for n in whole], len(whole)), 'index': rows[whole]}, size)

    def read_all(self) -> dict[str, np.ndarray]:
        """Returns {name: array [N, ...]} of the examples that can be used; reports how many cannot.

        Raises:
          DataError: none is left.
        """
        columns, count = self.collate((), self.num_examples), 0
        for example in filter(None, self._decoded(lambda n: n, 0, self.num_examples, ahead=256)):
            for name, value in example.items():
                columns[name][count] = value
            count += 1
        self.skipped.report()
        if not count:
            raise DataError(f'no example of {self.skipped.split} can be used (see the warnings)')
        return {name: column[:count] for name, column in columns.items()}

    def _decoded(self, row, start, end, *, ahead):
        """Yields what `example` returns for row(start), row(start + 1), ..., row(end - 1), read ahead by threads."""

        def examples(first):
            return [self.example(row(n)) for n in range(first, min(first + CHUNK, end))]

        for some in prefetch(examples, start, end, CHUNK, workers=self.workers, count=-(-ahead // CHUNK)):
            yield from some


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PaddedDataset(RecordDataset):
    """Images of many sizes: those of a global batch are padded to one, which all of them decide."""

    def views(self, step: int, batch_size: int) -> list:
        """Returns how each training image of a global batch is seen."""
        raise NotImplementedError

    def collate(self, views: Sequence, everyone: Sequence) -> dict[str, np.ndarray]:
        """Returns {name: array [b, ...]} of this host's views, given those of the global batch."""
        raise NotImplementedError

    def collate_test(
        self, rows: Sequence[int], images: Sequence[UInt8[np.ndarray, '_ _ 3'] | None], everyone: Sequence[int]
    ) -> dict[str, np.ndarray]:
        """Returns {name: array [b, ...]} of test images.

        Args:
          rows: this host's positions in the split, also beyond its end.
          images: at these, None of one that cannot be used.
          everyone: the positions of the global batch.
        """
        raise NotImplementedError

    def image(self, record: Any) -> UInt8[np.ndarray, 'H W 3'] | None:
        """Returns the image of a record, None of one that is left out."""
        return self.load_or_skip(lambda record: record.read_image(), record)

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Returns this host's part of the global batch at a step."""
        index, views = self._share(batch_size), self.views(step, batch_size)
        return {**self.collate([views[n] for n in index], views), 'index': index}

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As ArrayDataset.train_batches."""
        return prefetch(lambda step: self.batch(step, batch_size), start_step, LAST, workers=self.workers)

    def test_batch(self, number: int, batch_size: int, limit: int = 0) -> dict[str, np.ndarray]:
        """Returns this host's part of a test batch; arguments as of eval_batches."""
        count = min(limit or len(self.records), len(self.records))
        everyone = range(number * batch_size, min((number + 1) * batch_size, count))
        index = number * batch_size + self._share(batch_size)
        images = [self.image(self.records[int(n)]) if n < count else None for n in index]
        valid = np.array([image is not None for image in images])
        return {**self.collate_test(index.tolist(), images, everyone), 'index': index, 'valid': valid}

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As ArrayDataset.eval_batches; 'valid' is also False of images that cannot be decoded."""
        count = -(-min(limit or len(self.records), len(self.records)) // batch_size)
        return prefetch(lambda n: self.test_batch(n, batch_size, limit), 0, count, workers=self.workers)


def make_options(config: ConfigDict, records: Sequence, place: str, *, live: bool = True) -> dict:
    """Returns the fields of RecordDataset for a split of a run.

    Args:
      config: the run's configuration.
      records: of the split.
      place: names it, for messages, such as 'trainval of VOCdevkit/VOC2007'.
      live: whether examples that are left out are reported as they are found.
    """
    return {
        'records': records,
        'workers': config.data.workers,
        'seed': config.seed,
        'process_index': jax.process_index(),
        'process_count': jax.process_count(),
        'skipped': SkippedExamples(place, len(records), live=live),
    }


def should_load_in_memory(config: ConfigDict, count: int, size: int) -> bool:
    """Returns whether images are decoded once, as `config.data` says: so many squares of this side, pixels."""
    fits = count * size**2 * 3 <= config.memory_limit_gb * 1e9
    return config.loading == 'memory' or (config.loading == 'auto' and fits)


def pad_array(
    image: Shaped[np.ndarray, 'H W ...'], size: tuple[int, int], value: int = 0
) -> Shaped[np.ndarray, '_ _ ...']:
    """Returns an image in the upper left corner of one of this height and width, which is `value` elsewhere."""
    padded = np.full((*size, *image.shape[2:]), value, image.dtype)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded


def prefetch(
    made: Callable[[int], PyTree], start: int, end: int, step: int = 1, *, workers: int = 0, count: int = 0
) -> Iterator[PyTree]:
    """Yields made(start), made(start + step), ..., made ahead by threads.

    Args:
      made: makes a batch.
      start: the first number.
      end: after the last number.
      step: between numbers.
      workers: threads, 0: as many as there are CPUs.
      count: how many are made ahead, at least twice the threads.
    """
    workers = workers or host.cpus()
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(count, 2 * workers))
    iterator = iter(grain.MapDataset.range(start, end, step).map(made).to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()
