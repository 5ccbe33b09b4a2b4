"""Opens the splits of a data set, in memory or streamed; the data set is a folder, list files, arrays or from tfds."""

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

CHECKED_EXAMPLES = 16  # of a split, decoded before any work is done with it


class Datasets(dict):
    """Maps 'train', 'probe_train' and 'test' to the splits of a run's config; a split is loaded at its first use.

    Args:
      config: the run's configuration.
      cached: the values of `cache`; pass the same dict to several runs to share them.
    """

    def __init__(self, config: ConfigDict, cached: dict | None = None):
        super().__init__()
        self._config = config
        self._data: Any = None
        self._file: Path | None = None
        self._cached = {} if cached is None else cached

    def __missing__(self, name):
        config = self._config
        split = config.data[name]
        for other, dataset in self.items():  # two keys with the same split share one data set in memory
            if config.data[other] == split:
                self[name] = dataset
                return dataset
        self._data = open_data(config.data) if self._data is None else self._data
        hosts = {'process_index': jax.process_index(), 'process_count': jax.process_count()}
        self[name] = load(config.data, split, seed=config.seed, data=self._data, **hosts)
        if self._file:
            self[name].skipped.write_to(self._file)
        return self[name]

    def cache(self, key: Hashable, load_value: Callable[[], Any]) -> Any:
        """Returns load_value(), which is called only at the first use of a key; all tasks share the value."""
        if key not in self._cached:
            self._cached[key] = load_value()
        return self._cached[key]

    def warn_of_overlap(self) -> None:
        """Warns if data.probe_train and data.test have images in common."""
        if {'probe_train', 'test'} <= self.keys():
            warn_of_overlap(self._config.data, self._data)

    def write_skipped(self, file: Path) -> None:
        """Lists the skipped examples of all splits in a file, now and in future; see data/skipped.py."""
        self._file = file
        for dataset in self.values():
            dataset.skipped.write_to(file)

    def report_skipped(self) -> None:
        """Prints the number of skipped examples of each streamed split."""
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
    """Returns a split, in memory or streamed, as `config.loading` sets.

    Args:
      config: the run's `config.data`.
      split: a split of the data set or a slice of it, in tfds syntax ('train', 'train[:90%]', 'unlabelled').
      seed: sets the order of training batches.
      process_index: the index of this host.
      process_count: the number of hosts that share the data.
      data: the data set, if it is already open.

    Raises:
      DataError: the data set, its files or the split do not exist, the split is empty, none of the checked images can
        be used, or an array file is invalid.
    """
    data = open_data(config) if data is None else data
    name, rows = sources.select_rows(data, split, config)
    if name == 'train' and slices.split_name(split) == 'test':
        print(f'{config.name} has no split test: a fixed subset of {len(rows):,} images of {name} is used instead')
    in_memory = reading.should_load_in_memory(config, len(rows), config.size)
    stored = split.replace(slices.split_name(split), name, 1) if slices.split_name(split) in sources.ALIASES else split
    record = SkippedExamples(f'{stored} of {config.name}', len(rows), live=not in_memory)
    hosts = {'process_index': process_index, 'process_count': process_count}
    shared: dict[str, Any] = {'seed': seed, 'skipped': record, **hosts}
    whole = data[name]
    if isinstance(whole, arrays.Arrays) and whole.images.shape[1:3] == (config.size, config.size):
        images, labels = whole.images, whole.labels
        if len(rows) == rows[-1] + 1 - rows[0]:
            rows = slice(rows[0], rows[-1] + 1)
        if isinstance(rows, slice) or not isinstance(images, np.memmap):  # frees the images of other slices
            images, labels, rows = images[rows], labels[rows], None
        return InMemory(images, labels, whole.label_names, rows, **shared)
    source = sources.Slice(whole, rows)
    label_names = _check_examples(source, config.size, record)
    streamed = Streamed.create(source, config.size, label_names, workers=config.workers, **shared)
    return streamed.decode() if in_memory else streamed


def warn_of_overlap(config: ConfigDict, data: Mapping[str, sources.Source]) -> None:
    """Warns if the slices probe_train and test of one split overlap; the arguments are those of `load`."""
    (name, train), (other, test) = (
        sources.select_rows(data, split, config) for split in (config.probe_train, config.test)
    )
    if name == other:
        slices.warn_of_overlap(train.tolist(), test.tolist(), train=config.probe_train, test=config.test)


