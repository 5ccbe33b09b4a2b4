"""Opens splits that are defined by list files: FOLDER/train.csv lists images of FOLDER and their classes.

    a/abbey/0001.jpg 0
    b/barn/my barn.jpg 12

A line is a path relative to FOLDER, then a label. The separator is a tab if every line has one, else a comma if every
line has one, else spaces. A path may therefore contain spaces; a label may contain spaces if the separator is a tab or
a comma. Labels are integers, -1 where unknown, or class names. Empty lines and lines that begin with # are ignored.

Equal labels mean the same class in all list files of a configuration. The images of a list file are sorted by a hash,
as in folders.py, so a slice is a random subset.
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
from artifacts_jax.data.arrays import MAX_CLASSES
from artifacts_jax.data.errors import DataError

SUFFIXES = ('.csv', '.lst', '.tsv', '.txt')  # of the files that messages suggest
INTEGER = re.compile(r'[+-]?\d+')


@dataclasses.dataclass(frozen=True, eq=False)
class ListedFiles(folders.ImageFiles):
    """A split that is defined by a list file."""

    lines: Int[np.ndarray, ' N']  # index of each image in the list file

    def compute_original_order(self) -> np.ndarray:
        """Returns the index of each image in the list file, integers [N]."""
        return self.lines


def find_list_files(config: ConfigDict, folder: Path) -> list[str]:
    """Returns the splits of the run's `config.data` that are list files: files in the folder, or names with a dot."""
    names = dict.fromkeys(slices.split_name(split) for split in (config.train, config.probe_train, config.test))
    return [name for name in names if '.' in name or (folder / name).is_file()]


def open_listings(names: Iterable[str], folder: Path) -> dict[str, ListedFiles]:
    """Returns {list file: its images}, and prints their number; reads no image.

    Args:
      names: of the list files, relative to the folder.
      folder: the folder of the list files and the images.

    Raises:
      DataError: a list file does not exist, has a line without a label, mixes integers and class names as labels, or
        lists an image that does not exist.
    """
    entries = {name: _read(folder, name) for name in names}
    labels = {name: {label for _, label in rows} for name, rows in entries.items()}
    has_integers = {name: all(map(INTEGER.fullmatch, texts)) for name, texts in labels.items()}
    if len(set(has_integers.values())) > 1:
        (integers, *_), (words, *_) = (
            [name for name in labels if has_integers[name] is kind] for kind in (True, False)
        )
        raise DataError(
            f'{folder / integers} has integers as labels, but {folder / words} has class names: use one kind in all'
            f' list files'
        )
    all_labels = set().union(*labels.values())
    if all(has_integers.values()):
        label_of = {label: int(label) for label in all_labels}
        label_names = tuple(map(str, range(max(label_of.values(), default=-1) + 1)))
    else:
        label_names = tuple(sorted(all_labels))
        label_of = {label: n for n, label in enumerate(label_names)}
    splits = {name: _make_split(folder, rows, label_of, label_names) for name, rows in entries.items()}
    counts = ', '.join(f'{len(split):,} images in {name}' for name, split in splits.items())
    print(f'{folder}: {counts}; {len(label_names) or "no"} class{"es" if len(label_names) != 1 else ""}', flush=True)
    return splits


def _read(folder, name):
    """Returns [(path relative to the folder, label)] of a list file."""
    path = folder / name
    if not path.is_file():
        others = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in SUFFIXES and file.is_file())
        raise DataError(f'the list file {path} does not exist; the folder has: {", ".join(others[:9]) or "none"}')
    try:
        text = path.read_text(encoding='utf-8-sig', errors='surrogateescape')  # as Python reads names of files
    except OSError as error:
        raise DataError(f'{path}: cannot be read ({error})') from error
    if '\0' in text:
        raise DataError(f'{path}: is not a UTF-8 text file')
    lines = [(n, line.strip()) for n, line in enumerate(text.split('\n'), 1)]
    lines = [(n, line) for n, line in lines if line and not line.startswith('#')]
    if not lines:
        raise DataError(f'{path}: lists no image')
    separator = next((mark for mark in '\t,' if all(mark in line for _, line in lines)), None)
    rows = []
    for n, line in lines:
        image, *label = (field.strip() for field in line.rsplit(separator, 1))
        if not image or not label or not label[0]:
            raise DataError(f'{path}, line {n}: is {_quote(line)}; expected a path relative to {folder}, then a label')
        rows.append((posixpath.normpath(image.lstrip('/')), label[0]))
    _check_labels(path, [n for n, _ in lines], [label for _, label in rows])
    _check_exist(path, folder, [image for image, _ in rows])
    return rows


def _check_labels(path, lines, labels):
    """Raises DataError if labels mix integers and class names, or an integer is out of range."""
    is_integer = {label: INTEGER.fullmatch(label) is not None for label in set(labels)}
    if len(set(is_integer.values())) > 1:
        integer, word = (
            next(n for n, label in enumerate(labels) if is_integer[label] is kind) for kind in (True, False)
        )
        raise DataError(
            f'{path}: the labels mix integers and class names: {labels[integer]} in line {lines[integer]},'
            f' {_quote(labels[word])} in line {lines[word]}; use one kind (a header line must begin with #)'
        )
    if wrong := {label for label, integer in is_integer.items() if integer and not -1 <= int(label) < MAX_CLASSES}:
        n = next(n for n, label in enumerate(labels) if label in wrong)
        raise DataError(f'{path}, line {lines[n]}: the label is {labels[n]}; expected 0, 1, 2, ..., or -1 for unknown')


def _check_exist(path, folder, images):
    """Raises DataError if images do not exist; lists each folder once, which is faster than a check of each image."""
    contents, missing = {}, []
    for image in images:
        parent, _, name = image.rpartition('/')
        if parent not in contents:
            try:
                contents[parent] = set(os.listdir(folder / parent))
            except OSError:
                contents[parent] = set()
        if name not in contents[parent]:
            missing.append(image)
    if missing:
        raise DataError(
            f'{path}: {len(missing):,} of {len(images):,} images do not exist in {folder}, such as {_quote(missing[0])}'
        )


def _make_split(folder, rows, label_of, label_names):
    images, labels = zip(*rows)
    order, sort_keys = folders.sort_by_hash(images)
    return ListedFiles(
        folder,
        tuple(images[n] for n in order),
        np.array([label_of[labels[n]] for n in order], np.int32),
        sort_keys,
        label_names,
        np.array(order),
    )


def _quote(text):
    return ascii(text[:80])
