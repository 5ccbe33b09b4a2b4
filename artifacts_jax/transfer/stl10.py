"""Stage 4: transfer to STL-10 as published, a classifier on conv5 learned from labelled images.

Each protocol of classifier.py is run on all training images and, with a file of folds, on each of these.
"""

import hashlib
import shutil
import statistics
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import splits
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports
from artifacts_jax.training import loop, results
from artifacts_jax.transfer import classifier, folds

NAME = 'transfer'
SPLITS = ('probe_train', 'test')  # of the data, that it needs
ALL = 'all'
FOLD = {'official': 'fold', 'held_out': 'held_out_fold'}  # what a part is called, by transfer.fold_protocol


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the devices."""
    devices.check_batch('transfer.batch_size', config.transfer.batch_size, config.accumulate)


def examine(config: ConfigDict, datasets: dict) -> str:
    """Raises DataError if there are no labels, or the file of folds is not what it should be; returns ''."""
    splits.classes(config.data, 'probe_train', datasets['probe_train'], stage=NAME)
    _read_folds(config, datasets['probe_train'])
    return ''


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, networks: dict) -> dict:
    """Trains and tests the classifiers of every protocol; adds them to results.json.

    Results are written after each part, and a part that is in results.json already is not trained again. Of a fold
    only the metrics are kept; of the training on all images the checkpoints too, and the trunk's export.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: {'probe_train', 'test'}: labelled data sets.
      networks: {'learned'}: the discriminator, with made_from, which names its state, and variables().

    Returns:
      What is in results.json: 'dataset', and under 'transfer' {protocol: {part: {'accuracy' in %, 'correct', 'count',
      'train'}}}. Parts are 'all' and 'fold_1', ... ('held_out_fold_1', ...), numbered as the lines of the file of
      folds; 'folds' ('held_out_folds') is {'mean', 'deviation', 'ddof': 1, 'folds', 'train'} of them, the deviation
      the sample's.

    Raises:
      DataError: there are no labels, the file of folds is not what it should be, or folds are asked of streamed data.
    """
    found = results.read(workdir)
    found['dataset'] = config.data.name
    learned = found.setdefault(NAME, {})
    _check_folds(Path(config.transfer.folds), found)
    for protocol in config.transfer.protocols:
        rows = learned.setdefault(protocol, {})
        made_from = results.origin(networks['learned'].made_from, config, NAME)
        parts = [p for p in _parts(config) if not results.current(found, f'{NAME}/{protocol}/{p}', made_from)]
        for part, stage, split in _prepared(protocol, parts, config, devices, datasets):
            base = {kind: {'discriminator': tree} for kind, tree in networks['learned'].variables().items()}
            rows[part] = _learn(part, stage, config, Path(workdir), devices, split, base, made_from['settings'])
            for name, summary in _summary(config, rows).items():
                results.current(found, f'{NAME}/{protocol}/{name}', made_from)
                rows[name] = summary
            results.write(workdir, found)
            _discard(Path(workdir) / NAME / protocol, rows)
        _discard(Path(workdir) / NAME / protocol, rows)  # what a run that was killed has left
    return found


def table(found: dict) -> str:
    """Returns what `run` does as a table of text: accuracies in %, with counts."""
    rows = []
    for protocol, parts in found[NAME].items():
        for part, row in parts.items():
            if 'mean' in row:
                accuracy = f'{row["mean"]:.2f} +- {row["deviation"]:.2f}'
                rows.append([protocol, part, f'{row["folds"]} x {row["train"]:,}', accuracy, ''])
            else:
                accuracy = f'{row["accuracy"]:.2f}'
                rows.append([protocol, part, f'{row["train"]:,}', accuracy, results.fraction(row)])
    return (
        f'Transfer to {found["dataset"]}; accuracy in % on test images, and over folds its mean and sample standard'
        f' deviation (divided by the folds less one)\n\n'
        + results.table(['protocol', 'part', 'training images', 'accuracy', 'correct'], rows, left=2)
    )


def _prepared(protocol, parts, config, devices, datasets):
    """Yields (part, stage, its data) of parts; opens the data only if there is one."""
    if not parts:
        return
    classes = splits.classes(config.data, 'probe_train', datasets['probe_train'], stage=NAME)
    indices = _read_folds(config, datasets['probe_train'])
    count = classifier.counter(protocol, classes, config, devices)
    for part in parts:
        split = _split(part, datasets, indices)
        yield (
            part,
            classifier.Stage(f'{NAME}/{protocol}/{part}', protocol, split['train'].num_examples, classes, count),
            split,
        )


def _learn(part, stage, config, workdir, devices, split, base, settings):
    """Returns the result of a stage, with every example of split['test'] counted."""
    state = loop.run(stage, config, workdir, devices, split, base, settings=settings)
    correct, count = stage.count(state.variables, split['test'])
    print(f'{stage.NAME}: {100 * correct / count:.2f} % ({correct:,} / {count:,})', flush=True)
    if part == ALL:
        head = {'protocol': stage.protocol, 'classes': stage.classes}
        source = {'stage': stage.NAME, 'step': int(state.step)}
        exports.save(workdir / NAME / stage.protocol / 'export', state.variables, config, head=head, source=source)
    return {'accuracy': 100 * correct / count, 'correct': correct, 'count': count, 'train': stage.images}


def _discard(folder, parts):
    """Removes the checkpoints of folds: ten fine-tuned networks with their optimisers are 7 GB."""
    for part in parts:
        if part != ALL and processes.is_first():
            shutil.rmtree(folder / part / 'checkpoints', ignore_errors=True)


def _parts(config):
    """Returns the names of the parts of the training images that a protocol is run on."""
    return [ALL, *(_fold_names(config) if config.transfer.folds else [])]


def _fold_names(config):
    return [f'{FOLD[config.transfer.fold_protocol]}_{n}' for n in range(1, config.transfer.num_folds + 1)]


def _split(part, datasets, indices):
    """Returns the part's data, {'train', 'test'}; `indices` [folds, size] are examples of 'probe_train'."""
    images, test = datasets['probe_train'], datasets['test']
    if part == ALL:
        return {'train': images, 'test': test}
    kind, _, number = part.rpartition('_')
    fold = indices[int(number) - 1]
    if kind == FOLD['official']:
        return {'train': images.subset(fold), 'test': test}
    others = np.setdiff1d(np.arange(images.num_examples), fold)
    return {'train': images.subset(others), 'test': images.subset(fold)}


