"""The stage `stl10`, the published STL-10 evaluation: a classifier on conv5, trained on labelled images.

Each protocol of classifier.py is run on all training images and, if there is a fold file, on each fold. Each line of a
fold file has the indices of the examples of one fold, as in STL-10's fold_indices.txt.
"""

import hashlib
import shutil
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from artifacts_jax import old_names
from artifacts_jax.data import splits
from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import classifier

NAME = 'stl10'
SPLITS = ('probe_train', 'test')  # the splits of the data that this stage needs
ALL = 'all'
# {stl10.fold_protocol: prefix of a fold's name}. 'official': train on the fold, test on the test split.
# 'held_out': train on all other training images, test on the fold.
FOLD_PREFIX = {'official': 'fold', 'held_out': 'held_out_fold'}


class Data(NamedTuple):
    """The training and test images, and the folds."""

    train: Any
    test: Any
    num_classes: int
    folds: Int[np.ndarray, 'folds size'] | None  # positions in `train`, which may be shuffled
    count_functions: dict  # {protocol: compiled function that counts correct predictions}, reused for all subsets

    def select(self, subset: str) -> dict:
        """Returns {'train', 'test'}: the images for 'all' or for a fold such as 'fold_1'; see FOLD_PREFIX."""
        if subset == ALL:
            return {'train': self.train, 'test': self.test}
        prefix, _, number = subset.rpartition('_')
        fold = self.folds[int(number) - 1]  # type: ignore[index]  # a fold is selected only if there is a fold file
        if prefix == FOLD_PREFIX['official']:
            return {'train': self.train.subset(fold), 'test': self.test}
        others = np.setdiff1d(np.arange(self.train.num_examples), fold)
        return {'train': self.train.subset(others), 'test': self.train.subset(fold)}


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the batch size is not divisible by the number of devices."""
    devices.check_batch('stl10.batch_size', config.stl10.batch_size, config.accumulate)


def open_data(config: ConfigDict, datasets: Datasets) -> Data:
    """Returns the data.

    Raises:
      DataError: there are no labels, the fold file is malformed, or folds are used with streamed data.
    """
    train, options = datasets['probe_train'], config.stl10
    num_classes, positions = splits.count_classes(config.data, 'probe_train', train, stage=NAME), None
    if options.folds:
        fold_shape = {'num_folds': options.num_folds, 'fold_size': options.fold_size}
        indices = read_folds(options.folds, num_examples=train.num_examples, **fold_shape)
        # Indices in the file refer to the order of the data set on disk; `train` may be shuffled.
        positions = np.argsort(splits.compute_original_order(config.data, config.data.probe_train))[indices]
        _ = train.subset(positions[0])  # raises now for streamed data, not after hours of training on all images
    return Data(train, datasets['test'], num_classes, positions, {})


def check_results(config: ConfigDict, all_results: dict) -> None:
    """Raises DataError if results.json has results from a different fold file."""
    digest = _folds_digest(config)
    if digest and all_results.get('folds_sha256', digest) != digest:
        raise splits.DataError(
            f'stl10.folds={config.stl10.folds}: results.json was computed with another fold file (sha256'
            f' {all_results["folds_sha256"]}); use the earlier fold file, or a new --workdir with'
            f' --config.artifacts.pretrained=EXPORT'
        )


def list_entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {'PROTOCOL/SUBSET': the trained network}, one entry for each row of the results.

    Subsets are 'all', then 'fold_1', 'fold_2', ..., one for each line of the fold file, then 'folds', the mean over all
    folds. With stl10.fold_protocol='held_out', the names of folds begin with 'held_out_'.
    """
    folds = _fold_names(config) if config.stl10.folds else []
    subsets = [ALL, *folds, *([_mean_name(config)] if folds else [])]
    return {f'{protocol}/{subset}': networks['learned'] for protocol in config.stl10.protocols for subset in subsets}


def evaluate(run: Run, data: Data, entry: Entry) -> dict:
    """Trains and tests the classifier of a subset.

    For a fold, only the metrics are kept. For 'all', the checkpoints and the export (trunk and classifier) are kept,
    too.

    Returns:
      {'accuracy': in %, 'correct': number of correct predictions, 'count': number of test images, 'train': number of
      training images}. For the mean over folds {'mean', 'deviation', 'ddof': 1, 'folds', 'train'}, where 'deviation' is
      the sample standard deviation and 'folds' the number of folds.
    """
    protocol, _, subset = entry.key.partition('/')
    _remove_fold_checkpoints(run, entry.rows)
    if subset == _mean_name(run.config):
        rows = [entry.rows[protocol][name] for name in _fold_names(run.config)]
        accuracies = [row['accuracy'] for row in rows]
        statistics_of_folds = {
            'mean': statistics.mean(accuracies),
            'deviation': statistics.stdev(accuracies),
            'ddof': 1,
        }
        return {**statistics_of_folds, 'folds': len(rows), 'train': rows[0]['train']}
    count_correct = classifier.make_counter(protocol, data.num_classes, run.config, run.devices)
    count_correct = data.count_functions.setdefault(protocol, count_correct)
    images = data.select(subset)
    num_train = images['train'].num_examples
    stage = classifier.Stage(
        NAME=entry.name,
        protocol=protocol,
        num_images=num_train,
        num_classes=data.num_classes,
        evaluate_fn=count_correct,
    )
    state = run.train(stage, entry, images)
    correct, num_test = count_correct(state.variables, images['test'])
    if subset == ALL:
        head = {'protocol': protocol, 'classes': data.num_classes}
        source = {'stage': entry.name, 'step': int(state.step)}
        folder = old_names.find_stage_folder(run.workdir, f'{NAME}/{protocol}/export')
        exports.save(folder, state.variables, run.config, head=head, source=source)
    return {'accuracy': 100 * correct / num_test, 'correct': correct, 'count': num_test, 'train': num_train}


