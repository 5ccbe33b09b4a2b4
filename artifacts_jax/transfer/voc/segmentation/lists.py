"""The images that segmentation learns from and is tested on: lists of VOC12's, and beside them SBD's.

An image that both have comes once, with VOC's mask. None that is tested on may be among those that are learned from,
which would make the result worthless: SBD's train has many of VOC12's val. The one exception is said: the same list
for both.

The Semantic Boundaries Dataset has masks of 11,355 of VOC's images, as benchmark_RELEASE has them:

    dataset/img/NAME.jpg
            cls/NAME.mat      masks, in GTcls.Segmentation; or NAME.png, as others convert them
            train.txt         names, 8,498 of them; and val.txt

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

FOLDERS = ('img', 'cls')  # of SBD
MASKS = ('.mat', '.png')


class Lists(NamedTuple):
    """Records of images that have masks."""

    train: Sequence
    tests: dict[str, Sequence]  # by the names in config.data.test

    def images(self, config: ConfigDict) -> tuple[Images, dict[str, Images]]:
        """Returns (the images of training, those of each test)."""

        def of(records, name):
            return Images(**reading.make_options(config, records, f'{name} of {config.data.name}'))

        tests = {name: of(records, name) for name, records in self.tests.items()}
        return of(self.train, 'the images to learn from'), tests


def check(config: ConfigDict) -> None:
    """Raises ConfigError if there is nothing to learn from."""
    options = config.voc_segmentation
    if not options.voc and not options.sbd:
        raise ConfigError(
            'voc_segmentation.voc=False without voc_segmentation.sbd: there is nothing to learn from; name the folder'
            ' of SBD, benchmark_RELEASE'
        )


_ADVICE = {
    'voc': 'set data.probe_train and data.test to lists that share none, or to the same one to learn it by heart',
    'sbd': 'give a list without them, such as that of SBD, voc_segmentation.sbd_list=train_noval',
}


def open_lists(config: ConfigDict) -> Lists:
    """Returns the images of a configuration: of thousands the beginnings are read, and all masks.

    Raises:
      DataError: something is missing, is not what it should be, or is on both sides.
    """
    data, options = config.data, config.voc_segmentation
    train, folder = data.probe_train if options.voc else '', options.sbd
    tests = (data.test,) if Path(data.test).expanduser().is_file() else tuple(data.test.split('+'))
    splits = tuple(dict.fromkeys((*tests, train))) if train else tests
    found = devkit.open_voc(data.name, splits, lists='Segmentation')
    learned = {record.name: record for record in open_sbd(folder, options.sbd_list)} if folder else {}
    learned |= {record.name: record for record in found[train]} if train else {}
    for test in tests:
        common = [record.name for record in found[test] if record.name in learned]
        if common and test == train:
            slices.warn_of_overlap(learned, common, train=train, test=test)
        elif common:
            raise DataError(
                f'{len(common):,} of the {len(found[test]):,} images of {test} are among the {len(learned):,} to learn'
                f' from, such as {common[0]}: {_ADVICE["sbd" if folder else "voc"]}'
            )
    records.check_masks(
        tuple(learned.values()), f'the images to learn from of {data.name}', classes=2, workers=data.workers
    )
    for test in tests:
        records.check_masks(found[test], f'{test} of {data.name}', classes=1, workers=data.workers)
    return Lists(tuple(learned.values()), {test: found[test] for test in tests})


def open_sbd(name: str, split: str) -> tuple[records.Record, ...]:
    """Opens a list of images; no pixels are read, and of masks in .mat nothing.

    Args:
      name: the folder benchmark_RELEASE, or dataset in it.
      split: 'train', 'val' or another list there, or the path of a .txt.

    Returns:
      A Record of each image, without objects, in the order of the list.

    Raises:
      DataError: it is not there, or is not what it should be; the message names the first file that is not.
    """
    given = Path(name).expanduser()
    holds = [x for x in (given, given / 'dataset', given / 'benchmark_RELEASE' / 'dataset') if (x / 'img').is_dir()]
    if not holds:
        raise DataError(f'{name} holds no SBD: expected is benchmark_RELEASE, with dataset/img and dataset/cls in it')
    folder = holds[0]
    path = Path(split).expanduser() if split.endswith('.txt') else folder / f'{split}.txt'
    if not path.exists():
        there = ', '.join(sorted(x.stem for x in folder.glob('*.txt'))) or 'none'
        raise DataError(f'there is no list {path} of the images of {split!r}; there are: {there}')
    names = devkit.read_names(path)
    images, masks = (
        devkit.list_files(folder / place, suffixes) for place, suffixes in zip(FOLDERS, (decoding.SUFFIXES, MASKS))
    )
    for what, place, files in zip(('image', 'mask'), FOLDERS, (images, masks)):
        if missing := [name for name in names if name not in files]:
            raise DataError(
                f'{path}: {len(missing):,} of {len(names):,} images have no {what} in {folder / place}, such as'
                f' {missing[0]}'
            )
    return tuple(_record(name, images[name], masks[name]) for name in names)


def _record(name, image, mask):
    try:
        size = decoding.read_size(image)
    except decoding.UnusableError as error:
        raise DataError(f'{image}: {error}') from error
    if mask.suffix.lower() != '.mat':
        records.check_mask(mask, size)
    return records.Record(name, image, size, mask_file=mask, classes=1 + len(NAMES))
