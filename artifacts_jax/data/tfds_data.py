"""Reads prepared tfds data sets without TensorFlow, from array_record, Parquet or TFRecord files."""

import contextlib
import dataclasses
import difflib
import functools
import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from artifacts_jax.data import paths, tfrecord
from artifacts_jax.data.errors import DataError, first_line
from artifacts_jax.data.sources import Example
from artifacts_jax.devices import host

NAME = re.compile(r'(\w+:)?\w+(/[\w.+-]+)?(:[\w.*]+)?')  # [namespace:]name[/config][:version]
DEFAULT_DIR = '~/tensorflow_datasets'  # the default folder of tfds
FILE_NAMES = ('file_name', 'filename', 'image/filename')  # features that hold the name of an example


@dataclasses.dataclass(frozen=True, eq=False)
class SerializedExamples:
    """The serialized examples of a split; files are opened at the first access."""

    builder: Any  # the tfds builder of the data set
    split: str

    @functools.cached_property
    def _records(self):
        return open_records(self.builder, self.split)

    def __len__(self):
        return self.builder.info.splits[self.split].num_examples

    def read(self, index: int, parse: Callable) -> Any:
        """Returns parse({key: tf.train.Feature}) of an example.

        Raises:
          DataError: the file of the example is damaged, or `parse` fails.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            return parse(tf_example_pb2.Example.FromString(bytes(self._records[index])).features.feature)
        except DataError:
            raise
        except Exception as error:  # Parquet, array_record and protobuf have no common base class of errors
            raise DataError(
                f'a file of split {self.split} in {self.builder.data_dir} is damaged, at example {index:,}: {error}'
            ) from error


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSplit:
    """A split of a prepared data set of images; files are opened at the first access."""

    examples: SerializedExamples
    image: str  # key of the image feature
    label: str  # key of the label feature, '' if there is none
    label_names: tuple[str, ...]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        def parse(features):
            (image,) = features[self.image].bytes_list.value
            label = features[self.label].int64_list.value[0] if self.label else -1
            names = (features[name].bytes_list.value for name in FILE_NAMES if name in features)
            name = next((value[0].decode(errors='replace') for value in names if value), f'example {index:,}')
            return Example(image, int(label), name)

        return self.examples.read(int(index), parse)


def open_tfds(config: ConfigDict) -> dict[str, TfdsSplit]:
    """Returns {split: source} of a prepared tfds data set; reads no example.

    Args:
      config: the run's `config.data`.

    Raises:
      DataError: tfds does not have the data set, it is not prepared, or it has no images.
    """
    builder = load_builder(config)
    image, label, names = _select_features(config, builder.info.features)
    suggest_conversion(config, builder)
    return {split: TfdsSplit(SerializedExamples(builder, split), image, label, names) for split in builder.info.splits}


def suggest_conversion(config: ConfigDict, builder: Any) -> None:
    """Prints the command that converts a data set, if it exists only as TFRecord, which is slow to open.

    Args:
      config: the run's `config.data`.
      builder: the tfds builder of the data set.
    """
    if _available_formats(builder) == {'tfrecord'}:
        print(
            f'{config.name} exists only as TFRecord, so each file is scanned once to find its examples; to convert it,'
            f' run: python -m artifacts_jax.prepare {config.name}'
            + (f' --data_dir={config.data_dir}' if config.data_dir else ''),
            flush=True,
        )


def load_builder(config: ConfigDict) -> Any:
    """Returns the tfds builder of a prepared data set, made only from its files.

    Args:
      config: the run's `config.data`.

    Raises:
      DataError: the data set does not exist, or it is not prepared.
    """
    if builder := find_builder(config.name, config.data_dir):
        return builder
    check_name(config.name)
    where = f' --data_dir={config.data_dir}' if config.data_dir else ''
    needed = '' if importlib.util.find_spec('tensorflow') else f' {host.TENSORFLOW} (preparing needs it), then:'
    raise DataError(
        f'{config.name} is not prepared in {config.data_dir or DEFAULT_DIR}; prepare it with:{needed}'
        f' python -m artifacts_jax.prepare {config.name}{where} (or set data.data_dir to its folder)'
    )


def find_builder(name: str, data_dir: str = '') -> Any:
    """Returns the tfds builder of a data set that is prepared in a folder, or None if it is not prepared.

    Args:
      name: the tfds name of the data set.
      data_dir: the folder, '' for the default of tfds.

    Raises:
      DataError: `name` is not the name of a tfds data set, or the prepared files cannot be read.
    """
    if not NAME.fullmatch(name):
        if os.sep not in name:
            check_name(name)
        raise DataError(f'data.name={name}: it is not a folder, not a file and not the name of a tfds data set')
    tfds = import_tfds(name)
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        return None
    except Exception as error:  # several versions of the data set, an unknown version, or damaged files
        raise DataError(f'{name} in {data_dir or DEFAULT_DIR} cannot be read: {first_line(error)}') from error


def check_name(name: str) -> None:
    """Raises DataError if tfds has no data set of this name; the message suggests the nearest names."""
    tfds = import_tfds(name)
    with contextlib.suppress(ImportError):  # tfds needs TensorFlow to list its data sets
        host.hide_accelerators()
        known, base = [paths.PHOTOGRAPHS, *tfds.list_builders()], re.split('[/:]', name)[0]
        if base not in known:
            near = difflib.get_close_matches(base, known, n=3, cutoff=0.6)
            near = f'; did you mean {", ".join(near)}?' if near else ''
            raise DataError(
                f'data.name={name}: it is not a folder or file, and tfds has no data set of this name{near}'
            )


def import_tfds(name: str) -> Any:
    """Returns the module tensorflow_datasets, which does not import TensorFlow for reading.

    Args:
      name: of the data set, for the message.

    Raises:
      DataError: tensorflow_datasets is not installed.
    """
    try:
        import tensorflow_datasets as tfds
        import tensorflow_datasets.core.read_only_builder
    except ImportError as error:
        raise DataError(
            f'{name} needs tensorflow_datasets, which is not installed ({error}): install it, or provide the images as'
            f' a folder or as arrays, FOLDER/SPLIT.npz (docs/data.md)'
        ) from error
    return tfds


def compute_original_order(config: ConfigDict, split: str) -> Int[np.ndarray, ' N']:
    """Returns the index of each example of a split in the original files of the data set, in the order of reading.

    tfds shuffles data sets during preparation: it sorts the examples by the md5 of their keys, salted with the name of
    the split, and divides the sorted sequence into shards. The shards are read one after another, so the sequence does
    not depend on their number. The keys of STL-10 are the indices in train_X.bin and the other files, so its shuffle
    can be undone. For other data sets the order of reading counts as the original order.

    Args:
      config: the run's `config.data`.
      split: a split of the data set.

    Raises:
      DataError: `split` is a slice of a split of STL-10.
    """
    builder = load_builder(config)
    tfds = import_tfds(config.name)
    count = builder.info.splits[split].num_examples
    if builder.info.name != 'stl10':
        return np.arange(count)
    if split not in builder.info.splits:
        whole = ', '.join(builder.info.splits)
        raise DataError(f'{split!r}: the original order of STL-10 is only known for whole splits; use one of: {whole}')
    return np.array(sorted(range(count), key=tfds.core.hashing.Hasher(split).hash_key))


def _select_features(config, features):
    """Returns (key of the image feature, key of the label feature or '', class names)."""
    import tensorflow_datasets as tfds

    known = dict(features.items()) if hasattr(features, 'items') else {}
    kinds = ', '.join(f'{key} ({type(feature).__name__})' for key, feature in known.items())
    image, label = known.get(config.image_key), known.get(config.label_key)
    if not isinstance(image, tfds.features.Image) or image.np_dtype == np.float32:
        raise DataError(
            f'data.image_key={config.image_key}: {config.name} has no images in this feature; set it to one of: {kinds}'
        )
    if isinstance(label, tfds.features.ClassLabel):
        return config.image_key, config.label_key, tuple(label.names or map(str, range(label.num_classes or 0)))
    why = f'{config.label_key!r} is {type(label).__name__}' if label else f'it has no feature {config.label_key!r}'
    print(
        f'{config.name} is used without labels: {why}; if one of these features is a ClassLabel, set data.label_key to'
        f' it: {kinds}',
        flush=True,
    )
    return config.image_key, '', ()


def open_records(builder: Any, split: str) -> Sequence:
    """Returns the serialized examples of a split, from the fastest available format.

    Args:
      builder: the tfds builder of a prepared data set.
      split: the name of a split.

    Raises:
      DataError: the format of the files is not supported, or the files are damaged.
    """
    import tensorflow_datasets as tfds

    formats = _available_formats(builder)
    if formats & {'array_record', 'parquet'}:
        raw = tfds.core.decode.DeserializeMethod.RAW_BYTES
        try:
            return builder.as_data_source(split=split, deserialize_method=raw)
        except Exception as error:  # Parquet reads the whole split here
            raise DataError(f'split {split} in {builder.data_dir} is damaged: {first_line(error)}') from error
    if 'tfrecord' not in formats:
        raise DataError(
            f'{builder.info.name} in {builder.data_dir} is {", ".join(sorted(formats))}; expected array_record, parquet'
            f' or tfrecord'
        )
    info = builder.info.splits[split]
    return tfrecord.TFRecords(tuple(map(str, info.filepaths)), tuple(info.shard_lengths))


def _available_formats(builder):
    return {file_format.value for file_format in builder.info.available_file_formats()}