def metadata(run: Run, data: Data) -> dict:
    """Returns the name of the data set, and the SHA-256 digest of the fold file if there is one."""
    del data
    digest = _folds_digest(run.config)
    return {'dataset': run.config.data.name, **({'folds_sha256': digest} if digest else {})}


def summary(row: dict) -> list[str]:
    """Returns the lines to print for a row."""
    if 'mean' in row:
        return [f'{row["mean"]:.2f} +- {row["deviation"]:.2f} % (mean and standard deviation of {row["folds"]} folds)']
    return [f'{row["accuracy"]:.2f} % ({results.format_fraction(row)})']


def clean_up(run: Run, all_results: dict) -> None:
    """Removes fold checkpoints that a killed run has left."""
    _remove_fold_checkpoints(run, all_results[NAME])


def table(all_results: dict) -> str:
    """Returns the rows as a text table: accuracies in %, with counts."""
    rows = []
    for protocol, subsets in all_results[NAME].items():
        for subset, row in subsets.items():
            if 'mean' in row:
                accuracy = f'{row["mean"]:.2f} +- {row["deviation"]:.2f}'
                rows.append([protocol, subset, f'{row["folds"]} x {row["train"]:,}', accuracy, ''])
            else:
                accuracy = f'{row["accuracy"]:.2f}'
                rows.append([protocol, subset, f'{row["train"]:,}', accuracy, results.format_fraction(row)])
    return (
        f'Transfer to {all_results["dataset"]}; accuracy in % on test images; over folds: mean +- sample standard'
        f' deviation (n - 1)\n\n'
        + results.format_table(['protocol', 'subset', 'training images', 'accuracy', 'correct'], rows, left=2)
    )


def read_folds(
    path: str | Path, *, num_folds: int, fold_size: int, num_examples: int
) -> Int[np.ndarray, '{num_folds} {fold_size}']:
    """Reads the indices of the examples of each fold.

    Args:
      path: a text file; each line has the indices of the examples of one fold, from 0, separated by spaces.
      num_folds: the expected number of folds.
      fold_size: the expected number of examples in each fold, all different; folds may overlap.
      num_examples: the number of examples in the data set; indices must be smaller.

    Raises:
      DataError: the file is unreadable or malformed; the message has the line, its value and the expected value.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding='ascii').rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise splits.DataError(f'{path}: cannot be read as a text file of folds ({error})') from error
    if len(lines) != num_folds:
        raise splits.DataError(f'{path}: has {len(lines)} lines, expected {num_folds}, one for each fold')
    names = (f'{path}, line {n}' for n in range(1, num_folds + 1))
    return np.array([_parse_line(line.split(), name, fold_size, num_examples) for line, name in zip(lines, names)])


def _parse_line(words, name, fold_size, num_examples):
    """Parses the words of one line into indices; `name` is 'PATH, line N', for messages."""
    if len(words) != fold_size:
        raise splits.DataError(f'{name}: has {len(words)} entries, expected {fold_size} indices')
    indices = {}  # a dictionary keeps their order and finds duplicates fast
    for word in words:
        if not word.isdecimal() or int(word) >= num_examples:
            raise splits.DataError(f'{name}: has {word!r}, expected integers from 0 to {num_examples - 1}')
        if int(word) in indices:
            raise splits.DataError(f'{name}: has {int(word)} twice, expected {fold_size} different indices')
        indices[int(word)] = None
    return list(indices)


def _remove_fold_checkpoints(run, rows):
    """Removes the checkpoints of completed folds: ten fine-tuned networks with their optimisers need 7 GB."""
    for protocol, subsets in rows.items():
        for subset in subsets:
            if subset != ALL and processes.is_first():
                folder = old_names.find_stage_folder(run.workdir, f'{NAME}/{protocol}/{subset}')
                shutil.rmtree(folder / 'checkpoints', ignore_errors=True)


def _fold_names(config):
    return [f'{FOLD_PREFIX[config.stl10.fold_protocol]}_{n}' for n in range(1, config.stl10.num_folds + 1)]


def _mean_name(config):
    return f'{FOLD_PREFIX[config.stl10.fold_protocol]}s'


def _folds_digest(config):
    path = Path(config.stl10.folds)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''
