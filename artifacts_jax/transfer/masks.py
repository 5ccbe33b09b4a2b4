"""What the images and masks of a split must have, before anything is learned from them or tested on them."""

import concurrent.futures
from collections.abc import Sequence

import numpy as np

from artifacts_jax.data import decoding
from artifacts_jax.data.errors import DataError
from artifacts_jax.devices import host
from artifacts_jax.transfer.voc.records import VOID

LOOKED_AT = 16  # images of a split at the most, until one can be used


def check_images(records: Sequence, place: str) -> None:
    """Raises DataError if none of some images of a split can be used.

    Args:
      records: with name and image().
      place: the split, for the message.
    """
    problems = []
    for row in np.unique(np.linspace(0, len(records) - 1, LOOKED_AT).astype(int)).tolist():
        record = records[row]
        try:
            record.image()
            return
        except decoding.UnusableError as error:
            problems.append(f'{record.name} ({error})')
    raise DataError(f'none of {len(problems):,} images of {place} can be used: {"; ".join(problems[:3])}')


def check(records: Sequence, place: str, *, classes: int, images: int = 1, workers: int = 0) -> None:
    """Reads all masks, but for those of damaged images, which are said when they are read.

    Args:
      records: with name, image() and mask().
      place: the split, for messages.
      classes: how many classes pixels must have.
      images: how many images must have pixels with a class.
      workers: threads, 0: as many as there are CPUs.

    Raises:
      DataError: a mask is not what it should be, no image can be used, or there are fewer classes or images.
    """
    check_images(records, place)

    def there(row):
        try:
            return set(np.bincount(records[row].mask().reshape(-1)).nonzero()[0].tolist()) - {VOID}
        except decoding.UnusableError:
            return set()

    with concurrent.futures.ThreadPoolExecutor(workers or host.cpus()) as pool:
        found = list(pool.map(there, range(len(records))))
    if (count := len(set().union(*found))) < classes:
        raise DataError(
            f'the pixels of {place} have {"one class" if count else "no class"}, expected {classes} or more; {VOID} is'
            f' none: where it stands for a class, write another value'
        )
    if (count := sum(map(bool, found))) < images:
        raise DataError(f'{count:,} images of {place} have pixels of a class, expected {images} or more')
