"""Splits of data sets, opened: of whatever holds the images, in memory or streamed."""

from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from artifacts_jax.data import arrays, decoding, folders, listings, paths, reading, skipped, slices, sources, tfds_data
from artifacts_jax.data.batches import InMemory, Streamed
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.skipped import SkippedExamples

__all__ = ['DataError', 'Datasets', 'InMemory', 'Streamed', 'compute_original_order', 'count_classes', 'load']

LOOKED_AT = 16  # images of a split that are looked at before anything is made of it


class Datasets(dict):
    """{'train', 'probe_train', 'test'}: the splits of a run's config, each opened when it is first asked for."""

    def __init__(self, config: ConfigDict, opened: dict | None = None):
        super().__init__()
        self._config = config
        self._data: Any = None
        self._file: Path | None = None
        self._opened = {} if opened is None else opened  # what `cache` has opened, also for other runs

    def __missing__(self, name):
        config = self._config
        split = config.data[name]
        for other, dataset in self.items():  # splits that are the same data are held once
            if config.data[other] == split:
                self[name] = dataset
                return dataset
        self._data = open_data(config.data) if self._data is None else self._data
        hosts = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
        self[name] = load(config.data, split, seed=config.seed, data=self._data, **hosts)
        if self._file:
            self[name].skipped.write_to(self._file)
        return self[name]

    def cache(self, key: Hashable, open_data: Callable[[], Any]) -> Any:
        """Returns what open_data() returns, called once for all tasks that ask for the same key."""
        if key not in self._opened:
            self._opened[key] = open_data()
        return self._opened[key]

    def warn_of_overlap(self) -> None:
        """Warns of images that evaluations learn from and are tested on."""
        if {'probe_train', 'test'} <= self.keys():
            warn_of_overlap(self._config.data, self._data)

    def write_skipped(self, file: Path) -> None:
        """Names what is left out of the splits in a file, from now on; see data/skipped.py."""
        self._file = file
        for dataset in self.values():
            dataset.skipped.write_to(file)

    def report_skipped(self) -> None:
        """Says how much of the streamed splits has been left out."""
        skipped.report_streamed(dataset.skipped for dataset in self.values())


def load(
    config: ConfigDict,
    split: str,
    *,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    data: Mapping[str, sources.Source] | None = None,
) -> InMemory | Streamed:
    """Opens a split, in memory or streamed as `config.loading` says.

    Args:
      config: the run's `config.data`.
      split: a split of the data set, as tfds spells it ('train', 'train[:90%]', 'unlabelled').
      seed: decides the order of training batches.
      process_index: this host.
      process_count: the hosts that share the data.
      data: the data set, if it is open already.

    Raises:
      DataError: the data set, its files or the split are not there, the split is empty, all its images are damaged, or
        arrays are not what they should be.
    """
    data = open_data(config) if data is None else data
    name, rows = sources.select_rows(data, split, config)
    if name == 'train' and slices.split_name(split) == 'test':
        print(f'{config.name} has no split test: {len(rows):,} images of {name}, always the same, stand for it')
    in_memory = reading.should_load_in_memory(config, len(rows), config.size)
    part = split.replace(slices.split_name(split), name, 1) if slices.split_name(split) in sources.ALIASES else split
    record = SkippedExamples(f'{part} of {config.name}', len(rows), live=not in_memory)
    hosts = {'process_index': process_index, 'process_count': process_count}
    shared: dict[str, Any] = {'seed': seed, 'skipped': record, **hosts}
    whole = data[name]
    if isinstance(whole, arrays.Arrays) and whole.images.shape[1:3] == (config.size, config.size):
        images, labels = whole.images, whole.labels
        if len(rows) == rows[-1] + 1 - rows[0]:
            rows = slice(rows[0], rows[-1] + 1)
        if isinstance(rows, slice) or not isinstance(images, np.memmap):  # the others need not be kept
            images, labels, rows = images[rows], labels[rows], None
        return InMemory(images, labels, whole.label_names, rows, **shared)
    source = sources.Slice(whole, rows)
    streamed = Streamed.create(
        source, config.size, _look(source, config.size, record), workers=config.workers, **shared
    )
    return streamed.decode() if in_memory else streamed


def warn_of_overlap(config: ConfigDict, data: Mapping[str, sources.Source]) -> None:
    """Warns of examples that are in probe_train and in test; arguments as of `load`."""
    (name, learned), (other, tested) = (
        sources.select_rows(data, split, config) for split in (config.probe_train, config.test)
    )
    if name == other:
        slices.warn_of_overlap(learned.tolist(), tested.tolist(), train=config.probe_train, test=config.test)


