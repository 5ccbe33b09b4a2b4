"""Opens VOC for all VOC tasks: a VOCdevkit folder, or a data set prepared by tfds.

    VOCdevkit/VOC2007/Annotations/NAME.xml                  objects
                      ImageSets/Main/SPLIT.txt              the images of a split
                      ImageSets/Segmentation/SPLIT.txt      the images of a split that have masks
                      ImageSets/Main/CLASS_SPLIT.txt        labels of a class (optional)
                      JPEGImages/NAME.jpg
                      SegmentationClass/NAME.png            masks

A split can also be the path of a .txt file with names of images, such as seg11valid.txt, which VOC does not publish.

An image has one label for each class. Labels come from CLASS_SPLIT.txt, as in the published protocols, or else from the
objects. If the two differ, a warning is printed. If an annotation states another size than that of the image file, the
size of the file is used. Boxes are clipped to the image.
"""

import collections
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import decoding, slices
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.splits import Datasets
from artifacts_jax.data.voc import annotations, records, tfds_data
from artifacts_jax.data.voc.annotations import NAMES, compute_labels
from artifacts_jax.data.voc.records import Record

UNLISTED = -2  # label of an image that CLASS_SPLIT.txt does not list


def open_voc(name: str, splits: Iterable[str], *, data_dir: str = '', lists: str = 'Main') -> Mapping[str, Sequence]:
    """Returns the records of splits of VOC, and prints warnings about unusual annotations; reads no pixels.

    All files of a folder except the pixels are read and checked, so errors are found before any work is done. With
    lists='Segmentation' every image must have a mask. It may lack an annotation; then its objects and labels are
    unknown.

    Args:
      name: VOCdevkit, or the folder of a year in it; or voc/2007 or voc/2012 as prepared by tfds, without masks.
      splits: of 'train', 'val', 'trainval' and 'test'; for a folder, also the name or the path of any image list.
      data_dir: the folder of tfds data sets, '' for the default of tfds.
      lists: 'Main' or 'Segmentation', the folder of the image lists.

    Returns:
      {split: records}, in the order of the image list.

    Raises:
      DataError: a file does not exist or is invalid; the message names the first such file.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        year = _find_year(folder)
        return {split: _open(year, split, lists) for split in splits}
    if not re.fullmatch(tfds_data.NAME, name):
        raise DataError(
            f'data.name={name}: this folder does not exist; expected VOCdevkit, or a folder in it, such as'
            f' VOCdevkit/VOC2007, or the tfds data set voc/2007 or voc/2012'
        )
    if lists != 'Main':
        raise DataError(
            f'data.name={name}: the tfds data set has no masks; use the folder VOCdevkit/VOC{name[4:8] or 2012}'
        )
    return tfds_data.open_tfds(name, splits, data_dir=data_dir)


def open_splits(config: ConfigDict, datasets: Datasets) -> dict[str, Sequence]:
    """Returns {split: records} of data.probe_train and data.test, and warns if they overlap.

    Args:
      config: the run's configuration.
      datasets: of the run; they cache the records, so the splits are opened once.

    Raises:
      DataError: see open_voc; or none of the checked images of a split can be used.
    """
    data = config.data
    splits = train, test = data.probe_train, data.test

    def open_both():
        opened = open_voc(data.name, splits, data_dir=data.data_dir)
        train_ids, test_ids = ([record.name for record in opened[split]] for split in splits)
        slices.warn_of_overlap(train_ids, test_ids, train=train, test=test)
        for split in splits:
            records.check_images(opened[split], f'{split} of {data.name}')
        return opened

    return datasets.cache(('voc', data.name, splits, data.data_dir), open_both)


def check_positives(opened: dict[str, Sequence], name: str) -> None:
    """Raises DataError if a split has no positive label, because it is then useless for training and testing.

    Args:
      opened: {split: records}.
      name: of the data set, for the message.
    """
    for split, images in opened.items():
        if not any((record.labels == 1).any() for record in images):
            raise DataError(
                f'{split} of {name}: none of the {len(images):,} images has a positive label (they have no objects, or'
                f' only difficult ones); use a split whose images have objects'
            )


def read_names(path: Path) -> list[str]:
    """Returns the names in an image list, in its order.

    Raises:
      DataError: the list cannot be read, is empty, has more than one name in a line, or lists an image twice.
    """
    names = []
    for n, line in enumerate(read_lines(path), 1):
        words = line.split()
        if len(words) > 1:
            raise DataError(f'{path}, line {n}: is {line!r}; expected the name of an image')
        names += words
    if not names:
        raise DataError(f'{path}: lists no image')
    if repeated := [name for name, count in collections.Counter(names).items() if count > 1]:
        raise DataError(f'{path}: lists {repeated[0]} more than once')
    return names


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a UTF-8 text file.

    Raises:
      DataError: the file cannot be read.
    """
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: cannot be read as text ({error})') from error


