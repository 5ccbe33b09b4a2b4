"""Batches as a pure function of (seed, step), in memory or streamed, on any number of hosts.

Training batches follow one another through the endless concatenation of every epoch's permutation of the whole split,
so that no example is left out at an epoch's end. Each host takes its slice of every global batch. Grain makes the
permutations, and reads and decodes ahead, in threads. Whether images are decoded once or as they are needed changes
when they are read, and nothing else.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import grain
import numpy as np
from jaxtyping import Int, Int32, UInt8

from artifacts_jax.data import decoding, sources
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.left_out import LeftOut
from artifacts_jax.devices import host

TOGETHER = 8  # images that a thread reads at a time: Grain takes as long as a small image does
LAST = 2**62  # more examples than will ever be trained on


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class _Shared:
    """What data sets in memory and streamed ones have in common."""

    seed: int
    process_index: int = 0
    process_count: int = 1
    left_out: LeftOut = dataclasses.field(default_factory=LeftOut)

    def _row(self, position):
        """Returns the row at a position in the endless concatenation of every epoch's permutation."""
        epoch, place = divmod(position, self.num_examples)
        seed = (self._first_seed + epoch) % 2**32
        return grain.experimental.index_shuffle(place, max_index=self.num_examples - 1, seed=seed, rounds=4)

    @functools.cached_property
    def _first_seed(self):
        return int(np.random.default_rng(self.seed).integers(2**32))  # far from those of the next seeds

    def eval_steps(self, batch_size: int, limit: int = 0) -> int:
        """Returns how many batches eval_batches yields."""
        return -(-min(limit or self.num_examples, self.num_examples) // batch_size)

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


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory(_Shared):
    """A split decoded once, or arrays: images, and labels, -1 where there is none."""

    images: UInt8[np.ndarray, 'all size size 3']
    labels: Int32[np.ndarray, ' all']
    label_names: tuple[str, ...]
    rows: Int[np.ndarray, ' N'] | None = None  # which of them are the split's, None: all

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

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Returns this host's part of the global batch at a step: 'image', 'label', 'index' (see train_batches)."""
        index = self._share(batch_size)
        rows = [self._row(step * batch_size + int(n)) for n in index]
        return {**self._examples(np.array(rows)), 'index': index}

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches of start_step, start_step + 1, ... for ever.

        'image' is uint8 [b, size, size, 3], 'label' int32 [b], and 'index' int32 [b] the examples' positions in the
        global batch, of which this host has b = batch_size / process_count.
        """
        return (self.batch(step, batch_size) for step in itertools.count(start_step))

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields every example once, in order, or the first `limit`; 'index' is the position in the split.

        'mask' bool [b] is False for the zeros that pad the last batch; every host yields the same number of batches.
        """
        for rows, size in self._eval_rows(batch_size, limit):
            yield _pad({**self._examples(rows), 'index': rows}, size)

    def subset(self, indices: Int[np.ndarray, ' part']) -> 'InMemory':
        """Returns the examples at these positions, as a data set of its own.

        Raises:
          DataError: examples were left out, so that the others' positions are not what they were.
        """
        if len(self.left_out):
            raise DataError(
                f'{len(indices):,} examples were asked for by their positions, but {len(self.left_out):,} of the split'
                f' were left out (see the warnings): mend these'
            )
        chosen = self.rows[indices]
        return dataclasses.replace(self, images=self.images[chosen], labels=self.labels[chosen], rows=None)

    def _examples(self, rows):
        chosen = self.rows[rows]
        return {'image': self.images[chosen], 'label': self.labels[chosen]}


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed(_Shared):
    """A split read and decoded as it is needed; each host reads its own part of every batch.

    In the place of a training example that is left out another of its batch counts twice, so that a restart need not
    decode what came before.
    """

    source: sources.Source
    size: int
    label_names: tuple[str, ...]
    workers: int = 0  # threads, 0: as many as there are CPUs

    @property
    def num_examples(self) -> int:
        """The examples of the split, over all hosts."""
        return len(self.source)

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 if there are no labels."""
        return len(self.label_names)

    @property
    def present(self) -> set[int]:
        """The classes that there is an image of; all of them where that is not known before reading."""
        part = self.source
        labels = getattr(part.whole, 'labels', None) if isinstance(part, sources.Part) else None
        return set(range(self.num_classes) if labels is None else np.unique(labels[part.rows]).tolist())

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As InMemory.train_batches."""
        index = self._share(batch_size)

        def row(n):
            step, place = divmod(n, len(index))
            return self._row(step * batch_size + int(index[place]))

        stream = self._decoded(row, start_step * len(index), LAST, ahead=len(index))
        while True:
            places = list(itertools.islice(stream, len(index)))
            whole = [example for example in places if 'image' in example]
            if not whole:
                raise DataError(f'no example of a whole batch of {self.left_out.place} can be used (see the warnings)')
            chosen = [example if 'image' in example else whole[n % len(whole)] for n, example in enumerate(places)]
            images, labels = (np.stack([example[name] for example in chosen]) for name in ('image', 'label'))
            yield {'image': images, 'label': labels, 'index': index}

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As InMemory.eval_batches."""
        batches = list(self._eval_rows(batch_size, limit))
        mine = np.concatenate([rows for rows, _ in batches])
        stream = self._decoded(lambda n: mine[n], 0, len(mine), ahead=batch_size)
        for rows, size in batches:
            examples = list(itertools.islice(stream, len(rows)))
            whole = [n for n, example in enumerate(examples) if 'image' in example]
            images = np.zeros((len(whole), self.size, self.size, 3), np.uint8)
            for place, n in enumerate(whole):
                images[place] = examples[n]['image']
            labels = np.array([examples[n]['label'] for n in whole], np.int32)
            yield _pad({'image': images, 'label': labels, 'index': rows[whole]}, size)

    def subset(self, indices: Int[np.ndarray, ' part']) -> InMemory:
        """Raises DataError: parts are taken of data sets in memory."""
        raise DataError(
            f'{len(indices):,} chosen examples of {self.left_out.place} were asked for, which is streamed: set'
            f' data.loading=memory, or data.memory_limit_gb above its size'
        )

    def decode(self) -> InMemory:
        """Returns the split decoded once, without the examples that cannot be used; says how many these are.

        Raises:
          DataError: none is left.
        """
        images = np.empty((self.num_examples, self.size, self.size, 3), np.uint8)
        labels = np.empty(self.num_examples, np.int32)
        count = 0
        for example in self._decoded(lambda n: n, 0, self.num_examples, ahead=256):
            if 'image' in example:
                images[count], labels[count] = example['image'], example['label']
                count += 1
        self.left_out.say()
        if not count:
            raise DataError(f'no example of {self.left_out.place} can be used (see the warnings)')
        shared = {field.name: getattr(self, field.name) for field in dataclasses.fields(_Shared)}
        return InMemory(images[:count], labels[:count], self.label_names, **shared)

    def _decoded(self, row, start, end, *, ahead):
        """Yields what _example returns for row(start), row(start + 1), ..., row(end - 1), read ahead by threads."""

        def examples(first):
            return [self._example(row(n)) for n in range(first, min(first + TOGETHER, end))]

        workers = self.workers or host.cpus()
        options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=max(-(-ahead // TOGETHER), 2 * workers))
        iterator = iter(grain.MapDataset.range(start, end, TOGETHER).map(examples).to_iter_dataset(options))
        try:
            for some in iterator:
                yield from some
        finally:
            iterator.close()

    def _example(self, row):
        """Returns {'image': uint8 [size, size, 3], 'label'}, {} of an example that is left out."""
        example = self.source[row]
        try:
            image = decoding.decode(example.image, self.size)
            if not -1 <= example.label < (len(self.source.label_names) or np.inf):
                raise decoding.UnusableError(f'label {example.label} of {len(self.source.label_names)} classes')
        except decoding.UnusableError as error:
            self.left_out.add(example.name, str(error))
            return {}
        return {'image': image, 'label': example.label}


def _pad(batch, size):
    count = len(batch['index'])
    padded = {name: np.pad(x, ((0, size - count),) + ((0, 0),) * (x.ndim - 1)) for name, x in batch.items()}
    return {**padded, 'mask': np.arange(size) < count}
