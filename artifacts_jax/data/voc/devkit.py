"""VOC opened, for whatever is learned from it: a VOCdevkit folder, or what tfds has prepared.

    VOCdevkit/VOC2007/Annotations/NAME.xml                  objects
                      ImageSets/Main/SPLIT.txt              the images of a split, or
                      ImageSets/Segmentation/SPLIT.txt      those of them that have masks
                      ImageSets/Main/CLASS_SPLIT.txt        labels, where there are such files
                      JPEGImages/NAME.jpg
                      SegmentationClass/NAME.png            masks

A split may also be the path of a .txt with names of images, such as seg11valid.txt, which VOC does not publish.

An image has a label of each class: by the lists of classes, as in the protocols, and else by its objects. Where the two
differ, a warning is printed. An image's own size counts, also where its annotation says another, and boxes are cut to
it.
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

NOT_SAID = -2  # what the lists of classes do not label


def open_voc(name: str, splits: Iterable[str], *, data_dir: str = '', lists: str = 'Main') -> Mapping[str, Sequence]:
    """Opens splits of VOC, and says what is odd about them; no pixels are read.

    Of a folder everything else is, so that what is wrong is found before work is done. With lists='Segmentation' every
    image has a mask, and need have no annotation: then it has no objects, and no label is known.

    Args:
      name: VOCdevkit, or a year's folder in it; or voc/2007 or voc/2012, as tfds has prepared them, without masks.
      splits: which of 'train', 'val', 'trainval' and 'test' are opened; of a folder, any that it has a list of, or the
        path of one.
      data_dir: where tfds keeps data sets, '' its own folder.
      lists: 'Main' or 'Segmentation', the folder of the lists of images.

    Returns:
      {split: Records}, of a folder in the order of the list.

    Raises:
      DataError: it is not there, or is not what it should be; the message names the first file that is not.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        year = _year(folder)
        return {split: _open(year, split, lists) for split in splits}
    if not re.fullmatch(tfds_data.NAME, name):
        raise DataError(
            f'there is no folder {name}; expected is VOCdevkit, or a folder in it, such as VOCdevkit/VOC2007, or'
            f' voc/2007 or voc/2012 as tfds prepares them'
        )
    if lists != 'Main':
        raise DataError(f'{name} has no masks as tfds prepares it: give the folder VOCdevkit/VOC{name[4:8] or 2012}')
    return tfds_data.open_tfds(name, splits, data_dir=data_dir)


def open_splits(config: ConfigDict, datasets: Datasets) -> dict[str, Sequence]:
    """Returns {split: Records} of data.probe_train and data.test, opened once in a run, and warns of common images.

    Args:
      config: the run's configuration.
      datasets: keep what is opened.

    Raises:
      DataError: as of open_voc, or no image of a split can be used.
    """
    data = config.data
    splits = train, test = data.probe_train, data.test

    def open_both():
        found = open_voc(data.name, splits, data_dir=data.data_dir)
        learned, tested = ([record.name for record in found[split]] for split in splits)
        slices.warn_of_overlap(learned, tested, train=train, test=test)
        for split in splits:
            records.check_images(found[split], f'{split} of {data.name}')
        return found

    return datasets.cache(('voc', data.name, splits, data.data_dir), open_both)


def check_positives(opened: dict[str, Sequence], name: str) -> None:
    """Raises DataError for a split in which no class is known to be there, which teaches and tests nothing.

    Args:
      opened: {split: Records}.
      name: of the data, for the message.
    """
    for split, images in opened.items():
        if not any((record.labels == 1).any() for record in images):
            raise DataError(
                f'{split} of {name}: none of its {len(images):,} images is known to have one of the classes (they have'
                f' no objects, or only difficult ones): name a split whose images have objects'
            )


def read_names(path: Path) -> list[str]:
    """Returns the names in a list of images, in its order.

    Raises:
      DataError: it cannot be read, is empty, has more than a name in a line, or names an image twice.
    """
    found = []
    for n, line in enumerate(read_lines(path), 1):
        words = line.split()
        if len(words) > 1:
            raise DataError(f'{path}, line {n}: is {line!r}, expected the name of an image')
        found += words
    if not found:
        raise DataError(f'{path}: names no image')
    if repeated := [name for name, count in collections.Counter(found).items() if count > 1]:
        raise DataError(f'{path}: names {repeated[0]} more than once')
    return found


def read_lines(path: Path) -> list[str]:
    """Returns the lines of a text file.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return path.read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'{path}: cannot be read as text ({error})') from error


def list_files(folder: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Returns {name without suffix: file} of a folder, the first by `suffixes` of those of one name."""
    found = {}
    rank = {suffix: n for n, suffix in enumerate(suffixes)}
    for file in os.listdir(folder) if folder.is_dir() else ():
        name, suffix = os.path.splitext(file)
        rival = found.get(name)
        if (place := rank.get(suffix.lower())) is not None and (rival is None or (place, file) < rival):
            found[name] = (place, file)
    return {name: folder / file for name, (_, file) in found.items()}


