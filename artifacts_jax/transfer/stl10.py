"""Stage 4: transfer to STL-10 as published, a classifier on conv5 learned from labelled images.

Each protocol of classifier.py is run on all training images and, with a file of folds, on each of these. Such a file
has the indices of a fold's examples in each line, as STL-10's fold_indices.txt.
"""

import hashlib
import shutil
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from artifacts_jax import renamed
from artifacts_jax.data import splits
from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import classifier

NAME = 'stl10'
SPLITS = ('probe_train', 'test')  # of the data, that it needs
ALL = 'all'
FOLD = {'official': 'fold', 'held_out': 'held_out_fold'}  # what a part is called, by stl10.fold_protocol


class Data(NamedTuple):
    """What classifiers learn from and are tested on."""

    train: Any
    test: Any
    classes: int
    folds: Int[np.ndarray, 'folds size'] | None  # positions in train
    counters: dict  # {protocol: what counts correct predictions}, which its parts share, compiled once

    def split(self, part: str) -> dict:
        """Returns the data of a part, {'train', 'test'}."""
        if part == ALL:
            return {'train': self.train, 'test': self.test}
        kind, _, number = part.rpartition('_')
        fold = self.folds[int(number) - 1]
        if kind == FOLD['official']:
            return {'train': self.train.subset(fold), 'test': self.test}
        others = np.setdiff1d(np.arange(self.train.num_examples), fold)
        return {'train': self.train.subset(others), 'test': self.train.subset(fold)}


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the devices."""
    devices.check_batch('stl10.batch_size', config.stl10.batch_size, config.accumulate)


def open_data(config: ConfigDict, datasets: Datasets) -> Data:
    """Returns the data.

    Raises:
      DataError: there are no labels, the file of folds is not what it should be, or folds are asked of streamed data.
    """
    train, options = datasets['probe_train'], config.stl10
    classes, positions = splits.classes(config.data, 'probe_train', train, stage=NAME), None
    if options.folds:
        size = {'count': options.num_folds, 'size': options.fold_size}
        indices = read_folds(options.folds, examples=train.num_examples, **size)
        positions = np.argsort(splits.original_order(config.data, config.data.probe_train))[indices]
        _ = train.subset(positions[0])  # refuses a streamed data set now, not after hours of training on all images
    return Data(train, datasets['test'], classes, positions, {})


def check_results(config: ConfigDict, found: dict) -> None:
    """Raises DataError if results of folds are there that were made with another file of folds."""
    digest = _folds_digest(config)
    if digest and found.get('folds_sha256', digest) != digest:
        raise splits.DataError(
            f'stl10.folds={config.stl10.folds} is another file than that of the folds in results.json (its sha256'
            f' is {found["folds_sha256"]}): use that, or another --workdir with artifacts.pretrained'
        )


def entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {'PROTOCOL/PART': the learned network}.

    Parts are 'all' and 'fold_1', ... ('held_out_fold_1', ...), numbered as the lines of the file of folds; 'folds'
    ('held_out_folds') is the last one's summary.
    """
    folds = _fold_names(config) if config.stl10.folds else []
    parts = [ALL, *folds, *([_summary_name(config)] if folds else [])]
    return {f'{protocol}/{part}': networks['learned'] for protocol in config.stl10.protocols for part in parts}


def evaluate(run: Run, data: Data, entry: Entry) -> dict:
    """Trains and tests the classifier of a part.

    Of a fold only the metrics are kept; of the training on all images the checkpoints too, and the trunk's export.

    Returns:
      {'accuracy' in %, 'correct', 'count', 'train'}; of the summary of folds {'mean', 'deviation', 'ddof': 1, 'folds',
      'train'}, the deviation the sample's.
    """
    protocol, _, part = entry.key.partition('/')
    _discard(run, entry.rows)
    if part == _summary_name(run.config):
        rows = [entry.rows[protocol][name] for name in _fold_names(run.config)]
        accuracies = [row['accuracy'] for row in rows]
        summary = {'mean': statistics.mean(accuracies), 'deviation': statistics.stdev(accuracies), 'ddof': 1}
        return {**summary, 'folds': len(rows), 'train': rows[0]['train']}
    count = classifier.counter(protocol, data.classes, run.config, run.devices)
    split, count = data.split(part), data.counters.setdefault(protocol, count)
    images = split['train'].num_examples
    stage = classifier.Stage(NAME=entry.name, protocol=protocol, images=images, classes=data.classes, predict=count)
    state = run.train(stage, entry, split)
    correct, examples = count(state.variables, split['test'])
    if part == ALL:
        head, source = {'protocol': protocol, 'classes': data.classes}, {'stage': entry.name, 'step': int(state.step)}
        folder = renamed.find_stage_folder(run.workdir, f'{NAME}/{protocol}/export')
        exports.save(folder, state.variables, run.config, head=head, source=source)
    return {'accuracy': 100 * correct / examples, 'correct': correct, 'count': examples, 'train': images}


