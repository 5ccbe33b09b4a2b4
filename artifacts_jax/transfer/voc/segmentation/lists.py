"""The training and test images of segmentation: image lists of VOC2012 and of SBD.

An image in both lists is used once, with VOC's mask. Training and test images must not overlap, because the result
would be worthless: SBD's train contains many images of VOC2012's val. The only exception is the same list for training
and test, which prints a warning.

The Semantic Boundaries Dataset (SBD) has masks for 11,355 of VOC's images, in the folder benchmark_RELEASE:

    dataset/img/NAME.jpg
            cls/NAME.mat      masks, in GTcls.Segmentation; converted NAME.png files are also accepted
            train.txt         8,498 image names; val.txt has the others

Source: Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import decoding, reading, slices
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import devkit, records
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.transfer.voc.segmentation.batches import Images

FOLDERS = ('img', 'cls')  # of SBD: images, masks
MASKS = ('.mat', '.png')


class Lists(NamedTuple):
    """Records of the images with masks."""

    train: Sequence
    tests: dict[str, Sequence]  # {list name in config.data.test: records}

    def images(self, config: ConfigDict) -> tuple[Images, dict[str, Images]]:
        """Returns (the training images, {list name: test images})."""

        def make_images(records, name):
            return Images(**reading.make_options(config, records, f'{name} of {config.data.name}'))

        tests = {name: make_images(records, name) for name, records in self.tests.items()}
        return make_images(self.train, 'the training images'), tests


def check(config: ConfigDict) -> None:
    """Raises ConfigError if the configuration has no training images."""
    options = config.voc_segmentation
    if not options.voc and not options.sbd:
        raise ConfigError(
            'voc_segmentation.voc=False without voc_segmentation.sbd: there are no training images; set'
            ' voc_segmentation.sbd to the folder of SBD, benchmark_RELEASE'
        )


_ADVICE = {
    'voc': 'set data.probe_train and data.test to lists without common images, or to the same list to test overfitting',
    'sbd': "use a training list without them, such as SBD's train_noval: voc_segmentation.sbd_list=train_noval",
}


def open_lists(config: ConfigDict) -> Lists:
    """Returns the records of the configured lists, after reading the headers of all images, and all masks.

    Raises:
      DataError: a file is missing or invalid, or training and test images overlap.
    """
    data, options = config.data, config.voc_segmentation
    train, folder = data.probe_train if options.voc else '', options.sbd
    tests = (data.test,) if Path(data.test).expanduser().is_file() else tuple(data.test.split('+'))
    splits = tuple(dict.fromkeys((*tests, train))) if train else tests
    voc = devkit.open_voc(data.name, splits, lists='Segmentation')
    train_records = {record.name: record for record in open_sbd(folder, options.sbd_list)} if folder else {}
    train_records |= {record.name: record for record in voc[train]} if train else {}
    for test in tests:
        common = [record.name for record in voc[test] if record.name in train_records]
        if common and test == train:
            slices.warn_of_overlap(train_records, common, train=train, test=test)
        elif common:
            raise DataError(
                f'{len(common):,} of the {len(voc[test]):,} test images of {test} are also among the'
                f' {len(train_records):,} training images, such as {common[0]}: {_ADVICE["sbd" if folder else "voc"]}'
            )
    all_train = tuple(train_records.values())
    records.check_masks(all_train, f'the training images of {data.name}', classes=2, workers=data.workers)
    for test in tests:
        records.check_masks(voc[test], f'{test} of {data.name}', classes=1, workers=data.workers)
    return Lists(all_train, {test: voc[test] for test in tests})


def open_sbd(name: str, split: str) -> tuple[records.Record, ...]:
    """Returns the records of an image list of SBD, in the order of the list.

    Only the headers of images and of PNG masks are read. The records have no objects.

    Args:
      name: the folder benchmark_RELEASE, or the folder dataset in it.
      split: 'train', 'val' or another list in the folder, or the path of a .txt file.

    Raises:
      DataError: a file is missing or invalid; the message names the first one.
    """
    root = Path(name).expanduser()
    candidates = [root, root / 'dataset', root / 'benchmark_RELEASE' / 'dataset']
    folders = [candidate for candidate in candidates if (candidate / 'img').is_dir()]
    if not folders:
        raise DataError(f'{name} does not contain SBD: expected benchmark_RELEASE, with dataset/img and dataset/cls')
    folder = folders[0]
    path = Path(split).expanduser() if split.endswith('.txt') else folder / f'{split}.txt'
    if not path.exists():
        lists = ', '.join(sorted(x.stem for x in folder.glob('*.txt'))) or 'none'
        raise DataError(f'{split!r}: there is no image list {path}; the folder has these lists: {lists}')
    names = devkit.read_names(path)
    images, masks = (
        devkit.list_files(folder / subfolder, suffixes)
        for subfolder, suffixes in zip(FOLDERS, (decoding.SUFFIXES, MASKS))
    )
    for kind, subfolder, files in zip(('image', 'mask'), FOLDERS, (images, masks)):
        if missing := [name for name in names if name not in files]:
            raise DataError(
                f'{path}: {len(missing):,} of {len(names):,} names have no {kind} in {folder / subfolder}, such as'
                f' {missing[0]}'
            )
    return tuple(_make_record(name, images[name], masks[name]) for name in names)


def _make_record(name, image, mask):
    try:
        size = decoding.read_size(image)
    except decoding.UnusableError as error:
        raise DataError(f'{image}: {error}') from error
    if mask.suffix.lower() != '.mat':
        records.check_mask(mask, size)
    return records.Record(name, image, size, mask_file=mask, classes=1 + len(NAMES))