def open_data(config: ConfigDict) -> Mapping[str, sources.Source]:
    """Opens the data set that the run's `config.data` names: {split: its examples}; no image is read.

    Raises:
      DataError: it is not there, or is not what it should be.
    """
    if config.name == paths.PHOTOGRAPHS:
        from artifacts_jax.data import photographs

        return photographs.open_photographs()
    path = paths.locate(config)
    if path is None:
        return tfds_data.open_tfds(config)
    if path.is_dir() and (names := listings.find_list_files(config, path)):
        return listings.open_listings(names, path)
    if path.suffix == '.npz' or (path.is_dir() and any(path.glob('*.npz'))):
        return arrays.open_arrays(path)
    if path.is_dir():
        return folders.open_folder(config, path)
    raise DataError(f'{path} is a file; expected is a folder, {folders.LAYOUTS}, or an .npz of arrays')


def count_classes(config: ConfigDict, key: str, dataset: InMemory | Streamed, *, stage: str) -> int:
    """Returns the number of classes of a data set whose labels a stage needs.

    Args:
      config: the run's `config.data`.
      key: the data set's key in it, such as 'probe_train'.
      dataset: what `load` has returned for it.
      stage: the stage's name.

    Raises:
      DataError: there are images without labels.
    """
    if not dataset.num_classes:
        raise DataError(
            f'split {config[key]!r} of {config.name} has no labels, or not of every image, which {stage} needs: set'
            f' data.{key} to a labelled split, or leave {stage} out of stages'
        )
    return dataset.num_classes


def check_labels(config: ConfigDict, datasets: Mapping[str, InMemory | Streamed], *, stage: str) -> None:
    """Raises DataError if images to learn from or to test on have no labels, or the latter classes of their own.

    Args:
      config: the run's `config.data`.
      datasets: {'probe_train', 'test'}, as `load` has returned them.
      stage: the stage's name.
    """
    train, test = (datasets[name] for name in ('probe_train', 'test'))
    for name in ('probe_train', 'test'):
        count_classes(config, name, datasets[name], stage=stage)
    if unknown := sorted(test.present - train.present):
        names = ', '.join(test.label_names[n] for n in unknown[:5])
        raise DataError(
            f'{test.skipped.split} has images of {names}{", ..." if len(unknown) > 5 else ""}, of which'
            f' {train.skipped.split} has none: give splits of the same classes'
        )


def compute_original_order(config: ConfigDict, split: str) -> Int[np.ndarray, ' N']:
    """Returns where each example of a split, in the order read, stands in the data set's own files.

    Of STL-10 as tfds prepares it, in train_X.bin and its like (see tfds_data.py); of a folder, among the paths in
    alphabetical order; of any other data set the order read counts as the original.

    Raises:
      DataError: only part of a split of STL-10 is asked for.
    """
    data = open_data(config)
    name, rows = sources.select_rows(data, split, config)
    whole = data[name]
    if isinstance(whole, tfds_data.TfdsSplit):
        return tfds_data.compute_original_order(config, split)
    known = hasattr(whole, 'compute_original_order')
    order = whole.compute_original_order() if known else np.arange(len(whole))  # type: ignore[attr-defined]
    return np.argsort(np.argsort(order[rows]))


def _look(source, size, record) -> tuple[str, ...]:
    """Looks at some examples, says what their pixels are if not RGB, and returns the names of the classes.

    Raises:
      DataError: none of them can be used.
    """
    places = np.unique(np.linspace(0, len(source) - 1, LOOKED_AT).astype(int))
    looked = [source[int(place)] for place in places]
    problems, modes = [], {}
    for example in looked:
        try:
            decoding.decode(example.image, size)
            mode = decoding.read_mode(example.image)
            modes[mode] = modes.get(mode, 0) + 1
        except decoding.UnusableError as error:
            problems.append(f'{example.name} ({error})')
    if len(problems) == len(looked):
        raise DataError(f'no example of {record.split} can be used: {"; ".join(problems[:3])}')
    if others := ', '.join(f'{count} are {mode}' for mode, count in modes.items() if mode != 'RGB'):
        print(f'{record.split}: of {len(looked)} images looked at, {others}, as Pillow calls it; they become RGB')
    labels = source.whole.labels[source.rows] if hasattr(source.whole, 'labels') else [e.label for e in looked]
    return source.label_names if min(labels) >= 0 else ()
