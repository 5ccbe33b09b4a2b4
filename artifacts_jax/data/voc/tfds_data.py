"""Reads VOC as prepared by tfds, voc/2007 and voc/2012, without TensorFlow. It has no masks."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float32, Float64
from ml_collections import ConfigDict

from artifacts_jax.data import decoding
from artifacts_jax.data import tfds_data as tfds
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import annotations
from artifacts_jax.data.voc.records import Record

NAME = r'voc(/[\w.+-]+)?(:[\w.*]+)?'
SPLITS = {'train': ('train',), 'val': ('validation',), 'trainval': ('train', 'validation'), 'test': ('test',)}
TOLERANCE = 1e-3  # rounding errors of float32, pixels


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsRecords(Sequence):
    """The records of one split or of several concatenated splits; a record is read when it is indexed."""

    splits: tuple[tfds.SerializedExamples, ...]

    def __len__(self):
        return sum(map(len, self.splits))

    def __getitem__(self, index):
        if not 0 <= index < len(self):  # also ends iteration
            raise IndexError(f'{index} of {len(self)} images')
        for examples in self.splits:
            if index < len(examples):
                return examples.read(int(index), _parse)
            index -= len(examples)


def open_tfds(name: str, splits: Iterable[str], *, data_dir: str = '') -> dict[str, TfdsRecords]:
    """Returns {split: records} of splits that tfds has prepared; reads no example.

    Args:
      name: voc/2007 or voc/2012.
      splits: keys of SPLITS.
      data_dir: the folder of tfds data sets, '' for the default of tfds.

    Raises:
      DataError: the data set is not prepared, a split does not exist, or it has no annotations.
    """
    config = ConfigDict({'name': name, 'data_dir': data_dir})
    builder = tfds.load_builder(config)
    try:
        names = builder.info.features['objects']['label'].names
    except (KeyError, TypeError, AttributeError):  # another data set
        names = []
    if names != list(annotations.NAMES):
        raise DataError(f'{name} in {builder.data_dir} does not have the 20 classes of VOC: prepare it again')
    records = {}
    for split in splits:
        if missing := [stored for stored in SPLITS.get(split, (split,)) if stored not in builder.info.splits]:
            raise DataError(f'{name} has no split {missing[0]!r}; expected one of: {", ".join(SPLITS)}')
        if split == 'test' and builder.info.config_name == '2012':
            raise DataError(f'{name}: VOC does not publish the annotations of its split test; use val')
        records[split] = TfdsRecords(tuple(tfds.SerializedExamples(builder, stored) for stored in SPLITS[split]))
    tfds.suggest_conversion(config, builder)
    return records


def _parse(features):
    (image,) = features['image'].bytes_list.value
    (file,) = features['image/filename'].bytes_list.value
    name = file.decode(errors='replace').removesuffix('.jpg')
    try:
        size = decoding.read_size(image)
    except decoding.UnusableError as error:
        raise DataError(f'image {name} of VOC: {error}') from error
    labels, difficult, truncated = (
        np.array(features[f'objects/{key}'].int64_list.value, dtype)
        for key, dtype in (('label', np.int32), ('is_difficult', bool), ('is_truncated', bool))
    )
    stored = np.array(features['objects/bbox'].float_list.value, np.float32).reshape(-1, 4)
    objects = annotations.clip_objects(annotations.Objects(labels, to_pixels(stored, size), difficult, truncated), size)
    return Record(name, image, size, objects, annotations.compute_labels(objects))


def to_pixels(
    boxes: Float32[np.ndarray, 'N 4'] | Float64[np.ndarray, 'N 4'], size: tuple[int, int]
) -> Float32[np.ndarray, 'N 4']:
    """Returns boxes in VOC's format, x1 y1 x2 y2 in pixels counted from 1.

    tfds divides VOC's coordinates, which count from 1, by the sides of the image. Almost whole numbers are rounded.

    Args:
      boxes: y1 x1 y2 x2, as fractions of the sides of the image.
      size: (height, width) of the image, pixels.
    """
    height, width = size
    scaled = boxes.astype(np.float64)[:, [1, 0, 3, 2]] * (width, height, width, height)
    whole = np.rint(scaled)
    return np.where(np.abs(scaled - whole) < TOLERANCE, whole, scaled).astype(np.float32)
