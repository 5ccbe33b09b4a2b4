"""Examples in an order that is a pure function of (seed, step), on any number of hosts, whatever an example is.

Training batches follow one another through the endless concatenation of every epoch's permutation of the whole split,
so that no example is left out at an epoch's end. Each host takes its slice of every global batch. Grain makes the
permutations, and reads ahead, in threads. Whether examples are held in memory or read as they are needed changes when
they are read, and nothing else.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator

import grain
import numpy as np
from jaxtyping import Int, PyTree

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.left_out import LeftOut
from artifacts_jax.devices import host

TOGETHER = 8  # examples that a thread reads at a time: Grain takes as long as a small image does
LAST = 2**62  # more examples than will ever be trained on


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Ordered:
    """What both have in common."""

    seed: int
    process_index: int = 0
    process_count: int = 1
    left_out: LeftOut = dataclasses.field(default_factory=LeftOut)
    reshuffle: bool = True  # whether each epoch has its own permutation, or all the first one's

    @property
    def num_examples(self) -> int:
        """The examples of the split, over all hosts."""
        raise NotImplementedError

    @property
    def used(self) -> int:
        """The images of the split but those that have been left out so far, over all hosts."""
        return self.num_examples

    def eval_steps(self, batch_size: int, limit: int = 0) -> int:
        """Returns how many batches eval_batches yields."""
        return -(-min(limit or self.num_examples, self.num_examples) // batch_size)

    def _row(self, position):
        """Returns the row at a position in the endless concatenation of every epoch's permutation."""
        epoch, place = divmod(position, self.num_examples)
        seed = (self._first_seed + epoch * self.reshuffle) % 2**32
        return grain.experimental.index_shuffle(place, max_index=self.num_examples - 1, seed=seed, rounds=4)

    @functools.cached_property
    def _first_seed(self):
        return int(np.random.default_rng(self.seed).integers(2**32))  # far from those of the next seeds

    def _share(self, batch_size):
        """Returns the positions in the global batch that this host has, int32 [b]."""
        if batch_size % self.process_count:
            raise DataError(f'batch_size={batch_size} does not divide by the {self.process_count} hosts')
        size = batch_size // self.process_count
        return np.arange(self.process_index * size, (self.process_index + 1) * size, dtype=np.int32)

    def _eval_rows(self, batch_size, limit):
        """Yields, for each batch, (this host's rows of the split, how many examples it is padded to)."""
        count = min(limit or self.num_examples, self.num_examples)
        for start in range(0, count, batch_size):
            rows = start + self._share(batch_size)
            yield rows[rows < count], len(rows)


