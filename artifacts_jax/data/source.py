"""Examples of one split, from tfds data sets and folders of images, each image a square; alone knows TensorFlow.

An image of another size than `config.data.size` is resized, with antialiasing, so that its short side has that size,
and the central square is kept. Grey images become RGB, and the alpha of RGBA is dropped. An example whose image cannot
be decoded, or whose label is no class, is left out, with a warning that names it.
"""

import contextlib
import dataclasses
import difflib
import io
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, UInt8
from ml_collections import ConfigDict

from artifacts_jax.data import places
from artifacts_jax.data.errors import DataError
from artifacts_jax.devices import host

PHOTOGRAPHS = 'photographs'


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Reads and decodes one split of a tfds builder."""

    builder: Any
    split: str
    num_examples: int
    size: int
    label_names: tuple[str, ...]
    _told: set = dataclasses.field(default_factory=set)  # names of the examples that were left out

    @property
    def place(self) -> str:
        """Where the images are, for messages."""
        return f'{self.builder.name} in {self.builder.data_dir}'

    def part(self, host: tuple[int, int]) -> tuple[int, int]:
        """Returns (first example, number of examples) of host (index, hosts), as tfds.even_splits cuts them."""
        index, hosts = host
        examples, larger = divmod(self.num_examples, hosts)
        return index * examples + min(index, larger), examples + (index < larger)

    def examples(self, host: tuple[int, int] = (0, 1), *, take: int = -1) -> Iterator[dict | None]:
        """Yields {'image': uint8 [size, size, 3], 'label': int32} of a host's part, None for an example left out.

        Args:
          host: (index, number of hosts).
          take: examples to yield, -1: all.

        Raises:
          DataError: a file is damaged.
        """
        import tensorflow_datasets as tfds

        (index, hosts), (first, count) = host, self.part(host)
        if self._in_folder or hosts == 1:
            dataset = self._dataset(self.split).skip(first).take(count)
        else:  # which need not be read up to the part
            dataset = self._dataset(tfds.even_splits(self.split, hosts)[index])
        return self._decoded(dataset.take(take))

    def shuffled(self, buffer: int, seed: int, *, skip: int = 0, mine: Callable | None = None) -> Iterator[dict | None]:
        """Yields, as `examples`, those of the whole split, shuffled within a buffer.

        Args:
          buffer: examples that the shuffle holds.
          seed: of the shuffle.
          skip: examples to pass over, after the shuffle.
          mine: whether a position after the shuffle, an integer tensor, is this host's; None: all are. The others are
            read, but not decoded.
        """
        dataset = self._dataset(self.split).shuffle(buffer, seed=seed, reshuffle_each_iteration=False)
        if mine:
            dataset = dataset.enumerate().skip(skip).filter(lambda n, _: mine(n)).map(lambda _, example: example)
        else:
            dataset = dataset.skip(skip)
        return self._decoded(dataset)

    @property
    def _in_folder(self):  # tfds gives its examples no names, and cuts no parts of its splits
        import tensorflow_datasets as tfds

        return isinstance(self.builder, tfds.ImageFolder)

    def _dataset(self, split):
        """Returns the tf.data set of a split's examples, with images as they are on disk."""
        import tensorflow_datasets as tfds

        # One file after another: the order on disk must be the same at every restart.
        config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False, add_tfds_id=not self._in_folder)
        return self.builder.as_dataset(
            split=split, read_config=config, decoders={'image': tfds.decode.SkipDecoding()}, shuffle_files=False
        )

    def _decoded(self, dataset):
        import tensorflow as tf

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

    def decode(self) -> tuple[UInt8[np.ndarray, 'N {self.size} {self.size} 3'], Int32[np.ndarray, ' N']]:
        """Returns the images and labels of all examples but those left out.

        Raises:
          DataError: none is left.
        """
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


def hide_accelerators() -> None:
    """Hides GPUs and TPUs from TensorFlow, which would take their memory; call it before TensorFlow does anything.

    It also keeps quiet what it has to say of itself, among that which of its operations oneDNN takes: none is used.
    """
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
    import tensorflow as tf

    for kind in ('GPU', 'TPU'):
        tf.config.set_visible_devices([], kind)


def open_split(config: ConfigDict, split: str) -> Source:
    """Opens a split; nothing is decoded yet.

    Args:
      config: the run's `config.data`.
      split: a split of the data set, as tfds spells it.

    Raises:
      DataError: the data set, its files or the split are not there, or the split is empty.
    """
    builder = _builder(config)
    import tensorflow_datasets as tfds

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
    known = builder.info.features
    names = tuple(getattr(known['label'], 'names', ())) if 'label' in known else ()
    return Source(builder, split, examples, config.size, names)


def original_order(config: ConfigDict, split: str) -> Int[np.ndarray, ' N']:
    """Returns where each example of a split, in the order read, stands in the data set's own files.

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
    builder = _builder(config)
    import tensorflow_datasets as tfds

    count = builder.info.splits[split].num_examples
    if builder.name != 'stl10':
        return np.arange(count)
    if split not in builder.info.splits:
        whole = ', '.join(builder.info.splits)
        raise DataError(f'the original order of {split!r} of STL-10 is not known, but that of whole splits: {whole}')
    return np.array(sorted(range(count), key=tfds.core.hashing.Hasher(split).hash_key))


def _builder(config):
    """Returns the tfds builder of a data set whose files are there."""
    folder = places.locate(config)
    if folder and not folder.is_dir():
        raise DataError(f'{folder} is a file; images are expected as FOLDER/SPLIT/CLASS/IMAGE.jpg, or as .npz')
    try:
        hide_accelerators()
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f'{config.name} is read by TensorFlow and tensorflow_datasets, which are not installed ({error}): install'
            f' them, or give the images as arrays, FOLDER/SPLIT.npz (docs/data.md)'
        ) from error
    if folder:
        builder = tfds.ImageFolder(str(folder))
        if not builder.info.splits:
            raise DataError(f'no images in {folder}; they are expected as FOLDER/SPLIT/CLASS/IMAGE.jpg')
        return builder
    directory = config.data_dir or None
    if config.name == PHOTOGRAPHS:
        from artifacts_jax.data.photographs import Photographs

        tfds.disable_progress_bar()
        builder = Photographs(data_dir=directory)
        if not builder.is_prepared():
            print(f'preparing {PHOTOGRAPHS} in {builder.data_dir}', flush=True)
            try:  # other processes may be doing the same; and tfds would say that it downloads
                with host.alone(Path(builder.data_dir).parent, patient=True), contextlib.redirect_stdout(io.StringIO()):
                    builder.download_and_prepare()
            except OSError as error:
                raise DataError(
                    f'{PHOTOGRAPHS} cannot be prepared in {builder.data_dir} ({error.strerror or error}): set'
                    f' --config.data.data_dir to a folder that can be written'
                ) from error
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
