"""Examples in an order that is a pure function of (seed, step), on any number of hosts, whatever an example is.

Training batches follow one another through the endless concatenation of every epoch's permutation of the whole split,
so that no example is left out at an epoch's end. Each host takes its slice of every global batch. Grain makes the
permutations. Whether examples are held in memory, as here, or read as they are needed (reading.py) changes when they
are read, and nothing else.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.skipped import SkippedExamples


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Dataset:
    """What all have in common."""

    seed: int
    process_index: int = 0
    process_count: int = 1
    skipped: SkippedExamples = dataclasses.field(default_factory=SkippedExamples)
    reshuffle: bool = True  # whether each epoch has its own permutation, or all the first one's

    @property
    def num_examples(self) -> int:
        """The examples of the split, over all hosts."""
        raise NotImplementedError

    @property
    def num_used(self) -> int:
        """The examples of the split but those that have been left out so far, over all hosts."""
        return self.num_examples

    def get_options(self) -> dict:
        """Returns the fields of Dataset, of which another data set in the same order is made."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Dataset)}

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
            raise DataError(f'batch_size={batch_size} is not divisible by the {self.process_count} hosts')
        size = batch_size // self.process_count
        return np.arange(self.process_index * size, (self.process_index + 1) * size, dtype=np.int32)

    def _eval_rows(self, batch_size, limit):
        """Yields, for each batch, (this host's rows of the split, how many examples it is padded to)."""
        count = min(limit or self.num_examples, self.num_examples)
        for start in range(0, count, batch_size):
            rows = start + self._share(batch_size)
            yield rows[rows < count], len(rows)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ArrayDataset(Dataset):
    """Examples in memory."""

    columns: dict = dataclasses.field(default_factory=dict)  # {name: array [N, ...]}

    @property
    def num_examples(self) -> int:
        """The examples of the split, over all hosts."""
        return len(next(iter(self.columns.values())))

    def examples(self, rows: Int[np.ndarray, ' b']) -> dict[str, np.ndarray]:
        """Returns {name: array [b, ...]} of the examples at these positions."""
        return {name: column[rows] for name, column in self.columns.items()}

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

        'valid' bool [b] is False for the zeros that pad the last batch; every host yields the same number of batches.
        """
        for rows, size in self._eval_rows(batch_size, limit):
            yield pad_batch({**self.examples(rows), 'index': rows}, size)


def pad_batch(batch: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Returns a batch of so many examples, zeros after its own, with 'valid' True for these."""
    count = len(batch['index'])
    padded = {name: np.pad(x, ((0, size - count),) + ((0, 0),) * (x.ndim - 1)) for name, x in batch.items()}
    return {**padded, 'valid': np.arange(size) < count}
