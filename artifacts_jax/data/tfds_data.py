"""Data sets that tfds has prepared, read without TensorFlow, from array_record, Parquet or TFRecord files."""

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
DEFAULT = '~/tensorflow_datasets'  # where tfds keeps data sets
FILE_NAMES = ('file_name', 'filename', 'image/filename')  # features that name an example


@dataclasses.dataclass(frozen=True, eq=False)
class SerializedExamples:
    """The examples of a split as tfds has serialized them, of which nothing is opened before one is asked for."""

    built: Any  # the builder of the data set
    split: str

    @functools.cached_property
    def _records(self):
        return open_records(self.built, self.split)

    def __len__(self):
        return self.built.info.splits[self.split].num_examples

    def read(self, index: int, take: Callable) -> Any:
        """Returns take({key: tf.train.Feature}) of an example.

        Raises:
          DataError: the example's file is damaged, or its features are not what `take` finds in them.
        """
        from tensorflow_datasets.proto import tf_example_pb2

        try:
            return take(tf_example_pb2.Example.FromString(bytes(self._records[index])).features.feature)
        except DataError:
            raise
        except Exception as error:  # of Parquet, array_record and protobuf, which have no error in common
            place = f'split {self.split} in {self.built.data_dir}'
            raise DataError(f'a file of {place} is damaged, at example {index:,}: {error}') from error


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsSplit:
    """A split of a prepared data set of images, of which nothing is opened before an example is asked for."""

    examples: SerializedExamples
    image: str  # keys of the features
    label: str  # '' if there is none that can be used
    label_names: tuple[str, ...]

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        def take(features):
            (image,) = features[self.image].bytes_list.value
            label = features[self.label].int64_list.value[0] if self.label else -1
            names = (features[name].bytes_list.value for name in FILE_NAMES if name in features)
            name = next((value[0].decode(errors='replace') for value in names if value), f'example {index:,}')
            return Example(image, int(label), name)

        return self.examples.read(int(index), take)


def open_tfds(config: ConfigDict) -> dict[str, TfdsSplit]:
    """Opens a data set that tfds has prepared; no example is read.

    Args:
      config: the run's `config.data`.

    Raises:
      DataError: tfds has no such data set, it is not prepared, or has no images.
    """
    built = load_builder(config)
    image, label, names = _features(config, built.info.features)
    suggest_conversion(config, built)
    return {split: TfdsSplit(SerializedExamples(built, split), image, label, names) for split in built.info.splits}


def suggest_conversion(config: ConfigDict, built: Any) -> None:
    """Says what converts a data set that lies only in a form that is slow to open.

    Args:
      config: the run's `config.data`.
      built: the builder of the data set.
    """
    if {each.value for each in built.info.available_file_formats()} == {'tfrecord'}:
        print(
            f'{config.name} lies as TFRecord, of which each file is read through once to find its examples; what'
            f' converts it: python -m artifacts_jax.prepare {config.name}'
            + (f' --data_dir={config.data_dir}' if config.data_dir else ''),
            flush=True,
        )


def load_builder(config: ConfigDict) -> Any:
    """Returns the tfds builder of a prepared data set, made from its files alone.

    Args:
      config: the run's `config.data`.

    Raises:
      DataError: there is none, or it is not prepared.
    """
    if built := find_builder(config.name, config.data_dir):
        return built
    check_name(config.name)
    where = f' --data_dir={config.data_dir}' if config.data_dir else ''
    needed = '' if importlib.util.find_spec('tensorflow') else f' {host.TENSORFLOW} (preparing needs it), then:'
    raise DataError(
        f'{config.name} is not prepared in {config.data_dir or DEFAULT}; prepare it with:{needed}'
        f' python -m artifacts_jax.prepare {config.name}{where} (or set --config.data.data_dir to where it is)'
    )


def find_builder(name: str, data_dir: str = '') -> Any:
    """Returns the tfds builder of a data set that lies prepared in a folder ('': tfds's own), None if none does.

    Raises:
      DataError: it is no name of a data set, or what lies there cannot be read.
    """
    if not NAME.fullmatch(name):
        if os.sep not in name:
            check_name(name)
        raise DataError(f'there is no folder or file {name}, and it is no name of a tfds data set')
    tfds = import_tfds(f'{name} is read')
    try:
        return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        return None
    except Exception as error:  # in several places; of another version; files that are damaged
        raise DataError(f'{name} in {data_dir or DEFAULT} cannot be read: {first_line(error)}') from error


