"""Folders of images, in the forms that people have.

    FOLDER/SPLIT/CLASS/.../IMAGE.jpg    splits and classes
    FOLDER/SPLIT/IMAGE.jpg              splits, no labels
    FOLDER/CLASS/.../IMAGE.jpg          classes; all images are the split 'train'
    FOLDER/IMAGE.jpg                    neither

A class is the first folder below the split; what is deeper belongs to it. FOLDER has splits if one of its folders is
called as a split is (SPLITS), or as one that the configuration asks for. The images of a split stand in the order of a
hash of their paths: its first part is a random one, and another file moves none.
"""

import collections
import dataclasses
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int32
from ml_collections import ConfigDict

from artifacts_jax.data import decoding, slices
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.sources import Example

SPLITS = ('train', 'training', 'val', 'valid', 'validation', 'test', 'testing', 'eval', 'unlabelled', 'unlabeled')
# What operating systems, file servers and unpackers leave; what begins with a dot is skipped, too.
RESIDUE = (
    *('__macosx', '@eadir', '#recycle', '$recycle.bin', 'system volume information', 'lost+found', '__pycache__'),
    *('thumbs.db', 'desktop.ini'),
)
STAGES = ('autoencoder', 'artifacts')  # whose folders a work directory has
LAYOUTS = 'FOLDER/SPLIT/CLASS/IMAGE.jpg, FOLDER/SPLIT/IMAGE.jpg, FOLDER/CLASS/IMAGE.jpg or FOLDER/IMAGE.jpg'


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """A split of a folder."""

    folder: Path
    paths: tuple[str, ...]  # below the folder
    labels: Int32[np.ndarray, ' N']
    sort_keys: Float[np.ndarray, ' N']  # in [0, 1), ascending: see sources.sort_keys
    label_names: tuple[str, ...]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return Example(self.folder / self.paths[index], int(self.labels[index]), self.paths[index])

    def compute_original_order(self) -> np.ndarray:
        """Returns where each image stands among the paths in alphabetical order, integers [N]."""
        return np.argsort(np.argsort(self.paths))


def open_folder(config: ConfigDict, folder: Path) -> dict[str, ImageFiles]:
    """Finds the images of a folder, and says how many; none is read.

    Args:
      config: the run's `config.data`.
      folder: where they are.

    Raises:
      DataError: there are none.
    """
    found, others, closed = _images(folder, LAYOUTS)
    asked = {slices.split_name(split) for split in (config.train, config.probe_train, config.test)}
    splits, beside = _splits(found, asked)
    names = sorted({name for examples in splits.values() for _, name in examples if name})
    number = {name: n for n, name in enumerate(names)}
    files = {split: _make_split(folder, examples, number, tuple(names)) for split, examples in splits.items()}
    counts = ', '.join(f'{len(split):,} images in {name}' for name, split in files.items())
    said = [f'{folder}: {counts}', f'{len(names) or "no"} class{"es" if len(names) != 1 else ""}']
    if beside:
        said.append(f'{beside:,} images lie beside the splits and are not used')
    if others:
        said.append(f'{sum(others.values()):,} other files are no images ({_counted(others)})')
    if closed:
        said.append(f'{len(closed):,} folders cannot be read, such as {closed[0]}')
    print('; '.join(said), flush=True)
    return files


def list_images(folder: Path) -> list[str]:
    """Returns the paths of a folder's images, below it, in alphabetical order, whatever folders they are in.

    Raises:
      DataError: there are none.
    """
    return sorted(_images(folder, 'images in it or its folders')[0])


def _images(folder, expected):
    """Returns (the paths of a folder's images, {kind: how many other files}, folders that cannot be read)."""
    found, others, closed = [], collections.Counter(), []
    for path in _files(folder, closed):
        suffix = os.path.splitext(path)[1].lower()
        if suffix in decoding.SUFFIXES:
            found.append(path)
        else:
            others[f'*{suffix}' if suffix else 'without ending'] += 1
    if not found:
        raise DataError(
            f'no images in {folder}{f", but other files ({_counted(others)})" if others else ""}; expected are'
            f' {expected}, ending in {", ".join(decoding.SUFFIXES[:3])}, ... (docs/data.md)'
        )
    return found, others, closed


def _counted(others):
    return ', '.join(f'{count:,} {suffix}' for suffix, count in sorted(others.items(), key=lambda x: (-x[1], x[0]))[:4])


def _files(folder: Path, closed: list) -> Iterator[str]:
    """Yields the paths of a folder's files, below it, but for what is hidden, residue, or a work directory's.

    Folders that cannot be read are added to `closed`.
    """
    chains = {}  # of the real paths that lead to a folder; links may lead back
    for at, folders, names in os.walk(folder, followlinks=True, onerror=lambda error: closed.append(error.filename)):
        above, real = chains.get(os.path.dirname(at), frozenset()), os.path.realpath(at)
        if real in above or _is_workdir(at, folders, names):
            folders.clear()
            continue
        chains[at] = above | {real}
        folders[:] = sorted(name for name in folders if not _skipped(name))
        below = os.path.relpath(at, folder)
        for name in names:
            if not _skipped(name):
                yield name if below == '.' else os.path.join(below, name)


def _skipped(name):
    return name.startswith('.') or name.lower() in RESIDUE


def _is_workdir(folder, folders, names):
    """Returns whether a folder is the work directory of a run or a part of a study's, or an export."""
    if any(os.path.isfile(os.path.join(folder, stage, 'metrics.jsonl')) for stage in STAGES if stage in folders):
        return True
    if 'config.json' not in names:
        return False
    try:
        saved = json.loads(Path(folder, 'config.json').read_text())
    except (OSError, ValueError):
        return False
    return isinstance(saved, dict) and {'data', 'model'} <= (saved.get('config') or saved).keys()


def _splits(paths, asked):
    """Returns ({split: [(path, its class or '')]}, how many images lie beside the folders of splits)."""
    folders = {path.split(os.sep)[0] for path in paths if os.sep in path}
    known = {folder: folder.lower() for folder in folders if folder.lower() in SPLITS} | {f: f for f in folders & asked}
    splits, beside = collections.defaultdict(list), 0
    for path in paths:
        *above, _ = path.split(os.sep)
        if known and not above:
            beside += 1
            continue
        split = known.get(above[0], above[0]) if known else 'train'
        classes = above[1:] if known else above
        # A name may be spelt in two ways: macOS takes letters and their accents apart.
        splits[split].append((path, unicodedata.normalize('NFC', classes[0]) if classes else ''))
    return dict(sorted(splits.items())), beside


def sort_by_hash(paths: Sequence[str]) -> tuple[list[int], Float[np.ndarray, ' N']]:
    """Returns the order of images by a hash of each path, as it is below the folder, and their sort_keys in it.

    Returns:
      (positions of the paths, numbers in [0, 1), ascending).
    """
    digests = [hashlib.blake2b(path.replace(os.sep, '/').encode('utf-8', 'surrogateescape'), digest_size=6).digest()
               for path in paths]  # fmt: skip
    sort_keys = np.array([int.from_bytes(digest, 'big') for digest in digests]) / 2**48
    order = sorted(range(len(paths)), key=lambda n: (sort_keys[n], paths[n]))
    return order, sort_keys[order]


def _make_split(folder, examples, number, names):
    """Returns a split's ImageFiles, in the order of `sort_by_hash`."""
    order, sort_keys = sort_by_hash([path for path, _ in examples])
    paths = tuple(examples[n][0] for n in order)
    labels = np.array([number.get(examples[n][1], -1) for n in order], np.int32)
    return ImageFiles(folder, paths, labels, sort_keys, names)
