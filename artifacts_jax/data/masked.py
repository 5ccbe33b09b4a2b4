"""Images whose pixels have classes, whatever holds them.

VOCdevkit/VOC2012                  with ImageSets/Segmentation; see voc/devkit.py
FOLDER/images/SPLIT/.../NAME.jpg   and of each FOLDER/masks/SPLIT/.../NAME.png; `annotations` is as good as `masks`
a tfds data set                    with masks as a feature, such as oxford_iiit_pet
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from artifacts_jax.data import folders, paths, slices, tfds_data
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import annotations, devkit
from artifacts_jax.data.voc.records import Record

MASKS = ('masks', 'annotations')


class Splits(NamedTuple):
    """What a configuration learns from and is tested on."""

    train: Sequence  # of records: name, read_image() and read_mask()
    test: Sequence
    names: tuple[str, ...]  # of the classes; () where nobody says them
    keys: tuple[Sequence, Sequence]  # tell the images of train, and those of test, apart from all others


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsRecords(Sequence):
    """Images of a tfds split; each is read when it is asked for."""

    examples: tfds_data.SerializedExamples
    image: str  # keys of the features
    mask: str
    rows: range  # of the split

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return dataclasses.replace(self, rows=self.rows[index])
        row = self.rows[index]

        def take(features):
            found = {key: list(features[key].bytes_list.value) for key in (self.image, self.mask)}
            for key, value in found.items():
                if len(value) != 1:
                    raise DataError(
                        f'the feature {key!r} is no picture: set segmentation_probe.mask_key or data.image_key'
                    )
            image, mask = (value[0] for value in found.values())
            return Record(f'example {row:,} of {self.examples.split}', image, mask_file=mask)

        return self.examples.read(row, take)


def open_splits(config: ConfigDict) -> Splits:
    """Opens the splits data.probe_train and data.test.

    Args:
      config: the run's configuration.

    Raises:
      DataError: there is no such data set or split, or an image has no mask.
    """
    data, path = config.data, paths.locate(config.data)
    asked = {split: slices.split_name(split) for split in (data.probe_train, data.test)}
    names = ()
    if path is None:
        found = _of_tfds(config, set(asked.values()))
    elif (path / 'images').is_dir():
        found = _of_folder(path, set(asked.values()))
    else:
        found, names = devkit.open_voc(data.name, tuple(dict.fromkeys(asked.values())), lists='Segmentation'), _VOC
    splits, keys = [], []
    for split in (data.probe_train, data.test):
        name, whole = asked[split], found[asked[split]]
        first, end = slices.compute_bounds(split, len(whole), place=data.name)
        splits.append(whole[first:end])
        keys.append([record.name for record in splits[-1]] if names else [(name, row) for row in range(first, end)])
    return Splits(splits[0], splits[1], names, (keys[0], keys[1]))


_VOC = ('background', *annotations.NAMES)


def _of_folder(folder, splits):
    """Returns {split: records}."""
    masks = next((folder / name for name in MASKS if (folder / name).is_dir()), None)
    if masks is None:
        raise DataError(f'{folder} has images, but no masks: expected are {folder}/masks/SPLIT/NAME.png')
    found = {}
    for split in splits:
        if not (folder / 'images' / split).is_dir():
            there = ', '.join(sorted(x.name for x in (folder / 'images').iterdir() if x.is_dir())) or 'none'
            raise DataError(f'{folder}/images has no split {split!r}; there are: {there}')
        images = folders.list_images(folder / 'images' / split)
        paths = {image: _mask(masks / split / image) for image in images}
        ((mask, times),) = collections.Counter(paths.values()).most_common(1)
        if times > 1:
            raise DataError(f'{times} images of {split} have one mask, {mask}: name each image and its mask otherwise')
        if missing := [path for path in paths.values() if not path.is_file()]:
            raise DataError(
                f'{len(missing):,} of {len(images):,} images of {split} have no mask, such as {missing[0]}: add it, or'
                f' take the image away'
            )
        found[split] = [Record(name, folder / 'images' / split / name, mask_file=path) for name, path in paths.items()]
    return found


def _mask(image):
    """Returns the path of an image's mask, given that of the image in the folder of masks."""
    path = image.with_suffix('.png')
    return path if path.is_file() or not path.with_suffix('.PNG').is_file() else path.with_suffix('.PNG')


def _of_tfds(config, splits):
    """Returns {split: records}."""
    built: Any = tfds_data.load_builder(config.data)
    image, mask = config.data.image_key, config.segmentation_probe.mask_key
    if mask not in built.info.features:
        raise DataError(
            f'{config.data.name} has no masks {mask!r}; it has {", ".join(sorted(built.info.features))}: set'
            f' segmentation_probe.mask_key'
        )
    if missing := [split for split in splits if split not in built.info.splits]:
        raise DataError(f'{config.data.name} has no split {missing[0]!r}; there are: {", ".join(built.info.splits)}')
    tfds_data.suggest_conversion(config.data, built)
    examples = {split: tfds_data.SerializedExamples(built, split) for split in splits}
    return {split: TfdsRecords(each, image, mask, range(len(each))) for split, each in examples.items()}