def _year(folder):
    """Returns the folder that has VOC's lists of images: a folder itself, or the only one in it."""
    if (folder / 'ImageSets').is_dir():
        return folder
    found = sorted(path.parent for pattern in ('*', 'VOCdevkit/*') for path in folder.glob(f'{pattern}/ImageSets'))
    if not found:
        raise DataError(
            f'{folder} has no ImageSets, nor has a folder in it: expected is VOCdevkit, as VOC is unpacked, or a'
            f" year's folder in it, with Annotations, ImageSets and JPEGImages"
        )
    if len(found) > 1:
        raise DataError(f'{folder} holds {", ".join(path.name for path in found)}: name one of them, {found[0]}')
    return found[0]


def _open(year, split, lists):
    """Returns the Records of a split of a year's folder."""
    listed, names = _listed(year, split, lists)
    images = list_files(year / 'JPEGImages', decoding.SUFFIXES)
    xml = list_files(year / 'Annotations', ('.xml',))
    masks = list_files(year / 'SegmentationClass', ('.png',))
    needed = {'image': ('JPEGImages', images)}
    needed |= {'annotation': ('Annotations', xml)} if lists == 'Main' else {'mask': ('SegmentationClass', masks)}
    for what, (place, files) in needed.items():
        if missing := [name for name in names if name not in files]:
            all_of = len(missing) == len(names) and what != 'image'
            raise DataError(
                f'{listed}: {len(missing):,} of {len(names):,} images have no {what} in {year / place}, such as'
                f' {missing[0]}{" (of some tests VOC publishes none: use another split)" if all_of else ""}'
            )
    published = _published(year, split, names) if lists == 'Main' else np.full((len(names), len(NAMES)), NOT_SAID)
    odd, opened = collections.defaultdict(list), []
    for name, said in zip(names, published):
        try:
            size = decoding.read_size(images[name])
        except decoding.UnusableError as error:
            raise DataError(f'{images[name]}: {error}') from error
        objects, labels = annotations.NO_OBJECTS, np.zeros(len(NAMES), np.int8)
        if name in xml:
            objects = _objects(xml[name], name, size, odd)
            labels = _labels(compute_labels(objects), said, name, odd)
        if name in masks:
            records.check_mask(masks[name], size)
        opened.append(Record(name, images[name], size, objects, labels, masks.get(name), 1 + len(NAMES)))
    for what, found in odd.items():
        print(f'warning: {listed}: {len(found):,} {what}, such as {found[0]}', file=sys.stderr, flush=True)
    return tuple(opened)


def _listed(year, split, lists):
    """Returns (the file, the names in it) of the images of a split; trainval is train and val where it has no file."""
    folder = year / 'ImageSets' / lists
    path = Path(split).expanduser() if split.endswith('.txt') else folder / f'{split}.txt'
    if split == 'trainval' and not path.exists() and all((folder / f'{x}.txt').exists() for x in ('train', 'val')):
        return path, [name for part in ('train', 'val') for name in _listed(year, part, lists)[1]]
    if not path.exists():
        there = sorted(x.stem for x in folder.glob('*.txt') if x.stem.rpartition('_')[0] not in NAMES)
        raise DataError(f'there is no list {path} of the images of {split!r}; there are: {", ".join(there) or "none"}')
    return path, read_names(path)


def _objects(path, name, size, odd):
    """Returns the objects of an image, inside it; adds to {what is odd: [name]}."""
    found, said = annotations.read_annotation(path)
    if said and said != size:
        odd["images have another size than their annotations say; the images' counts"].append(name)
    kept = annotations.clip_objects(found, size)
    if len(kept.labels) < len(found.labels):
        odd['images have objects wholly outside of them, which are left out'].append(name)
    elif not np.array_equal(kept.boxes, found.boxes):
        odd['images have boxes that reach outside of them, which are cut'].append(name)
    return kept


def _published(year, split, names):
    """Returns the labels of images in the lists of classes, int8 [N, 20], NOT_SAID where they are in none."""
    row = {name: n for n, name in enumerate(names)}
    published = np.full((len(names), len(NAMES)), NOT_SAID, np.int8)
    for label, of in enumerate(NAMES):
        path = year / 'ImageSets' / 'Main' / f'{of}_{split}.txt'
        for n, line in enumerate(read_lines(path) if path.exists() else (), 1):
            words = line.split()
            if words and (len(words) != 2 or words[1] not in ('-1', '0', '1')):
                raise DataError(f'{path}, line {n}: is {line!r}, expected the name of an image and -1, 0 or 1')
            if words and words[0] in row:
                published[row[words[0]], label] = int(words[1])
    return published


def _labels(labels, published, name, odd):
    """Returns an image's labels, by the lists of classes where they have it; adds to {what is odd: [name]}."""
    said = published != NOT_SAID
    if (labels != published)[said].any():
        odd['images have other labels in the lists of classes than by their objects; the lists count'].append(name)
    return np.where(said, published, labels).astype(np.int8)