def open_data(config: ConfigDict) -> Mapping[str, sources.Source]:
    """Returns {split: source} of the data set that the run's `config.data` names; reads no image.

    Raises:
      DataError: the data set does not exist or is invalid.
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
    raise DataError(f'{path} is a file; expected a folder ({folders.LAYOUTS}), or an .npz file')


def count_classes(config: ConfigDict, key: str, dataset: InMemory | Streamed, *, stage: str) -> int:
    """Returns the number of classes of a data set; raises DataError if an image has no label.

    Args:
      config: the run's `config.data`.
      key: the key of the split in `config`, such as 'probe_train'.
      dataset: the result of `load` for this split.
      stage: the name of the stage that needs the labels, for the message.

    Raises:
      DataError: the data set has images without labels.
    """
    if not dataset.num_classes:
        raise DataError(
            f'data.{key}={config[key]}: this split of {config.name} has images without labels, but {stage} needs a'
            f' label of every image; set data.{key} to a labelled split, or remove {stage} from stages'
        )
    return dataset.num_classes


def check_labels(config: ConfigDict, datasets: Mapping[str, InMemory | Streamed], *, stage: str) -> None:
    """Raises DataError if training or test images have no labels, or if a test class has no training image.

    Args:
      config: the run's `config.data`.
      datasets: {'probe_train', 'test'}, results of `load`.
      stage: the name of the stage that needs the labels, for the message.
    """
    train, test = (datasets[name] for name in ('probe_train', 'test'))
    for name in ('probe_train', 'test'):
        count_classes(config, name, datasets[name], stage=stage)
    if unknown := sorted(test.present - train.present):
        names = ', '.join(test.label_names[n] for n in unknown[:5])
        raise DataError(
            f'{test.skipped.split} has images of the classes {names}{", ..." if len(unknown) > 5 else ""}, but'
            f' {train.skipped.split} has none of them; use splits with the same classes'
        )


def compute_original_order(config: ConfigDict, split: str) -> Int[np.ndarray, ' N']:
    """Returns the index of each example of a split in the original files of the data set.

    | data set | original order |
    |---|---|
    | STL-10 of tfds | that of train_X.bin and the other files of STL-10; see tfds_data.py |
    | a folder | the paths in alphabetical order |
    | list files | the lines of the file |
    | others | the order in which the examples are read |

    Raises:
      DataError: the split is a slice of a split of STL-10.
    """
    data = open_data(config)
    name, rows = sources.select_rows(data, split, config)
    whole = data[name]
    if isinstance(whole, tfds_data.TfdsSplit):
        return tfds_data.compute_original_order(config, split)
    has_order = hasattr(whole, 'compute_original_order')
    order = whole.compute_original_order() if has_order else np.arange(len(whole))  # type: ignore[attr-defined]
    return np.argsort(np.argsort(order[rows]))


def _check_examples(source, size, record) -> tuple[str, ...]:
    """Decodes some examples, prints their modes if they are not RGB, and returns the class names.

    Returns:
      The class names, () if an example has no label.

    Raises:
      DataError: none of the examples can be used.
    """
    indices = np.unique(np.linspace(0, len(source) - 1, CHECKED_EXAMPLES).astype(int))
    examples = [source[int(index)] for index in indices]
    problems, modes = [], {}
    for example in examples:
        try:
            decoding.decode(example.image, size)
            mode = decoding.read_mode(example.image)
            modes[mode] = modes.get(mode, 0) + 1
        except decoding.UnusableError as error:
            problems.append(f'{example.name} ({error})')
    if len(problems) == len(examples):
        raise DataError(f'{record.split}: none of the checked images can be used: {"; ".join(problems[:3])}')
    if others := ', '.join(f'{count} have mode {mode}' for mode, count in modes.items() if mode != 'RGB'):
        print(f'{record.split}: of {len(examples)} checked images, {others} (Pillow modes); they are converted to RGB')
    labels = (
        source.whole.labels[source.rows] if hasattr(source.whole, 'labels') else [example.label for example in examples]
    )
    return source.label_names if min(labels) >= 0 else ()
