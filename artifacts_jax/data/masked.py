"""Opens data sets for semantic segmentation: images with a class for each pixel (segmentation masks).

| source | layout |
|---|---|
| VOCdevkit/VOC2012 | with ImageSets/Segmentation; see voc/devkit.py |
| a folder | FOLDER/images/SPLIT/.../NAME.jpg, with FOLDER/masks/SPLIT/.../NAME.png or FOLDER/annotations/... |
| a tfds data set | with masks as a feature, such as oxford_iiit_pet |
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

MASKS = ('masks', 'annotations')  # names of the folder with the masks
VOC_NAMES = ('background', *annotations.NAMES)


class Splits(NamedTuple):
    """The training and test images of a configuration."""

    train: Sequence  # of records: name, read_image() and read_mask()
    test: Sequence
    names: tuple[str, ...]  # class names; () if they are unknown
    ids: tuple[Sequence, Sequence]  # identifiers of the images of train and test, to find an overlap


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsRecords(Sequence):
    """The records of a tfds split; a record is read when it is indexed."""

    examples: tfds_data.SerializedExamples
    image: str  # key of the image feature
    mask: str  # key of the mask feature
    rows: range  # indices in the split

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return dataclasses.replace(self, rows=self.rows[index])
        row = self.rows[index]

        def parse(features):
            files = {key: list(features[key].bytes_list.value) for key in (self.image, self.mask)}
            for key, value in files.items():
                if len(value) != 1:
                    raise DataError(
                        f'the feature {key!r} is not an image: set segmentation_probe.mask_key or data.image_key'
                    )
            image, mask = (value[0] for value in files.values())
            return Record(f'example {row:,} of {self.examples.split}', image, mask_file=mask)

        return self.examples.read(row, parse)


def open_splits(config: ConfigDict) -> Splits:
    """Returns the splits data.probe_train and data.test; reads no image.

    Args:
      config: the run's configuration.

    Raises:
      DataError: the data set or a split does not exist, or an image has no mask.
    """
    data, path = config.data, paths.locate(config.data)
    requested = {split: slices.split_name(split) for split in (data.probe_train, data.test)}
    names = ()
    if path is None:
        records = _open_tfds(config, set(requested.values()))
    elif (path / 'images').is_dir():
        records = _open_folder(path, set(requested.values()))
    else:
        records = devkit.open_voc(data.name, tuple(dict.fromkeys(requested.values())), lists='Segmentation')
        names = VOC_NAMES
    splits, ids = [], []
    for split in (data.probe_train, data.test):
        name, whole = requested[split], records[requested[split]]
        first, end = slices.compute_bounds(split, len(whole), data_name=data.name)
        splits.append(whole[first:end])
        ids.append([record.name for record in splits[-1]] if names else [(name, row) for row in range(first, end)])
    return Splits(splits[0], splits[1], names, (ids[0], ids[1]))


def _open_folder(folder, splits):
    """Returns {split: records} of a folder with images and masks."""
    masks = next((folder / name for name in MASKS if (folder / name).is_dir()), None)
    if masks is None:
        raise DataError(f'{folder} has images, but no masks: expected {folder}/masks/SPLIT/NAME.png')
    records = {}
    for split in splits:
        if not (folder / 'images' / split).is_dir():
            names = ', '.join(sorted(x.name for x in (folder / 'images').iterdir() if x.is_dir())) or 'none'
            raise DataError(f'{folder}/images has no split {split!r}; it has: {names}')
        images = folders.list_images(folder / 'images' / split)
        mask_paths = {image: _find_mask(masks / split / image) for image in images}
        ((mask, count),) = collections.Counter(mask_paths.values()).most_common(1)
        if count > 1:
            raise DataError(f'{count} images of {split} have the same mask {mask}: give each image its own name')
        if missing := [path for path in mask_paths.values() if not path.is_file()]:
            raise DataError(
                f'{len(missing):,} of {len(images):,} images of {split} have no mask, such as {missing[0]}: add the'
                f' mask, or remove the image'
            )
        records[split] = [
            Record(name, folder / 'images' / split / name, mask_file=path) for name, path in mask_paths.items()
        ]
    return records


def _find_mask(image):
    """Returns the path of the mask for the path of an image inside the folder of masks."""
    path = image.with_suffix('.png')
    return path if path.is_file() or not path.with_suffix('.PNG').is_file() else path.with_suffix('.PNG')


def _open_tfds(config, splits):
    """Returns {split: records} of a tfds data set."""
    builder: Any = tfds_data.load_builder(config.data)
    image, mask = config.data.image_key, config.segmentation_probe.mask_key
    if mask not in builder.info.features:
        raise DataError(
            f'segmentation_probe.mask_key={mask}: {config.data.name} has no such feature; expected one of:'
            f' {", ".join(sorted(builder.info.features))}'
        )
    if missing := [split for split in splits if split not in builder.info.splits]:
        raise DataError(f'{config.data.name} has no split {missing[0]!r}; it has: {", ".join(builder.info.splits)}')
    tfds_data.suggest_conversion(config.data, builder)
    examples = {split: tfds_data.SerializedExamples(builder, split) for split in splits}
    return {split: TfdsRecords(whole, image, mask, range(len(whole))) for split, whole in examples.items()}
