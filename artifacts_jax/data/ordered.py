"""Data sets whose batches are a pure function of (seed, step), on any number of hosts, for any kind of example.

Every epoch has its own permutation of the whole split, made by Grain. The training batches are consecutive slices of
the endless concatenation of these permutations, so no example is dropped at the end of an epoch. Each host takes its
slice of every global batch. Data sets in memory (here) and streamed data sets (reading.py) give identical batches.
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
    """The base class: the order of the examples, and the slices of the hosts."""

    seed: int
    process_index: int = 0
    process_count: int = 1
    skipped: SkippedExamples = dataclasses.field(default_factory=SkippedExamples)
    reshuffle: bool = True  # whether each epoch has its own permutation; else all epochs have that of the first

    @property
    def num_examples(self) -> int:
        """The number of examples of the split, over all hosts."""
        raise NotImplementedError

    @property
    def num_used(self) -> int:
        """The number of examples without those that were skipped so far, over all hosts."""
        return self.num_examples

    def get_options(self) -> dict:
        """Returns {field: value} of Dataset, the arguments for another data set with the same order."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(Dataset)}

    def eval_steps(self, batch_size: int, limit: int = 0) -> int:
        """Returns the number of batches that eval_batches yields."""
        return -(-min(limit or self.num_examples, self.num_examples) // batch_size)

    def _row(self, position):
        """Returns the example at a position in the endless concatenation of the permutations of all epochs."""
        epoch, offset = divmod(position, self.num_examples)
        seed = (self._first_seed + epoch * self.reshuffle) % 2**32
        return grain.experimental.index_shuffle(offset, max_index=self.num_examples - 1, seed=seed, rounds=4)

    @functools.cached_property
    def _first_seed(self):
        return int(np.random.default_rng(self.seed).integers(2**32))  # so that the epochs of seed and seed + 1 differ

    def _host_slice(self, batch_size):
        """Returns the indices in the global batch that belong to this host, int32 [b]."""
        if batch_size % self.process_count:
            raise DataError(f'batch_size={batch_size} is not divisible by the {self.process_count} hosts')
        size = batch_size // self.process_count
        return np.arange(self.process_index * size, (self.process_index + 1) * size, dtype=np.int32)

    def _eval_rows(self, batch_size, limit):
        """Yields, for each batch, (the examples of this host as indices in the split, the size with padding)."""
        count = min(limit or self.num_examples, self.num_examples)
        for start in range(0, count, batch_size):
            rows = start + self._host_slice(batch_size)
            yield rows[rows < count], len(rows)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ArrayDataset(Dataset):
    """A data set in memory: one array for each field of the examples."""

    columns: dict = dataclasses.field(default_factory=dict)  # {name: array [N, ...]}

    @property
    def num_examples(self) -> int:
        """The number of examples of the split, over all hosts."""
        return len(next(iter(self.columns.values())))

    def examples(self, rows: Int[np.ndarray, ' b']) -> dict[str, np.ndarray]:
        """Returns {name: array [b, ...]} of the examples with these indices."""
        return {name: column[rows] for name, column in self.columns.items()}

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Returns this host's slice of the global batch at a step (see train_batches)."""
        index = self._host_slice(batch_size)
        rows = [self._row(step * batch_size + int(n)) for n in index]
        return {**self.examples(np.array(rows)), 'index': index}

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches of start_step, start_step + 1, ... without end.

        Each array is [b, ...] with this host's b = batch_size / process_count examples; 'index' int32 [b] holds their
        indices in the global batch.
        """
        return (self.batch(step, batch_size) for step in itertools.count(start_step))

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields batches of all examples once, in order, or of the first `limit`; 'index' is the index in the split.

        'valid' bool [b] is False for the padding of the last batch, which is zeros. Every host yields the same number
        of batches.
        """
        for rows, size in self._eval_rows(batch_size, limit):
            yield pad_batch({**self.examples(rows), 'index': rows}, size)


def pad_batch(batch: dict[str, np.ndarray], size: int) -> dict[str, np.ndarray]:
    """Returns a batch padded with zeros to `size` examples; 'valid' is False for the padding."""
    count = len(batch['index'])
    padded = {name: np.pad(x, ((0, size - count),) + ((0, 0),) * (x.ndim - 1)) for name, x in batch.items()}
    return {**padded, 'valid': np.arange(size) < count}
