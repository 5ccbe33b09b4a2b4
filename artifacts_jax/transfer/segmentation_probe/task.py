"""The task: a linear classifier of pixels on every frozen layer, of the learned and of a random network.

Images are squashed to squares. The classifiers are learned from some pixels of each image of data.probe_train, by
L-BFGS, the penalty picked on images that are held out; all pixels of data.test are judged, at the images' own sizes.
"""

import concurrent.futures
import itertools
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.data import parts
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.left_out import FILE, LeftOut
from artifacts_jax.devices import host, processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.drawing import label_maps
from artifacts_jax.features import lbfgs, linear
from artifacts_jax.models import architecture
from artifacts_jax.models.discriminator import scale_pixels
from artifacts_jax.training import keys, results
from artifacts_jax.transfer import confusion, masks
from artifacts_jax.transfer.segmentation_probe import masked, pixels
from artifacts_jax.transfer.voc.records import VOID

NAME = 'segmentation_probe'
SPLITS = ()  # of the data of other tasks; it opens its own
FIGURE, COUNT = 'segmentation_probe.png', 5  # photographs


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the processes, or the trunk cannot take the squares."""
    del devices
    processes.check_batch(f'{NAME}.batch_size', config.segmentation_probe.batch_size)
    architecture.check_size(f'{NAME}.size', config.segmentation_probe.size, config)


def examine(config: ConfigDict, datasets: dict) -> str:
    """Raises DataError if a mask is not what it should be, or there are too few images or classes; returns ''."""
    del datasets
    opened, data, options = masked.opened(config), config.data, config.segmentation_probe
    parts.warn_of_common(*opened.keys, train=data.probe_train, test=data.test)
    train, test = (f'{split} of {data.name}' for split in (data.probe_train, data.test))
    learned, tested = opened.train[: options.max_train or None], opened.test[: options.max_test or None]
    if len(learned) < 2:
        raise DataError(f'{train} is one image{" (max_train)" * (len(opened.train) > 1)}, expected two or more')
    masks.check(learned, train, classes=2, images=2, workers=data.workers)
    masks.check(tested, test, classes=1, workers=data.workers)
    return ''


def run(config: ConfigDict, workdir: Path, devices: Devices, datasets: dict, networks: dict) -> dict:
    """Probes every layer of every network; adds it to results.json, and draws figures/segmentation_probe.png.

    Results are written after each network, and a network that is in results.json already is passed over.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      devices: the mapping over devices.
      datasets: not used.
      networks: {'random', 'learned'}: discriminators, each with made_from, which names its state, and variables().

    Returns:
      What is in results.json: under 'segmentation_probe' {network: {'dataset', 'train', 'test', 'layers': {layer:
      {'miou', 'pixel_accuracy' in %, 'iou': {class: in %, None of one that is neither there nor predicted}, 'penalty',
      'held_out_accuracy' in %}}}}.
    """
    del datasets
    workdir, found = Path(workdir), results.read(workdir)
    rows, opened = found.setdefault(NAME, {}), None
    for name, network in results.distinct(networks).items():
        if results.current(found, f'{NAME}/{name}', results.origin(network.made_from, config, NAME)):
            continue
        print(f'{NAME}: {name}', flush=True)
        opened = opened or masked.opened(config)
        row, shown = probe(config, workdir, devices, opened, network.variables())
        rows[name] = {'dataset': config.data.name, **row}
        if processes.is_first():
            _draw(workdir / 'figures' / FIGURE, opened, row, shown, name)
        results.write(workdir, found)
        for layer, each in row['layers'].items():
            print(f'{NAME}:   {layer} mean IoU {_text(each["miou"])} %', flush=True)
    return found


def table(found: dict) -> str:
    """Returns what `run` does as tables of text: mean IoUs and accuracies of pixels, then every class's IoU."""
    networks = found[NAME]
    last = list(networks.values())[-1]
    rows = [
        [layer, *itertools.chain(*([_text(x['layers'][layer][key]) for key in ('miou', 'pixel_accuracy')]
                                   for x in networks.values()))]
        for layer in last['layers']
    ]  # fmt: skip
    best = {name: _best(row['layers']) for name, row in networks.items()}
    columns = [networks[name]['layers'][layer]['iou'] for name, layer in best.items()]
    classes = [[each, *(_text(column.get(each)) for column in columns)] for each in columns[-1]]
    headings = itertools.chain(*((name, 'pixels') for name in networks))
    return (
        f'Linear segmentation on frozen features of {last["dataset"]}, {last["train"]:,} training and'
        f' {last["test"]:,} test images; mean IoU and accuracy of pixels in %\n\n'
        + results.table(['layer', *headings], rows)
        + '\n'
        + results.table(['IoU', *(f'{name}, {layer}' for name, layer in best.items())], classes)
    )