class Held(Ordered):
    """Examples in memory, which `examples` picks."""

    def examples(self, rows: Int[np.ndarray, ' b']) -> dict[str, np.ndarray]:
        """Returns {name: array [b, ...]} of the examples at these positions."""
        raise NotImplementedError

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Returns this host's part of the global batch at a step (see train_batches)."""
        index = self._share(batch_size)
        rows = [self._row(step * batch_size + int(n)) for n in index]
        return {**self.examples(np.array(rows)), 'index': index}

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches of start_step, start_step + 1, ... for ever.

        Each array is [b, ...], of this host's b = batch_size / process_count examples, and 'index' int32 [b] are their
        positions in the global batch.
        """
        return (self.batch(step, batch_size) for step in itertools.count(start_step))

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields every example once, in order, or the first `limit`; 'index' is the position in the split.

        'mask' bool [b] is False for the zeros that pad the last batch; every host yields the same number of batches.
        """
        for rows, size in self._eval_rows(batch_size, limit):
            yield _pad({**self.examples(rows), 'index': rows}, size)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Read(Ordered):
    """Examples that `example` reads when they are needed; each host reads its own part of every batch.

    In the place of a training example that is left out another of its batch counts twice, so that a restart need not
    read what came before.
    """

    workers: int = 0  # threads, 0: as many as there are CPUs

    @property
    def used(self) -> int:
        """As Ordered.used."""
        return self.num_examples - self.left_out.ever()

    def example(self, row: int) -> dict:
        """Returns {name: array} of an example, {} of one that is left out."""
        raise NotImplementedError

    def empty(self, count: int) -> dict[str, np.ndarray]:
        """Returns {name: array [count, ...] of zeros} for so many examples."""
        raise NotImplementedError

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As Held.train_batches."""
        index = self._share(batch_size)

        def row(n):
            step, place = divmod(n, len(index))
            return self._row(step * batch_size + int(index[place]))

        stream = self._decoded(row, start_step * len(index), LAST, ahead=len(index))
        while True:
            places = list(itertools.islice(stream, len(index)))
            whole = [example for example in places if example]
            if not whole:
                raise DataError(f'no example of a whole batch of {self.left_out.place} can be used (see the warnings)')
            chosen = [example or whole[n % len(whole)] for n, example in enumerate(places)]
            yield {**self._filled(chosen), 'index': index}

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As Held.eval_batches."""
        batches = list(self._eval_rows(batch_size, limit))
        mine = np.concatenate([rows for rows, _ in batches])
        stream = self._decoded(lambda n: int(mine[n]), 0, len(mine), ahead=batch_size)
        for rows, size in batches:
            examples = list(itertools.islice(stream, len(rows)))
            whole = [n for n, example in enumerate(examples) if example]
            yield _pad({**self._filled([examples[n] for n in whole]), 'index': rows[whole]}, size)

    def read_all(self) -> dict[str, np.ndarray]:
        """Returns {name: array [N, ...]} of the examples that can be used; says how many cannot.

        Raises:
          DataError: none is left.
        """
        stream = self._decoded(lambda n: n, 0, self.num_examples, ahead=256)
        columns, count = self.empty(self.num_examples), 0
        for example in filter(None, stream):
            for name, value in example.items():
                columns[name][count] = value
            count += 1
        self.left_out.say()
        if not count:
            raise DataError(f'no example of {self.left_out.place} can be used (see the warnings)')
        return {name: column[:count] for name, column in columns.items()}

    def shared(self) -> dict:
        """Returns the fields of Ordered, of which another data set in the same order is made."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Ordered)}

    def _filled(self, examples):
        columns = self.empty(len(examples))
        for n, example in enumerate(examples):
            for name, value in example.items():
                columns[name][n] = value
        return columns

    def _decoded(self, row, start, end, *, ahead):
        """Yields what `example` returns for row(start), row(start + 1), ..., row(end - 1), read ahead by threads."""

        def examples(first):
            return [self.example(row(n)) for n in range(first, min(first + TOGETHER, end))]

        workers = self.workers or host.cpus()
        options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(-(-ahead // TOGETHER), 2 * workers))
        iterator = iter(grain.MapDataset.range(start, end, TOGETHER).map(examples).to_iter_dataset(options))
        try:
            for some in iterator:
                yield from some
        finally:
            iterator.close()


def ahead(made: Callable[[int], PyTree], start: int, end: int, *, workers: int = 0) -> Iterator[PyTree]:
    """Yields made(start), made(start + 1), ..., made(end - 1), made ahead by threads.

    Args:
      made: makes a batch.
      start: the first number.
      end: the number after the last.
      workers: threads, 0: as many as there are CPUs.
    """
    workers = workers or host.cpus()
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
    iterator = iter(grain.MapDataset.range(start, end).map(made).to_iter_dataset(options))
    try:
        yield from iterator
    finally:
        iterator.close()


def _pad(batch, size):
    count = len(batch['index'])
    padded = {name: np.pad(x, ((0, size - count),) + ((0, 0),) * (x.ndim - 1)) for name, x in batch.items()}
    return {**padded, 'mask': np.arange(size) < count}