def _check_folds(path, found):
    """Raises DataError if results of folds are there that were made with another file of folds."""
    if path.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if found.setdefault('folds_sha256', digest) != digest:
            raise splits.DataError(
                f'transfer.folds={path} is another file than that of the folds in results.json (its sha256 is'
                f' {found["folds_sha256"]}): use that, or another --workdir with artifacts.pretrained'
            )


def _read_folds(config, dataset):
    """Returns the folds as positions in the data set as read, [folds, size]; None if there is no file of folds."""
    options = config.transfer
    if not options.folds:
        return None
    size = {'count': options.num_folds, 'size': options.fold_size}
    indices = folds.read(options.folds, examples=dataset.num_examples, **size)
    places = np.argsort(splits.original_order(config.data, config.data.probe_train))[indices]
    _ = dataset.subset(places[0])  # refuses a streamed data set now, not after hours of training on all images
    return places


def _summary(config, rows):
    """Returns {'folds' or 'held_out_folds': their mean and deviation} once every fold is there."""
    done = [rows[name] for name in _fold_names(config) if name in rows]
    if len(done) < config.transfer.num_folds:
        return {}
    accuracies = [row['accuracy'] for row in done]
    summary = {'mean': statistics.mean(accuracies), 'deviation': statistics.stdev(accuracies), 'ddof': 1}
    return {f'{FOLD[config.transfer.fold_protocol]}s': {**summary, 'folds': len(done), 'train': done[0]['train']}}
