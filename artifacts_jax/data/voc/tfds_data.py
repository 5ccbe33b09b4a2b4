"""VOC as tfds prepares it, voc/2007 and voc/2012, read without TensorFlow. It has no masks."""

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
NEAR = 1e-3  # pixels from a whole number that are float32's


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsRecords(Sequence):
    """The images of a split, or of several, one after another; each is read when it is asked for."""

    parts: tuple[tfds.SerializedExamples, ...]

    def __len__(self):
        return sum(map(len, self.parts))

    def __getitem__(self, index):
        if not 0 <= index < len(self):  # also ends an iteration
            raise IndexError(f'{index} of {len(self)} images')
        for part in self.parts:
            if index < len(part):
                return part.read(int(index), _record)
            index -= len(part)


def open_tfds(name: str, splits: Iterable[str], *, data_dir: str = '') -> dict[str, TfdsRecords]:
    """Opens splits that tfds has prepared; no example is read.

    Args:
      name: voc/2007 or voc/2012.
      splits: which of SPLITS.
      data_dir: where tfds keeps data sets, '' its own folder.

    Raises:
      DataError: it is not prepared, there is no such split, or it has no annotations.
    """
    config = ConfigDict({'name': name, 'data_dir': data_dir})
    built = tfds.load_builder(config)
    try:
        names = built.info.features['objects']['label'].names
    except (KeyError, TypeError, AttributeError):  # of another data set
        names = []
    if names != list(annotations.NAMES):
        raise DataError(f"{name} in {built.data_dir} has not the objects of VOC's 20 classes: prepare it anew")
    opened = {}
    for split in splits:
        if missing := [part for part in SPLITS.get(split, (split,)) if part not in built.info.splits]:
            raise DataError(f'{name} has no split {missing[0]!r}; expected of {split!r}: {", ".join(SPLITS)}')
        if split == 'test' and built.info.config_name == '2012':
            raise DataError(f'{name}: VOC publishes no annotations of its split test: use val')
        opened[split] = TfdsRecords(tuple(tfds.SerializedExamples(built, part) for part in SPLITS[split]))
    tfds.suggest_conversion(config, built)
    return opened


def _record(features):
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
    """Returns boxes as VOC has them, x1 y1 x2 y2 in pixels counted from 1.

    tfds divides VOC's numbers by the image's sides, from 1 as they are. What comes next to a whole number was one.

    Args:
      boxes: y1 x1 y2 x2, as parts of the image's sides.
      size: the image's (height, width).
    """
    height, width = size
    scaled = boxes.astype(np.float64)[:, [1, 0, 3, 2]] * (width, height, width, height)
    whole = np.rint(scaled)
    return np.where(np.abs(scaled - whole) < NEAR, whole, scaled).astype(np.float32)
