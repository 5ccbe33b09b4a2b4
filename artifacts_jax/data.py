"""Batches as a pure function of (seed, step), from tfds data sets and folders of images; alone knows TensorFlow.

An image of another size than `config.data.size` is resized, with antialiasing, so that its short side has that size,
and the central square is kept. Grey images become RGB, and the alpha of RGBA is dropped. An example whose image cannot
be decoded, or whose label is no class, is left out, with a warning that names it.
"""

import dataclasses
import difflib
import functools
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from artifacts_jax import host

PHOTOGRAPHS = 'photographs'


class DataError(Exception):
    """Data that is missing or cannot be read; the message says what was looked for, where, and what to do."""


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
      DataError: the data set, its files or the split are not there, the split is empty, or all its images are damaged.
    """
    import tensorflow_datasets as tfds

    builder = _builder(config)
    try:
        examples = builder.info.splits[split].num_examples
    except (KeyError, ValueError) as error:
        splits = ', '.join(builder.info.splits) or 'none'
        raise DataError(f'{config.name} has no split {split!r}; there are: {splits}') from error
    if isinstance(builder, tfds.ImageFolder) and split not in builder.info.splits:
        raise DataError(
            f'{config.name} is a folder, whose splits cannot be cut: {split!r}; make a folder for each split'
        )
    if examples == 0:
        raise DataError(f'split {split!r} of {config.name} in {builder.data_dir} is empty')
    stream = config.loading == 'stream' or (
        config.loading == 'auto' and examples * config.size**2 * 3 > config.memory_limit_gb * 1e9
    )
    known = builder.info.features
    names = tuple(getattr(known['label'], 'names', ())) if 'label' in known else ()
    source = _Source(builder, split, examples, config.size, names)
    if stream:
        return Streamed(source, examples, names, seed, config.shuffle_buffer, process_index, process_count)
    images, labels = source.decode()
    return InMemory(images, labels, names, seed, process_index, process_count, left_out=examples - len(images))


def original_order(config: ConfigDict, split: str) -> np.ndarray:
    """Returns where each example of a split, in the order read, stands in the data set's own files: int [N].

    tfds shuffles what it prepares: it sorts the examples by the md5 of their keys, salted with the split's name, and
    cuts the sorted sequence into shards. Read one shard after another, as here, it is the same sequence however many
    there are. The keys of tfds's STL-10 are the indices in train_X.bin and its like, so that its shuffle can be
    undone. Of any other data set (folders too) the order read counts as the original.

    Args:
      config: the run's `config.data`.
      split: a split of the data set.

    Raises:
      DataError: only part of a split of STL-10 is asked for.
    """
    import tensorflow_datasets as tfds

    builder = _builder(config)
    count = builder.info.splits[split].num_examples
    if builder.name != 'stl10':
        return np.arange(count)
    if split not in builder.info.splits:
        whole = ', '.join(builder.info.splits)
        raise DataError(f'the original order of {split!r} of STL-10 is not known, but that of whole splits: {whole}')
    return np.array(sorted(range(count), key=tfds.core.hashing.Hasher(split).hash_key))


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory:
    """A split decoded once: uint8 images [N, size, size, 3] and int32 labels [N], -1 where there is none.

    Training batches follow one another through the endless concatenation of every epoch's permutation, so that no
    example is left out at an epoch's end. Each host takes its slice of every global batch.
    """

    images: np.ndarray
    labels: np.ndarray
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

    def subset(self, indices: np.ndarray) -> 'InMemory':
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
    """A split read from disk as it is needed; each host reads its own part of the examples.

    An epoch is shuffled within a buffer, by a seed made from (seed, epoch); a restart skips to its place in the
    epoch. Batches run across the ends of epochs. In the place of a training example that is left out another of its
    batch counts twice, so that a restart need not decode what came before.
    """

    source: Any
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
        """As InMemory.train_batches; an epoch of a host is its own part of the split."""
        index = _share(batch_size, self.process_index, self.process_count)
        _, examples = self.source.part(self._host)
        epoch, skip = divmod(start_step * len(index), examples)
        stream = itertools.chain.from_iterable(
            self._epoch(e, skip if e == epoch else 0) for e in itertools.count(epoch)
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

    def subset(self, indices: np.ndarray) -> InMemory:
        """Raises DataError: parts are taken of data sets in memory."""
        raise DataError(
            f'{len(indices):,} chosen examples of {self.source.builder.name} were asked for, which is streamed: set'
            f' data.loading=memory, or data.memory_limit_gb above its size'
        )

    def _epoch(self, epoch, skip):
        seed = int(np.random.default_rng([self.seed, epoch]).integers(2**31))
        return self.source.examples(self._host, shuffle=(self.shuffle_buffer, seed), skip=skip)

    @property
    def _host(self):
        return self.process_index, self.process_count


@dataclasses.dataclass(frozen=True, eq=False)
class _Source:
    """Reads and decodes one split of a tfds builder."""

    builder: Any
    split: str
    num_examples: int
    size: int
    label_names: tuple[str, ...]
    _told: set = dataclasses.field(default_factory=set)  # names of the examples that were left out

    @property
    def place(self):
        """Where the images are, for messages."""
        return f'{self.builder.name} in {self.builder.data_dir}'

    def part(self, host):
        """Returns (first example, number of examples) of host (index, hosts), as tfds.even_splits cuts them."""
        index, hosts = host
        examples, larger = divmod(self.num_examples, hosts)
        return index * examples + min(index, larger), examples + (index < larger)

    def examples(self, host=(0, 1), *, shuffle=None, skip=0, take=-1):
        """Yields {'image': uint8 [size, size, 3], 'label': int32} of one host's part, None for those left out."""
        import tensorflow as tf
        import tensorflow_datasets as tfds

        index, hosts = host
        folder = isinstance(self.builder, tfds.ImageFolder)  # has no sub-splits
        split = self.split if folder or hosts == 1 else tfds.even_splits(self.split, hosts)[index]
        # One file after another: the order on disk must be the same at every restart.
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False, add_tfds_id=not folder)
        dataset = self.builder.as_dataset(
            split=split, read_config=config, decoders={'image': tfds.decode.SkipDecoding()}, shuffle_files=False
        )
        if folder:
            first, count = self.part(host)
            dataset = dataset.skip(first).take(count)
        if shuffle:
            dataset = dataset.shuffle(shuffle[0], seed=shuffle[1], reshuffle_each_iteration=False)
        dataset = dataset.skip(skip).take(take)
        decoded = dataset.map(self._decode, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        iterator = decoded.prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
        for n in itertools.count():
            try:
                example = next(iterator)
            except StopIteration:
                return
            except tf.errors.InvalidArgumentError as error:  # of this example; the next can be asked for
                self._leave_out(dataset, n, str(error.message).splitlines()[0].rpartition(': ')[2])
                yield None
            except tf.errors.DataLossError as error:
                raise DataError(f'a file of {self.place} is damaged: {str(error.message).splitlines()[0]}') from error
            else:
                if -1 <= example['label'] < (len(self.label_names) or np.inf):
                    yield example
                else:
                    self._leave_out(dataset, n, f'label {example["label"]} of {len(self.label_names)} classes')
                    yield None

    def _leave_out(self, dataset, n, reason):
        """Warns, once, that the dataset's example n is left out."""
        example = next(iter(dataset.skip(n).take(1)))
        name = next((example[key].numpy().decode() for key in ('image/filename', 'tfds_id') if key in example), n)
        if name not in self._told:
            self._told.add(name)
            left_out = (
                f'left out {name} of {self.place}: {reason} ({len(self._told):,} of {self.num_examples:,} so far)'
            )
            print(f'warning: {left_out}', file=sys.stderr, flush=True)

    def decode(self):
        """Returns all images and labels but those left out."""
        images = np.empty((self.num_examples, self.size, self.size, 3), np.uint8)
        labels = np.empty(self.num_examples, np.int32)
        count = 0
        for example in self.examples():
            if example is not None:
                images[count], labels[count] = example['image'], example['label']
                count += 1
        if not count:
            raise DataError(f'no example of {self.place} can be used (see the warnings)')
        return images[:count], labels[:count]

    def _decode(self, example):
        import tensorflow as tf

        image = tf.io.decode_image(example['image'], channels=3, expand_animations=False)
        same = tf.reduce_all(tf.shape(image)[:2] == self.size)
        image = tf.ensure_shape(tf.cond(same, lambda: image, lambda: self._resize(image)), (self.size, self.size, 3))
        label = tf.cast(example['label'], tf.int32) if 'label' in example else tf.constant(-1)
        return {'image': image, 'label': label}

    def _resize(self, image):
        import tensorflow as tf

        height, width = tf.unstack(tf.shape(image)[:2])
        target = tf.maximum(tf.stack([height, width]) * self.size // tf.minimum(height, width), self.size)
        resized = tf.image.resize(image, target, antialias=True)
        resized = tf.image.resize_with_crop_or_pad(resized, self.size, self.size)
        return tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)


def _builder(config):
    """Returns the tfds builder of a data set whose files are there."""
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    import tensorflow as tf
    import tensorflow_datasets as tfds

    for kind in ('GPU', 'TPU'):  # JAX has them; TensorFlow would take their memory
        tf.config.set_visible_devices([], kind)
    if Path(config.name).is_dir() or config.name.startswith((os.sep, '.', '~')):
        if not Path(config.name).is_dir():
            raise DataError(f'there is no folder {config.name}; images are expected as FOLDER/SPLIT/CLASS/IMAGE.jpg')
        builder = tfds.ImageFolder(config.name)
        if not builder.info.splits:
            raise DataError(f'no images in {config.name}; they are expected as FOLDER/SPLIT/CLASS/IMAGE.jpg')
        return builder
    directory = config.data_dir or None
    if config.name == PHOTOGRAPHS:
        from artifacts_jax.photographs import Photographs

        tfds.disable_progress_bar()
        builder = Photographs(data_dir=directory)
        if not builder.is_prepared():
            with host.alone(Path(builder.data_dir).parent, patient=True):  # other processes may be doing the same
                builder.download_and_prepare()
        return builder
    try:
        builder = tfds.builder(config.name, data_dir=directory, try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        known = difflib.get_close_matches(config.name, [PHOTOGRAPHS, *tfds.list_builders()], n=3, cutoff=0.4)
        raise DataError(f'tfds has no data set {config.name!r}; near it: {", ".join(known) or "none"}') from error
    if not builder.is_prepared():
        where = f' --data_dir={config.data_dir}' if config.data_dir else ''
        raise DataError(
            f'{config.name} is not prepared in {builder.data_dir}; prepare it with: tfds build {config.name}{where}'
            f' (or set --config.data.data_dir to where it is)'
        )
    return builder


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
