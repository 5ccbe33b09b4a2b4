"""Splits that files list: FOLDER/train.csv names the images of FOLDER that it has, and their classes.

    a/abbey/0001.jpg 0
    b/barn/my barn.jpg 12

A line is a path below FOLDER and a label, which comes last. Between them stand tabs if every line has one, else a comma
if every line has one, else spaces; so a path may hold spaces, and a label, too, where a tab or a comma is before it.
Labels are integers, -1 where unknown, or names. Empty lines and those that begin with # are passed over.

Equal labels are the same class in all listings that the configuration names. The images of a listing stand in the
order of folders.py, so that its first part is a random one.
"""

import dataclasses
import os
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from artifacts_jax.data import folders, slices
from artifacts_jax.data.arrays import MOST_CLASSES
from artifacts_jax.data.errors import DataError

ENDINGS = ('.csv', '.lst', '.tsv', '.txt')  # of listings that are near in messages
INTEGER = re.compile(r'[+-]?\d+')


@dataclasses.dataclass(frozen=True, eq=False)
class ListedFiles(folders.ImageFiles):
    """A split that a file lists."""

    lines: Int[np.ndarray, ' N']  # where each image stands in the file

    def compute_original_order(self) -> np.ndarray:
        """Returns where each image stands in the file, integers [N]."""
        return self.lines


def find_list_files(config: ConfigDict, folder: Path) -> list[str]:
    """Returns which of the splits of the run's `config.data` are listings: files in the folder, or names with a dot."""
    names = dict.fromkeys(slices.split_name(split) for split in (config.train, config.probe_train, config.test))
    return [name for name in names if '.' in name or (folder / name).is_file()]


def open_listings(names: Iterable[str], folder: Path) -> dict[str, ListedFiles]:
    """Opens listings, and says how many images they name; no image is read.

    Args:
      names: of the listings, below the folder.
      folder: where they and the images are.

    Raises:
      DataError: there is no such file; it has a line without a label, or labels of two kinds; or images are missing.
    """
    read = {name: _read(folder, name) for name in names}
    found = {name: {label for _, label in rows} for name, rows in read.items()}
    kinds = {name: all(map(INTEGER.fullmatch, labels)) for name, labels in found.items()}
    if len(set(kinds.values())) > 1:
        (integers, *_), (words, *_) = ([name for name in kinds if kinds[name] is kind] for kind in (True, False))
        raise DataError(f'{folder / integers} has integers as labels and {folder / words} names: expected the same')
    labels = set().union(*found.values())
    if all(kinds.values()):
        number = {label: int(label) for label in labels}
        label_names = tuple(map(str, range(max(number.values(), default=-1) + 1)))
    else:
        label_names = tuple(sorted(labels))
        number = {label: n for n, label in enumerate(label_names)}
    splits = {name: _listed(folder, rows, number, label_names) for name, rows in read.items()}
    counts = ', '.join(f'{len(split):,} images in {name}' for name, split in splits.items())
    print(f'{folder}: {counts}; {len(label_names) or "no"} class{"es" if len(label_names) != 1 else ""}', flush=True)
    return splits


def _read(folder, name):
    """Returns [(path below the folder, label)] of a listing."""
    path = folder / name
    if not path.is_file():
        there = sorted(each.name for each in folder.iterdir() if each.suffix.lower() in ENDINGS and each.is_file())
        raise DataError(f'there is no listing {path} of images; there are: {", ".join(there[:9]) or "none"}')
    try:
        text = path.read_text(encoding='utf-8-sig', errors='surrogateescape')  # as names of files are read
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error})') from error
    if '\0' in text:
        raise DataError(f'{path}: is no text in UTF-8')
    lines = [(n, line.strip()) for n, line in enumerate(text.split('\n'), 1)]
    lines = [(n, line) for n, line in lines if line and not line.startswith('#')]
    if not lines:
        raise DataError(f'{path}: names no image')
    separator = next((mark for mark in '\t,' if all(mark in line for _, line in lines)), None)
    rows = []
    for n, line in lines:
        image, *label = (field.strip() for field in line.rsplit(separator, 1))
        if not image or not label or not label[0]:
            raise DataError(f'{path}, line {n}: is {_shown(line)}, expected a path below {folder} and a label')
        rows.append((posixpath.normpath(image.lstrip('/')), label[0]))
    _check_labels(path, [n for n, _ in lines], [label for _, label in rows])
    _check_there(path, folder, [image for image, _ in rows])
    return rows


def _check_labels(path, lines, labels):
    """Raises DataError if some labels are integers and others names, or an integer is no class."""
    kinds = {label: INTEGER.fullmatch(label) is not None for label in set(labels)}
    if len(set(kinds.values())) > 1:
        integer, word = (next(n for n, label in enumerate(labels) if kinds[label] is kind) for kind in (True, False))
        raise DataError(
            f'{path}: its labels are integers and names, {labels[integer]} in line {lines[integer]} and'
            f' {_shown(labels[word])} in line {lines[word]}: expected either (a heading begins with #)'
        )
    if wrong := {label for label, integer in kinds.items() if integer and not -1 <= int(label) < MOST_CLASSES}:
        n = next(n for n, label in enumerate(labels) if label in wrong)
        raise DataError(f'{path}, line {lines[n]}: its label is {labels[n]}, expected 0, 1, 2, ..., or -1 for unknown')


def _check_there(path, folder, images):
    """Raises DataError if images are not in the folder; each folder is looked through once, whatever it holds."""
    there, missing = {}, []
    for image in images:
        at, _, name = image.rpartition('/')
        if at not in there:
            try:
                there[at] = set(os.listdir(folder / at))
            except OSError:
                there[at] = set()
        if name not in there[at]:
            missing.append(image)
    if missing:
        raise DataError(
            f'{path}: {len(missing):,} of {len(images):,} images are not in {folder}, such as {_shown(missing[0])}'
        )


def _listed(folder, rows, number, label_names):
    images, labels = zip(*rows)
    order, sort_keys = folders.sort_by_hash(images)
    return ListedFiles(
        folder,
        tuple(images[n] for n in order),
        np.array([number[labels[n]] for n in order], np.int32),
        sort_keys,
        label_names,
        np.array(order),
    )


def _shown(text):
    return ascii(text[:80])
