"""The Semantic Boundaries Dataset, masks of 11,355 of VOC's images, as benchmark_RELEASE has them.

    dataset/img/NAME.jpg
            cls/NAME.mat      masks, in GTcls.Segmentation; or NAME.png, as others convert them
            train.txt         names, 8,498 of them; and val.txt

Source: Hariharan et al., "Semantic contours from inverse detectors", ICCV 2011.
"""

from pathlib import Path

import numpy as np

from artifacts_jax.data import decoding
from artifacts_jax.data.errors import DataError
from artifacts_jax.transfer.voc import annotations, listings, records
from artifacts_jax.transfer.voc.annotations import NAMES

FOLDERS = ('img', 'cls')
MASKS = ('.mat', '.png')


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
    names = listings.names(path)
    images, masks = (
        listings.files(folder / place, suffixes) for place, suffixes in zip(FOLDERS, (decoding.SUFFIXES, MASKS))
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
        size = decoding.shape(image)
    except decoding.UnusableError as error:
        raise DataError(f'{image}: {error}') from error
    if mask.suffix.lower() != '.mat':
        records.check_mask(mask, size)
    return records.Record(name, size, annotations.objects([]), np.zeros(len(NAMES), np.int8), image, mask)
