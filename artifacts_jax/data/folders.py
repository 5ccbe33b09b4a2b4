"""Opens folders of images, in these layouts:

    FOLDER/SPLIT/CLASS/.../IMAGE.jpg    splits and classes
    FOLDER/SPLIT/IMAGE.jpg              splits, no labels
    FOLDER/CLASS/.../IMAGE.jpg          classes; all images are the split 'train'
    FOLDER/IMAGE.jpg                    no classes; all images are the split 'train'

The folders directly below the split are the classes; deeper folders belong to their class. FOLDER has splits if one of
its folders has a name in SPLITS, or the name of a split in the configuration. The images of a split are sorted by a
hash of their paths. Therefore a slice is a random subset, and adding a file does not move other images between slices.
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
# Files of operating systems, file servers and archive tools. Names that begin with a dot are ignored, too.
IGNORED = (
    *('__macosx', '@eadir', '#recycle', '$recycle.bin', 'system volume information', 'lost+found', '__pycache__'),
    *('thumbs.db', 'desktop.ini'),
)
STAGES = ('autoencoder', 'artifacts')  # their folders show that a folder is a work directory
LAYOUTS = 'FOLDER/SPLIT/CLASS/IMAGE.jpg, FOLDER/SPLIT/IMAGE.jpg, FOLDER/CLASS/IMAGE.jpg or FOLDER/IMAGE.jpg'


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """A split of a folder: image files, sorted by a hash of their paths."""

    folder: Path
    paths: tuple[str, ...]  # relative to the folder
    labels: Int32[np.ndarray, ' N']
    sort_keys: Float[np.ndarray, ' N']  # in [0, 1), ascending; see sources.sort_keys
    label_names: tuple[str, ...]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return Example(self.folder / self.paths[index], int(self.labels[index]), self.paths[index])

    def compute_original_order(self) -> np.ndarray:
        """Returns the index of each image among the paths in alphabetical order, integers [N]."""
        return np.argsort(np.argsort(self.paths))


def open_folder(config: ConfigDict, folder: Path) -> dict[str, ImageFiles]:
    """Returns {split: image files} of a folder, and prints their number; reads no image.

    Args:
      config: the run's `config.data`.
      folder: the folder.

    Raises:
      DataError: the folder has no images.
    """
    images, others, unreadable = _find_images(folder, LAYOUTS)
    requested = {slices.split_name(split) for split in (config.train, config.probe_train, config.test)}
    splits, num_unassigned = _assign_splits(images, requested)
    names = sorted({name for examples in splits.values() for _, name in examples if name})
    label_of = {name: n for n, name in enumerate(names)}
    files = {split: _make_split(folder, examples, label_of, tuple(names)) for split, examples in splits.items()}
    counts = ', '.join(f'{len(split):,} images in {name}' for name, split in files.items())
    report = [f'{folder}: {counts}', f'{len(names) or "no"} class{"es" if len(names) != 1 else ""}']
    if num_unassigned:
        report.append(f'{num_unassigned:,} images outside of the split folders are not used')
    if others:
        report.append(f'{sum(others.values()):,} files are not images ({_format_counts(others)})')
    if unreadable:
        report.append(f'{len(unreadable):,} folders cannot be read, such as {unreadable[0]}')
    print('; '.join(report), flush=True)
    return files


def list_images(folder: Path) -> list[str]:
    """Returns the paths of all images in a folder and its subfolders, relative to it, in alphabetical order.

    Raises:
      DataError: the folder has no images.
    """
    return sorted(_find_images(folder, 'images in it or in its subfolders')[0])


def _find_images(folder, expected):
    """Returns (the relative paths of a folder's images, {kind: number of other files}, unreadable folders)."""
    images, others, unreadable = [], collections.Counter(), []
    for path in _walk_files(folder, unreadable):
        suffix = os.path.splitext(path)[1].lower()
        if suffix in decoding.SUFFIXES:
            images.append(path)
        else:
            others[f'*{suffix}' if suffix else 'without extension'] += 1
    if not images:
        raise DataError(
            f'{folder} has no images{f", only other files ({_format_counts(others)})" if others else ""}; expected'
            f' {expected}, with the extension {", ".join(decoding.SUFFIXES[:3])}, ... (docs/data.md)'
        )
    return images, others, unreadable


def _format_counts(others):
    return ', '.join(f'{count:,} {suffix}' for suffix, count in sorted(others.items(), key=lambda x: (-x[1], x[0]))[:4])


def _walk_files(folder: Path, unreadable: list) -> Iterator[str]:
    """Yields the relative paths of the files in a folder, without ignored files and work directories.

    Folders that cannot be read are added to `unreadable`.
    """
    chains = {}  # {folder: the real paths of it and its parents}, because a link may lead back to a parent
    for top, folders, names in os.walk(
        folder, followlinks=True, onerror=lambda error: unreadable.append(error.filename)
    ):
        parents, real = chains.get(os.path.dirname(top), frozenset()), os.path.realpath(top)
        if real in parents or _is_workdir(top, folders, names):
            folders.clear()
            continue
        chains[top] = parents | {real}
        folders[:] = sorted(name for name in folders if not _is_ignored(name))
        relative = os.path.relpath(top, folder)
        for name in names:
            if not _is_ignored(name):
                yield name if relative == '.' else os.path.join(relative, name)


def _is_ignored(name):
    return name.startswith('.') or name.lower() in IGNORED


def _is_workdir(folder, folders, names):
    """Returns whether a folder is the work directory of a run, a folder of a study, or an export."""
    if any(os.path.isfile(os.path.join(folder, stage, 'metrics.jsonl')) for stage in STAGES if stage in folders):
        return True
    if 'config.json' not in names:
        return False
    try:
        saved = json.loads(Path(folder, 'config.json').read_text())
    except (OSError, ValueError):
        return False
    return isinstance(saved, dict) and {'data', 'model'} <= (saved.get('config') or saved).keys()


def _assign_splits(paths, requested):
    """Returns ({split: [(path, class name or '')]}, the number of images outside of the split folders)."""
    folders = {path.split(os.sep)[0] for path in paths if os.sep in path}
    known = {folder: folder.lower() for folder in folders if folder.lower() in SPLITS} | {
        f: f for f in folders & requested
    }
    splits, num_unassigned = collections.defaultdict(list), 0
    for path in paths:
        *parents, _ = path.split(os.sep)
        if known and not parents:
            num_unassigned += 1
            continue
        split = known.get(parents[0], parents[0]) if known else 'train'
        classes = parents[1:] if known else parents
        # The same name can have two Unicode forms, because macOS stores letters and accents separately.
        splits[split].append((path, unicodedata.normalize('NFC', classes[0]) if classes else ''))
    return dict(sorted(splits.items())), num_unassigned


def sort_by_hash(paths: Sequence[str]) -> tuple[list[int], Float[np.ndarray, ' N']]:
    """Sorts images by a hash of their paths, which are relative to the folder.

    Returns:
      (indices of the sorted paths, their sort keys in [0, 1), ascending).
    """
    digests = [hashlib.blake2b(path.replace(os.sep, '/').encode('utf-8', 'surrogateescape'), digest_size=6).digest()
               for path in paths]  # fmt: skip
    sort_keys = np.array([int.from_bytes(digest, 'big') for digest in digests]) / 2**48
    order = sorted(range(len(paths)), key=lambda n: (sort_keys[n], paths[n]))
    return order, sort_keys[order]


def _make_split(folder, examples, label_of, names):
    """Returns the ImageFiles of a split, in the order of `sort_by_hash`."""
    order, sort_keys = sort_by_hash([path for path, _ in examples])
    paths = tuple(examples[n][0] for n in order)
    labels = np.array([label_of.get(examples[n][1], -1) for n in order], np.int32)
    return ImageFiles(folder, paths, labels, sort_keys, names)