def list_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Returns {name without suffix: path} of the files in a folder; for equal names, the first suffix is used."""
    files = {}
    rank = {suffix: n for n, suffix in enumerate(suffixes)}
    for file in os.listdir(folder) if folder.is_dir() else ():
        name, suffix = os.path.splitext(file)
        previous = files.get(name)
        if (order := rank.get(suffix.lower())) is not None and (previous is None or (order, file) < previous):
            files[name] = (order, file)
    return {name: folder / file for name, (_, file) in files.items()}


def _find_year(folder):
    """Returns the folder of a year, which contains ImageSets: the folder itself, or the only such folder in it."""
    if (folder / 'ImageSets').is_dir():
        return folder
    years = sorted(path.parent for pattern in ('*', 'VOCdevkit/*') for path in folder.glob(f'{pattern}/ImageSets'))
    if not years:
        raise DataError(
            f'{folder} and its subfolders have no ImageSets; expected VOCdevkit, as unpacked from the archives of VOC,'
            f' or the folder of a year in it, with Annotations, ImageSets and JPEGImages'
        )
    if len(years) > 1:
        raise DataError(
            f'{folder} has several years, {", ".join(path.name for path in years)}; set data.name to one, such as'
            f' {years[0]}'
        )
    return years[0]


def _open(year, split, lists):
    """Returns the records of a split in the folder of a year."""
    list_file, names = _read_list(year, split, lists)
    images = list_files(year / 'JPEGImages', decoding.SUFFIXES)
    xml = list_files(year / 'Annotations', ('.xml',))
    masks = list_files(year / 'SegmentationClass', ('.png',))
    required = {'image': ('JPEGImages', images)}
    required |= {'annotation': ('Annotations', xml)} if lists == 'Main' else {'mask': ('SegmentationClass', masks)}
    for kind, (subfolder, files) in required.items():
        if missing := [name for name in names if name not in files]:
            is_unpublished = len(missing) == len(names) and kind != 'image'
            raise DataError(
                f'{list_file}: {len(missing):,} of {len(names):,} images have no {kind} in {year / subfolder}, such as'
                f' {missing[0]}{" (VOC publishes none for some splits; use another split)" if is_unpublished else ""}'
            )
    published = _read_labels(year, split, names) if lists == 'Main' else np.full((len(names), len(NAMES)), UNLISTED)
    warnings, opened = collections.defaultdict(list), []
    for name, listed in zip(names, published):
        try:
            size = decoding.read_size(images[name])
        except decoding.UnusableError as error:
            raise DataError(f'{images[name]}: {error}') from error
        objects, labels = annotations.NO_OBJECTS, np.zeros(len(NAMES), np.int8)
        if name in xml:
            objects = _read_objects(xml[name], name, size, warnings)
            labels = _merge_labels(compute_labels(objects), listed, name, warnings)
        if name in masks:
            records.check_mask(masks[name], size)
        opened.append(Record(name, images[name], size, objects, labels, masks.get(name), 1 + len(NAMES)))
    for what, images in warnings.items():
        print(f'warning: {list_file}: {len(images):,} {what}, such as {images[0]}', file=sys.stderr, flush=True)
    return tuple(opened)


def _read_list(year, split, lists):
    """Returns (path, names) of the image list of a split; without a list, trainval is train and val."""
    folder = year / 'ImageSets' / lists
    path = Path(split).expanduser() if split.endswith('.txt') else folder / f'{split}.txt'
    if split == 'trainval' and not path.exists() and all((folder / f'{x}.txt').exists() for x in ('train', 'val')):
        return path, [name for half in ('train', 'val') for name in _read_list(year, half, lists)[1]]
    if not path.exists():
        others = sorted(x.stem for x in folder.glob('*.txt') if x.stem.rpartition('_')[0] not in NAMES)
        raise DataError(
            f'the image list {path} of {split!r} does not exist; the lists are: {", ".join(others) or "none"}'
        )
    return path, read_names(path)


def _read_objects(path, name, size, warnings):
    """Returns the objects of an image, clipped to it; adds to warnings, {text: [name]}."""
    objects, stated_size = annotations.read_annotation(path)
    if stated_size and stated_size != size:
        warnings['images have another size than their annotations state; the size of the image is used'].append(name)
    clipped = annotations.clip_objects(objects, size)
    if len(clipped.labels) < len(objects.labels):
        warnings['images have objects completely outside of the image, which are ignored'].append(name)
    elif not np.array_equal(clipped.boxes, objects.boxes):
        warnings['images have boxes partly outside of the image, which are clipped'].append(name)
    return clipped


def _read_labels(year, split, names):
    """Returns the labels in the files CLASS_SPLIT.txt, int8 [N, 20], UNLISTED for images that they do not list."""
    row = {name: n for n, name in enumerate(names)}
    published = np.full((len(names), len(NAMES)), UNLISTED, np.int8)
    for label, class_name in enumerate(NAMES):
        path = year / 'ImageSets' / 'Main' / f'{class_name}_{split}.txt'
        for n, line in enumerate(read_lines(path) if path.exists() else (), 1):
            words = line.split()
            if words and (len(words) != 2 or words[1] not in ('-1', '0', '1')):
                raise DataError(f'{path}, line {n}: is {line!r}; expected the name of an image and -1, 0 or 1')
            if words and words[0] in row:
                published[row[words[0]], label] = int(words[1])
    return published


def _merge_labels(labels, published, name, warnings):
    """Returns the labels of an image, those of CLASS_SPLIT.txt if they exist; adds to warnings, {text: [name]}."""
    is_listed = published != UNLISTED
    if (labels != published)[is_listed].any():
        warnings['images have labels in CLASS_SPLIT.txt that differ from their objects; the files are used'].append(
            name
        )
    return np.where(is_listed, published, labels).astype(np.int8)