def probe(
    config: ConfigDict, workdir: Path, devices: Devices, opened: masked.Splits, variables: dict
) -> tuple[dict, dict]:
    """Returns (the result of one network as in `run`, {layer: {position of one of the first test images: its
    pixels' classes}}).

    Raises:
      DataError: of the training images no pixel has a class, or none can be held out; or no test image can be used.
    """
    trunk = {kind: tree['trunk'] for kind, tree in variables.items()}
    classifiers, images = _fit(config, workdir, devices, opened.train, trunk)
    judge = devices.per_example(_judge(config))
    counts = {layer: np.zeros((VOID, VOID), np.int64) for layer in classifiers}
    shown, tested = {layer: {} for layer in classifiers}, 0

    def count_image(record, grids):
        mask, found = record.mask(), {}
        for layer, grid in grids.items():
            found[layer] = pixels.stretched(grid, mask.shape).argmax(axis=2).astype(np.uint8)
        return mask, found

    squares = _squares(config, workdir, opened.test, config.data.test)
    batches = squares.eval_batches(config.segmentation_probe.batch_size, limit=config.segmentation_probe.max_test)
    with concurrent.futures.ThreadPoolExecutor(config.data.workers or host.cpus()) as pool:
        for batch in batches:
            grids, index = judge({'trunk': trunk, 'classifiers': classifiers}, batch)
            each = [{layer: x[n] for layer, x in grids.items()} for n in range(len(index))]
            rows = index.tolist()
            for row, (mask, found) in zip(rows, pool.map(count_image, [opened.test[row] for row in rows], each)):
                tested += 1
                for layer, labels in found.items():
                    counts[layer] += confusion.matrix(mask, labels, VOID)
                    if tested <= COUNT:
                        shown[layer][row] = labels
    squares.left_out.say()
    if not tested:
        raise DataError(f'no image of {squares.left_out.place} can be used (see the warnings)')
    names = opened.names or tuple(map(str, range(_classes(classifiers, counts))))
    layers = {}
    for layer, classifier in classifiers.items():
        matrix = counts[layer][: len(names), : len(names)]
        layers[layer] = {
            'miou': _percent(confusion.mean_iou(matrix)),
            'pixel_accuracy': _percent(confusion.pixel_accuracy(matrix)),
            'iou': {name: _percent(value) for name, value in zip(names, confusion.iou(matrix))},
            'penalty': classifier.penalty,
            'held_out_accuracy': 100 * classifier.held_out_accuracy,
        }
    return {'train': images, 'test': tested, 'layers': layers}, shown


def _fit(config, workdir, devices, records, trunk):
    """Returns ({layer: classifier}, of how many images)."""
    options, extract = config.segmentation_probe, devices.per_example(_maps(config))
    samples, labels, rows = {}, [], []
    squares = _squares(config, workdir, records, config.data.probe_train)
    for batch in squares.eval_batches(options.batch_size, limit=options.max_train):
        maps, index = extract(trunk, batch)
        for n, row in enumerate(index.tolist()):
            mask = records[row].mask()
            places, classes = pixels.draw(mask, options.pixels, np.random.default_rng((config.seed, row)))
            labels.append(classes)
            rows.append(np.full(len(classes), row))
            for layer, grids in maps.items():
                samples.setdefault(layer, []).append(pixels.sample(grids[n], places, mask.shape))
    squares.left_out.say()
    labels, rows = (np.concatenate(x) if x else np.zeros(0, int) for x in (labels, rows))
    held_out = parts.held_out(rows, options.held_out)
    if len(labels) and (held_out.all() or not held_out.any()):  # of very few images
        held_out = rows == rows[-1]
    if not len(labels) or held_out.all():  # the others are damaged
        raise DataError(f'{len(np.unique(rows))} images of {squares.left_out.place} can be used, expected two or more')
    fit = partial(
        lbfgs.fit_lbfgs,
        num_classes=int(labels.max()) + 1,
        penalties=options.penalties,
        iterations=options.iterations,
        held_out=held_out,
        key=keys.stage_key(config.seed, NAME),
    )
    return {layer: fit(np.concatenate(samples.pop(layer)), labels) for layer in list(samples)}, len(np.unique(rows))


def _squares(config, workdir, records, split):
    options, place = config.segmentation_probe, f'{split} of {config.data.name}'
    record = LeftOut(place, len(records), live=True)
    record.keep(workdir / FILE)
    return masked.Squares(
        records=records,
        size=options.size,
        seed=config.seed,
        workers=config.data.workers,
        left_out=record,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


def _maps(config):
    """Returns a function(the trunk's variables, batch) -> ({layer: maps}, index)."""
    trunk, layers = architecture.make_trunk(config), config.segmentation_probe.layers

    def maps(variables, batch):
        _, found = trunk.apply(variables, scale_pixels(batch['image']))
        return {layer: found[layer].astype(jnp.float32) for layer in layers}, batch['index']

    return maps


def _judge(config):
    """Returns a function({'trunk', 'classifiers'}, batch) -> ({layer: scores of each class in each cell}, index)."""
    maps = _maps(config)

    def judge(variables, batch):
        found, index = maps(variables['trunk'], batch)
        scores = {}
        for layer, grids in found.items():
            flat = linear.predict(variables['classifiers'][layer], grids.reshape(-1, grids.shape[-1]))
            scores[layer] = flat.reshape(*grids.shape[:3], -1)
        return scores, index

    return judge


def _draw(path, opened, row, shown, network):
    layer = _best(row['layers'])
    records = [(opened.test[n], labels) for n, labels in shown[layer].items()]
    rows = [label_maps.Row(each.image(), (each.mask(), labels)) for each, labels in records]
    names = dict(enumerate(opened.names or map(str, range(VOID)))) | {VOID: 'void'}
    heads = ('photograph', 'truth', f'linear on {layer}, {network}')
    label_maps.draw(path, rows, heads, names, title='Linear segmentation on frozen features')


def _best(layers):
    return max(layers, key=lambda layer: layers[layer]['miou'] or 0.0)


def _classes(classifiers, counts):
    """Returns how many classes there are: those that can be predicted, and those that are there."""
    there = [1 + int(x.any(axis=1).nonzero()[0].max(initial=0)) for x in counts.values()]
    return max(*there, *(len(x.bias) for x in classifiers.values()))


def _percent(value):
    return None if np.isnan(value) else 100 * float(value)


def _text(value):
    return '-' if value is None else f'{value:.1f}'