def check_name(name: str) -> None:
    """Raises DataError if tfds has no data set of this name, with the nearest that it has."""
    tfds = import_tfds(f'{name} is read')
    with contextlib.suppress(ImportError):  # it lists its data sets by TensorFlow
        host.hide_accelerators()
        known, base = [paths.PHOTOGRAPHS, *tfds.list_builders()], re.split('[/:]', name)[0]
        if base not in known:
            near = difflib.get_close_matches(base, known, n=3, cutoff=0.6)
            near = f'; near it: {", ".join(near)}' if near else ''
            raise DataError(f'there is no folder or file {name}, and tfds has no data set of this name{near}')


def import_tfds(what: str) -> Any:
    """Returns the module tensorflow_datasets, which does not import TensorFlow as long as it reads only.

    Raises:
      DataError: it is not installed; `what` says what for.
    """
    try:
        import tensorflow_datasets as tfds
        import tensorflow_datasets.core.read_only_builder
    except ImportError as error:
        raise DataError(
            f'{what} by tensorflow_datasets, which is not installed ({error}): install it, or give the images as a'
            f' folder or as arrays, FOLDER/SPLIT.npz (docs/data.md)'
        ) from error
    return tfds


def compute_original_order(config: ConfigDict, split: str) -> Int[np.ndarray, ' N']:
    """Returns where each example of a split, in the order read, stands in the data set's own files.

    tfds shuffles what it prepares: it sorts the examples by the md5 of their keys, salted with the split's name, and
    cuts the sorted sequence into shards. Read one shard after another, as here, it is the same sequence however many
    there are. The keys of tfds's STL-10 are the indices in train_X.bin and its like, so that its shuffle can be
    undone. Of any other data set the order read counts as the original.

    Args:
      config: the run's `config.data`.
      split: a split of the data set.

    Raises:
      DataError: only part of a split of STL-10 is asked for.
    """
    built = load_builder(config)
    tfds = import_tfds(config.name)
    count = built.info.splits[split].num_examples
    if built.info.name != 'stl10':
        return np.arange(count)
    if split not in built.info.splits:
        whole = ', '.join(built.info.splits)
        raise DataError(f'the original order of {split!r} of STL-10 is not known, but that of whole splits: {whole}')
    return np.array(sorted(range(count), key=tfds.core.hashing.Hasher(split).hash_key))


def _features(config, features):
    """Returns (key of the images, key of the labels or '', names of the classes)."""
    import tensorflow_datasets as tfds

    known = dict(features.items()) if hasattr(features, 'items') else {}
    kinds = ', '.join(f'{key} ({type(feature).__name__})' for key, feature in known.items())
    image, label = known.get(config.image_key), known.get(config.label_key)
    if not isinstance(image, tfds.features.Image) or image.np_dtype == np.float32:
        raise DataError(
            f'{config.name} has no images in the feature {config.image_key!r}; --config.data.image_key names another'
            f' of: {kinds}'
        )
    if isinstance(label, tfds.features.ClassLabel):
        return config.image_key, config.label_key, tuple(label.names or map(str, range(label.num_classes or 0)))
    why = f'{config.label_key!r} is {type(label).__name__}' if label else f'it has no feature {config.label_key!r}'
    print(
        f'{config.name} is used without labels: {why}; --config.data.label_key names a ClassLabel, if there is one'
        f' among: {kinds}',
        flush=True,
    )
    return config.image_key, '', ()


def open_records(built: Any, split: str) -> Sequence:
    """Returns the serialized examples of a split, from the best of the formats that are there.

    Args:
      built: the builder of a data set that is prepared.
      split: the name of a split.

    Raises:
      DataError: it is in none that is read.
    """
    import tensorflow_datasets as tfds

    formats = {each.value for each in built.info.available_file_formats()}
    if formats & {'array_record', 'parquet'}:
        raw = tfds.core.decode.DeserializeMethod.RAW_BYTES
        try:
            return built.as_data_source(split=split, deserialize_method=raw)
        except Exception as error:  # of Parquet, which reads all at once
            raise DataError(f'split {split} in {built.data_dir} is damaged: {first_line(error)}') from error
    if 'tfrecord' not in formats:
        raise DataError(f'{built.info.name} in {built.data_dir} is {", ".join(sorted(formats))}, which is not read')
    info = built.info.splits[split]
    return tfrecord.TFRecords(tuple(map(str, info.filepaths)), tuple(info.shard_lengths))
