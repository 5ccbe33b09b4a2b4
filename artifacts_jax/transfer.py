"""Stage 4: transfer to STL-10 as published, a classifier on conv5 learned from labelled images.

Two protocols. 'linear' (the authors' 2019 code): the trunk is frozen and one fully connected layer is trained.
'finetune' (their 2018 code): three fully connected layers, and the whole trunk is trained with them. Each is run on all
training images and, with a file of folds, on each of these.
"""

import dataclasses
import hashlib
import json
import shutil
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from artifacts_jax import (
    artifacts,
    augment,
    data,
    export,
    folds,
    heads,
    keys,
    losses,
    models,
    optim,
    processes,
    report,
    train,
)
from artifacts_jax.parallel import Devices, accumulated, mean, share, total
from artifacts_jax.state import State

NAME = 'transfer'
ALL = 'all'
FOLD = {'official': 'fold', 'held_out': 'held_out_fold'}  # what a part is called, by transfer.fold_protocol


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training of a classifier, as train.run takes it. Its networks are 'trunk' and 'head'."""

    NAME: str  # transfer/PROTOCOL/PART, also its folder
    protocol: str  # 'linear' or 'finetune'
    images: int  # training images
    classes: int
    count: Callable | None = None  # of `counter`, for evaluation; the stages of a protocol share it, compiled once

    BASE = artifacts

    def plan(self, config: ConfigDict) -> tuple[int, int]:
        """Returns (steps, images in a global batch); as in the reference, an epoch has whole batches only."""
        batch_size = config.transfer.batch_size
        return max(1, self.images // batch_size) * config.transfer.epochs, batch_size

    def init_state(self, key, base: dict, *, config: ConfigDict) -> State:
        """Returns the state at step 0.

        Args:
          key: draws the weights of the head.
          base: the variables of the artifacts stage, whose trunk this one starts from.
          config: the run's configuration.
        """
        size = config.model.image_size
        drawn = make_classifier(self.protocol, self.classes, config).init(key, jnp.zeros((1, size, size, 3)))
        trained, frozen = {}, {}
        for kind, tree in artifacts.discriminator(base).items():
            trunk = {'trunk': tree['trunk']}
            head = {name: tree for name, tree in drawn[kind].items() if name == 'head'}
            changes = kind in self._changing(config)
            trained[kind], frozen[kind] = {**head, **(trunk if changes else {})}, {} if changes else trunk
        return State.create(trained, {tuple(trained['params']): self._optimiser(config)}, ema=False, frozen=frozen)

    def train_step(self, state: State, batch: dict, key, *, config: ConfigDict, axis_name=None):
        """One update on augmented images: minimises cross-entropy + L2 of the weights that are trained.

        Args:
          state: with the networks 'head' and, trained or frozen, 'trunk'.
          batch: 'image' uint8 [B, H, W, 3], 'label' int32 [B] and 'index' int32 [B], this device's part of the batch.
          key: the stage's key.
          config: the run's configuration.
          axis_name: the devices' axis under pmap.

        Returns:
          (state, {name: scalar}).
        """
        augment_keys, *dropout_keys = keys.example_keys(key, state.step, batch['index'], 3)
        images = augment.training_view(config, augment_keys, batch['image'])
        model, variables = make_classifier(self.protocol, self.classes, config, axis_name), state.variables

        def loss(params, part):
            images, labels, *dropout_keys = part
            logits, updates = model.apply(
                {**variables, 'params': {**variables['params'], **params}},
                images,
                train='batch_stats' in self._changing(config),
                dropout_keys=dropout_keys,
                mutable=['batch_stats'],
            )
            terms = {
                'loss/class': mean(losses.class_loss(logits, labels), axis_name),
                'loss/l2': share(config.optim.l2 * losses.l2(params), axis_name),
            }
            right = mean((logits.argmax(-1) == labels).astype(jnp.float32), axis_name)
            return sum(terms.values()), ({**terms, 'accuracy': right}, updates['batch_stats'])

        gradients = partial(jax.grad(loss, has_aux=True), state.params)
        whole = (images, batch['label'], *dropout_keys)
        grads, (values, batch_stats) = accumulated(gradients, config.accumulate, whole)
        grads, values = total((grads, values), axis_name)
        new = state.descend(self._optimiser(config), grads).replace(
            step=state.step + 1, batch_stats={name: batch_stats[name] for name in state.batch_stats}
        )
        return new, {**values, **{f'grad_norm/{name}': optax.tree.norm(grads[name]) for name in grads}}

    def evaluator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns evaluate(state, key) -> {'accuracy': in [0, 1]} on some of the test images."""
        del devices

        def evaluate(state, key):
            del key
            correct, examples = self.count(state.variables, datasets['test'], config.eval_examples)
            return {'accuracy': correct / examples}

        return evaluate

    def illustrator(self, config: ConfigDict, devices: Devices, datasets: dict) -> Callable:
        """Returns draw(state, key, folder), which draws nothing: the loop draws the curves."""
        del config, devices, datasets
        return lambda state, key, folder: None

    def _changing(self, config):
        """Returns the kinds of the trunk's variables that training changes."""
        if self.protocol == 'finetune':
            return 'params', 'batch_stats'
        # The 2019 code runs conv5's batch norm in training mode over the frozen weights.
        return ('batch_stats',) if config.transfer.batch_norm == 'reference' else ()

    def _optimiser(self, config):
        steps, _ = self.plan(config)
        return optim.adam(optim.schedule(config.transfer.learning_rate, steps, config), config)


