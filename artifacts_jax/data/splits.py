"""Batches as a pure function of (seed, step), from tfds data sets, folders of images, and arrays."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int, Int32, UInt8
from ml_collections import ConfigDict

from artifacts_jax.data import arrays, source
from artifacts_jax.data.errors import DataError

__all__ = ['DataError', 'InMemory', 'Streamed', 'classes', 'load', 'original_order']


def load(config: ConfigDict, split: str, *, seed: int, process_index: int = 0, process_count: int = 1):
    """Opens a split, in memory or streamed as `config.loading` says.

    Args:
      config: the run's `config.data`.
      split: a split of the data set, as tfds spells it ('train', 'train[:90%]', 'unlabelled').
      seed: decides the order of training batches.
      process_index: this host.
      process_count: the hosts that share the data.

    Returns:
      An InMemory or a Streamed data set.

    Raises:
      DataError: the data set, its files or the split are not there, the split is empty, all its images are damaged, or
        arrays are not what they should be.
    """
    opened = (arrays if arrays.named(config) else source).open_split(config, split)
    examples = opened.num_examples
    on_demand = config.loading == 'stream' or (
        config.loading == 'auto' and examples * config.size**2 * 3 > config.memory_limit_gb * 1e9
    )
    if on_demand and isinstance(opened, source.Source):
        return Streamed(opened, examples, opened.label_names, seed, config.shuffle_buffer, process_index, process_count)
    images, labels = (opened.images, opened.labels) if on_demand else opened.decode()
    return InMemory(
        images, labels, opened.label_names, seed, process_index, process_count, left_out=examples - len(images)
    )


def classes(config: ConfigDict, key: str, dataset: 'InMemory | Streamed', *, stage: str) -> int:
    """Returns the number of classes of a data set whose labels a stage needs.

    Args:
      config: the run's `config.data`.
      key: the data set's key in it, such as 'probe_train'.
      dataset: what `load` has returned for it.
      stage: the stage's name.

    Raises:
      DataError: there are images without labels.
    """
    if not dataset.num_classes:
        raise DataError(
            f'split {config[key]!r} of {config.name} has no labels, or not of every image, which {stage} needs: set'
            f' data.{key} to a labelled split, or leave {stage} out of stages'
        )
    return dataset.num_classes


def original_order(config: ConfigDict, split: str) -> Int[np.ndarray, ' N']:
    """Returns where each example of a split stands in the data set's own files: see source.py; of arrays, as it is."""
    if arrays.named(config):
        return np.arange(arrays.open_split(config, split).num_examples)
    return source.original_order(config, split)


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """A split decoded once, or arrays: images, and labels, -1 where there is none.

    Training batches follow one another through the endless concatenation of every epoch's permutation, so that no
    example is left out at an epoch's end. Each host takes its slice of every global batch.
    """

    images: UInt8[np.ndarray | arrays.Rows, 'N size size 3']
    labels: Int32[np.ndarray, ' N']
    label_names: tuple[str, ...]
    seed: int
    process_index: int = 0
    process_count: int = 1
    left_out: int = 0  # examples of the split that could not be used

    @property
    def num_examples(self) -> int:
        """The examples of the split, over all hosts."""
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 if there are no labels."""
        return len(self.label_names) if (self.labels >= 0).all() else 0

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Returns this host's part of the global batch at a step: 'image', 'label', 'index' (see train_batches)."""
        index = _share(batch_size, self.process_index, self.process_count)
        epochs, places = np.divmod(step * batch_size + index.astype(np.int64), self.num_examples)
        chosen = np.array([self._order(int(e))[p] for e, p in zip(epochs, places)])
        return {'image': self.images[chosen], 'label': self.labels[chosen], 'index': index}

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
        count = min(limit or self.num_examples, self.num_examples)
        for start in range(0, count, batch_size):
            index = start + _share(batch_size, self.process_index, self.process_count)
            rows = index[index < count]
            yield _pad({'image': self.images[rows], 'label': self.labels[rows], 'index': rows}, len(index))

    def eval_steps(self, batch_size: int, limit: int = 0) -> int:
        """Returns how many batches eval_batches yields."""
        return -(-min(limit or self.num_examples, self.num_examples) // batch_size)

    def subset(self, indices: Int[np.ndarray, ' part']) -> 'InMemory':
        """Returns the examples at these positions, as a data set of its own.

        Raises:
          DataError: examples were left out, so that the others' positions are not what they were.
        """
        if self.left_out:
            raise DataError(
                f'{len(indices):,} examples were asked for by their positions, but {self.left_out:,} of the split were'
                f' left out (see the warnings): mend these'
            )
        return dataclasses.replace(self, images=self.images[indices], labels=self.labels[indices])

    def _order(self, epoch):
        return _permutation(self.seed, epoch, self.num_examples)


@functools.lru_cache(maxsize=4)
def _permutation(seed, epoch, count):
    return np.random.default_rng([seed, epoch]).permutation(count)


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed:
    """A split read from disk as it is needed; each host decodes its own part of every batch.

    An epoch is shuffled within a buffer, by a seed made from (seed, epoch); a restart skips to its place in the
    epoch. The order is that of one host, so that every host reads all bytes. Batches run across the ends of epochs. In
    the place of a training example that is left out another of its
    batch counts twice, so that a restart need not decode what came before.
    """

    source: source.Source
    num_examples: int
    label_names: tuple[str, ...]
    seed: int
    shuffle_buffer: int
    process_index: int = 0
    process_count: int = 1

    @property
    def num_classes(self) -> int:
        """The number of classes, 0 if there are no labels."""
        return len(self.label_names)

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As InMemory.train_batches."""
        index = _share(batch_size, self.process_index, self.process_count)
        epoch, skip = divmod(start_step * batch_size, self.num_examples)
        stream = itertools.chain.from_iterable(
            self._epoch(e, skip if e == epoch else 0, batch_size) for e in itertools.count(epoch)
        )
        while True:
            places = list(itertools.islice(stream, len(index)))
            whole = [example for example in places if example is not None]
            if not whole:
                raise DataError(f'no example of a whole batch of {self.source.place} can be used (see the warnings)')
            chosen = [whole[n % len(whole)] if example is None else example for n, example in enumerate(places)]
            images, labels = (np.stack([example[name] for example in chosen]) for name in ('image', 'label'))
            yield {'image': images, 'label': labels, 'index': index}

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """As InMemory.eval_batches; each host yields its own part of the split."""
        size = len(_share(batch_size, self.process_index, self.process_count))
        count = min(limit or self.num_examples, self.num_examples)
        first, examples = self.source.part(self._host)
        here = max(0, min(count - first, examples))
        stream = iter(self.source.examples(self._host, take=here))
        for n in range(self.eval_steps(batch_size, limit)):
            places = list(enumerate(itertools.islice(stream, size), start=first + n * size))
            rows = np.array([place for place, example in places if example is not None], np.int32)
            chosen = [example for _, example in places if example is not None]
            shape = (0, self.source.size, self.source.size, 3)
            images = np.stack([e['image'] for e in chosen]) if chosen else np.zeros(shape, np.uint8)
            labels = np.array([e['label'] for e in chosen], np.int32)
            yield _pad({'image': images, 'label': labels, 'index': rows}, size)

    def eval_steps(self, batch_size: int, limit: int = 0) -> int:
        """Returns how many batches eval_batches yields: as many as the host with the largest part needs."""
        most = -(-self.num_examples // self.process_count)
        return -(-min(most, limit or most) // (batch_size // self.process_count))

    def subset(self, indices: Int[np.ndarray, ' part']) -> InMemory:
        """Raises DataError: parts are taken of data sets in memory."""
        raise DataError(
            f'{len(indices):,} chosen examples of {self.source.builder.name} were asked for, which is streamed: set'
            f' data.loading=memory, or data.memory_limit_gb above its size'
        )

    def _epoch(self, epoch, skip, batch_size):
        def mine(n):
            place = (epoch * self.num_examples + n) % batch_size
            return place // (batch_size // self.process_count) == self.process_index

        seed = int(np.random.default_rng([self.seed, epoch]).integers(2**31))
        mine = mine if self.process_count > 1 else None
        return self.source.shuffled(self.shuffle_buffer, seed, skip=skip, mine=mine)

    @property
    def _host(self):
        return self.process_index, self.process_count


def _share(batch_size, process_index, process_count):
    """Returns the positions in the global batch that a host has, int32 [b]."""
    if batch_size % process_count:
        raise DataError(f'batch_size={batch_size} does not divide by the {process_count} hosts')
    size = batch_size // process_count
    return np.arange(process_index * size, (process_index + 1) * size, dtype=np.int32)


def _pad(batch, size):
    count = len(batch['index'])
    padded = {name: np.pad(x, ((0, size - count),) + ((0, 0),) * (x.ndim - 1)) for name, x in batch.items()}
    return {**padded, 'mask': np.arange(size) < count}
