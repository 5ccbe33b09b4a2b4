"""The images that segmentation learns from and is tested on: lists of VOC12's, and beside them SBD's.

An image that both have comes once, with VOC's mask. None that is tested on may be among those that are learned from,
which would make the result worthless: SBD's train has many of VOC12's val. The one exception is said: the same list
for both.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.data import parts
from artifacts_jax.data.errors import DataError
from artifacts_jax.transfer import masks
from artifacts_jax.transfer.voc import devkit
from artifacts_jax.transfer.voc.segmentation import sbd


class Lists(NamedTuple):
    """Records of images that have masks."""

    train: Sequence
    tests: dict[str, Sequence]  # by the names in config.data.test


def opened(config: ConfigDict) -> Lists:
    """Returns the images of a configuration, once: of thousands the beginnings are read, and all masks.

    Raises:
      DataError: something is missing, is not what it should be, or is on both sides.
    """
    data, options = config.data, config.voc_segmentation
    train = data.probe_train if options.voc else ''
    tests = (data.test,) if Path(data.test).expanduser().is_file() else tuple(data.test.split('+'))
    return _opened(data.name, train, tests, options.sbd, options.sbd_list, data.workers)


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


@functools.lru_cache(maxsize=1)
def _opened(name, train, tests, folder, listed, workers):
    splits = tuple(dict.fromkeys((*tests, train))) if train else tests
    found = devkit.open_voc(name, splits, lists='Segmentation')
    learned = {record.name: record for record in sbd.open_sbd(folder, listed)} if folder else {}
    learned |= {record.name: record for record in found[train]} if train else {}
    for test in tests:
        common = [record.name for record in found[test] if record.name in learned]
        if common and test == train:
            parts.warn_of_common(learned, common, train=train, test=test)
        elif common:
            raise DataError(
                f'{len(common):,} of the {len(found[test]):,} images of {test} are among the {len(learned):,} to learn'
                f' from, such as {common[0]}: {_ADVICE["sbd" if folder else "voc"]}'
            )
    masks.check(tuple(learned.values()), f'the images to learn from of {name}', classes=2, workers=workers)
    for test in tests:
        masks.check(found[test], f'{test} of {name}', classes=1, workers=workers)
    return Lists(tuple(learned.values()), {test: found[test] for test in tests})