def about(run: Run, data: Data) -> dict:
    """Returns the data set's name, and a digest of the file of folds."""
    del data
    digest = _folds_digest(run.config)
    return {'dataset': run.config.data.name, **({'folds_sha256': digest} if digest else {})}


def summary(row: dict) -> list[str]:
    """Returns the accuracy."""
    if 'mean' in row:
        return [f'{row["mean"]:.2f} +- {row["deviation"]:.2f} % of {row["folds"]} folds']
    return [f'{row["accuracy"]:.2f} % ({results.format_fraction(row)})']


def finish(run: Run, found: dict) -> None:
    """Removes what a run that was killed has left of folds."""
    _discard(run, found[NAME])


def table(found: dict) -> str:
    """Returns the rows as a table of text: accuracies in %, with counts."""
    rows = []
    for protocol, parts in found[NAME].items():
        for part, row in parts.items():
            if 'mean' in row:
                accuracy = f'{row["mean"]:.2f} +- {row["deviation"]:.2f}'
                rows.append([protocol, part, f'{row["folds"]} x {row["train"]:,}', accuracy, ''])
            else:
                accuracy = f'{row["accuracy"]:.2f}'
                rows.append([protocol, part, f'{row["train"]:,}', accuracy, results.format_fraction(row)])
    return (
        f'Transfer to {found["dataset"]}; accuracy in % on test images, and over folds its mean and sample standard'
        f' deviation (divided by the folds less one)\n\n'
        + results.format_table(['protocol', 'part', 'training images', 'accuracy', 'correct'], rows, left=2)
    )


def read_folds(path: str | Path, *, count: int, size: int, examples: int) -> Int[np.ndarray, '{count} {size}']:
    """Reads the indices of the examples of each fold.

    Args:
      path: a text file; each line has the indices of a fold's examples, from 0, separated by spaces.
      count: how many folds it must hold.
      size: how many examples each fold must hold, all different; folds may overlap.
      examples: how many examples there are to choose from.

    Raises:
      DataError: the file cannot be read or holds something else; the message names line, find and expectation.
    """
    try:
        lines = Path(path).expanduser().read_text(encoding='ascii').rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise splits.DataError(f'{path}: cannot be read as a text file of folds ({error})') from error
    if len(lines) != count:
        raise splits.DataError(f'{path}: has {len(lines)} lines, expected {count}, one for each fold')
    places = (f'{path}, line {n}' for n in range(1, count + 1))
    return np.array([_parse(line.split(), place, size, examples) for line, place in zip(lines, places)])


def _parse(words, place, size, examples):
    """Returns the indices that a line's words are."""
    if len(words) != size:
        raise splits.DataError(f'{place}: has {len(words)} entries, expected {size} indices')
    seen = set()
    for word in words:
        if not word.isdecimal() or int(word) >= examples:
            raise splits.DataError(f'{place}: holds {word!r}, expected integers from 0 to {examples - 1}')
        if int(word) in seen:
            raise splits.DataError(f'{place}: holds {int(word)} twice, expected {size} different indices')
        seen.add(int(word))
    return [int(word) for word in words]


def _discard(run, rows):
    """Removes the checkpoints of folds: ten fine-tuned networks with their optimisers are 7 GB."""
    for protocol, parts in rows.items():
        for part in parts:
            if part != ALL and processes.is_first():
                folder = renamed.find_stage_folder(run.workdir, f'{NAME}/{protocol}/{part}')
                shutil.rmtree(folder / 'checkpoints', ignore_errors=True)


def _fold_names(config):
    return [f'{FOLD[config.stl10.fold_protocol]}_{n}' for n in range(1, config.stl10.num_folds + 1)]


def _summary_name(config):
    return f'{FOLD[config.stl10.fold_protocol]}s'


def _folds_digest(config):
    path = Path(config.stl10.folds)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ''