def make_classifier(protocol: str, classes: int, config: ConfigDict, axis_name: str | None = None) -> heads.Classifier:
    """Makes the trunk with a protocol's head; `axis_name` names the devices under pmap."""
    head = heads.make_head(protocol, classes, config=config, axis_name=axis_name)
    return heads.Classifier(models.make_trunk(config, axis_name), head)


def counter(protocol: str, classes: int, config: ConfigDict, devices: Devices) -> Callable:
    """Returns count(variables, dataset, limit=0) -> (correct, examples), of the first `limit` or all examples."""
    model = make_classifier(protocol, classes, config)

    def judge(variables, batch):
        return model.apply(variables, augment.test_view(config, batch['image'])).argmax(-1) == batch['label']

    mapped = devices.per_example(judge)

    def count(variables, dataset, limit=0):
        batches = dataset.eval_batches(config.transfer.batch_size, limit=limit)
        right = np.concatenate([mapped(variables, batch) for batch in batches])
        return int(right.sum()), len(right)

    return count


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, base: Callable) -> dict:
    """Trains and tests the classifiers of every protocol; adds them to results.json and results.txt.

    Results are written after each part, and a part that is in results.json already is not trained again. Of a fold
    only the metrics are kept; of the training on all images the checkpoints too, and the trunk's export.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: {'probe_train', 'test'}: labelled data sets.
      base: a function that returns the variables of the artifacts stage.

    Returns:
      What is in results.json: 'dataset', and under 'transfer' {protocol: {part: {'accuracy' in %, 'correct', 'count',
      'train'}}}. Parts are 'all' and 'fold_1', ... ('held_out_fold_1', ...), numbered as the lines of the file of
      folds; 'folds' ('held_out_folds') is {'mean', 'deviation', 'ddof': 1, 'folds', 'train'} of them, the deviation
      the sample's.

    Raises:
      DataError: there are no labels, the file of folds is not what it should be, or folds are asked of streamed data.
      ConfigError: the batch does not divide by the devices.
    """
    path = Path(workdir) / 'results.json'
    results = json.loads(path.read_text()) if path.exists() else {}
    results['dataset'] = config.data.name
    learned = results.setdefault(NAME, {})
    _check_folds(Path(config.transfer.folds), results)
    for protocol in config.transfer.protocols:
        rows = learned.setdefault(protocol, {})
        for part, stage, split in _undone(protocol, rows, config, devices, datasets):
            rows[part] = _learn(part, stage, config, Path(workdir), devices, split, base())
            rows.update(_summary(config, rows))
            report.write_json(path, results)
            _discard(Path(workdir) / NAME / protocol, rows)
        _discard(Path(workdir) / NAME / protocol, rows)  # what a run that was killed has left
    report.write_results(workdir, results)
    print(f'{NAME}: done; the table is in {workdir}/results.txt, the numbers in {path}')
    return results


def _undone(protocol, rows, config, devices, datasets):
    """Yields (part, stage, its data) of the parts that have no row yet; opens the data only if there is one."""
    parts = [part for part in _parts(config) if part not in rows]
    if not parts:
        return
    devices.check_batch('transfer.batch_size', config.transfer.batch_size, config.accumulate)
    classes = _classes(config, datasets['probe_train'])
    indices = _read_folds(config, datasets['probe_train'])
    count = counter(protocol, classes, config, devices)
    for part in parts:
        split = _split(part, datasets, indices)
        yield part, Stage(f'{NAME}/{protocol}/{part}', protocol, split['train'].num_examples, classes, count), split


def _learn(part, stage, config, workdir, devices, split, base):
    """Returns the result of a stage, with every example of split['test'] counted."""
    state = train.run(stage, config, workdir, devices, split, base)
    correct, count = stage.count(state.variables, split['test'])
    print(f'{stage.NAME}: {100 * correct / count:.2f} % ({correct:,} / {count:,})', flush=True)
    if part == ALL:
        head = {'protocol': stage.protocol, 'classes': stage.classes}
        export.save(workdir / NAME / stage.protocol / 'export', state.variables, config, head=head)
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


def _check_folds(path, results):
    """Raises DataError if results of folds are there that were made with another file of folds."""
    if path.is_file():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if results.setdefault('folds_sha256', digest) != digest:
            raise data.DataError(
                f'transfer.folds={path} is another file than that of the folds in results.json (its sha256 is'
                f' {results["folds_sha256"]}): use that, or another --workdir with artifacts.pretrained'
            )


def _read_folds(config, dataset):
    """Returns the folds as positions in the data set as read, [folds, size]; None if there is no file of folds."""
    options = config.transfer
    if not options.folds:
        return None
    size = {'count': options.num_folds, 'size': options.fold_size}
    indices = folds.read(options.folds, examples=dataset.num_examples, **size)
    places = np.argsort(data.original_order(config.data, config.data.probe_train))[indices]
    _ = dataset.subset(places[0])  # refuses a streamed data set now, not after hours of training on all images
    return places


def _classes(config, dataset):
    """Returns the number of classes, or raises DataError if there are none."""
    if not dataset.num_classes:
        raise data.DataError(
            f'split {config.data.probe_train!r} of {config.data.name} has no labels, which {NAME} learns from: set'
            f' data.probe_train to a labelled split'
        )
    return dataset.num_classes


def _summary(config, rows):
    """Returns {'folds' or 'held_out_folds': their mean and deviation} once every fold is there."""
    done = [rows[name] for name in _fold_names(config) if name in rows]
    if len(done) < config.transfer.num_folds:
        return {}
    accuracies = [row['accuracy'] for row in done]
    summary = {'mean': statistics.mean(accuracies), 'deviation': statistics.stdev(accuracies), 'ddof': 1}
    return {f'{FOLD[config.transfer.fold_protocol]}s': {**summary, 'folds': len(done), 'train': done[0]['train']}}
