"""The task: a linear classifier of pixels on every frozen layer, of the learned and of a random network.

Images are squashed to squares. The classifiers are learned from some pixels of each image of data.probe_train, by
L-BFGS, the penalty picked on images that are held out; all pixels of data.test are judged, at the images' own sizes.

Between the cells of a grid of features, which divide an image's area evenly, features are interpolated bilinearly. A
linear classifier of these is the same as one of the cells whose scores are stretched to the image's size.
"""

import concurrent.futures
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32, Int, UInt8
from ml_collections import ConfigDict

from artifacts_jax.data import decoding, masked, reading, slices
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.splits import Datasets
from artifacts_jax.data.voc.records import VOID, check_masks
from artifacts_jax.devices import host, processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.drawing import label_maps
from artifacts_jax.features import lbfgs, linear
from artifacts_jax.models import architecture
from artifacts_jax.models.discriminator import scale_pixels
from artifacts_jax.training import keys, results
from artifacts_jax.training.evaluation import Entry, Run, list_networks
from artifacts_jax.transfer import confusion

NAME = 'segmentation_probe'
SPLITS = ()  # of the data of other tasks; it opens its own
entries = list_networks
FIGURE, COUNT = 'segmentation_probe.png', 5  # photographs


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if a batch does not divide by the processes, or the trunk cannot take the squares."""
    del devices
    processes.check_batch(f'{NAME}.batch_size', config.segmentation_probe.batch_size)
    architecture.check_size(f'{NAME}.size', config.segmentation_probe.size, config)


def open_data(config: ConfigDict, datasets: Datasets) -> masked.Splits:
    """Returns the splits.

    Raises:
      DataError: a mask is not what it should be, or there are too few images or classes.
    """
    del datasets
    opened, data, options = masked.open_splits(config), config.data, config.segmentation_probe
    slices.warn_of_overlap(*opened.keys, train=data.probe_train, test=data.test)
    train, test = (f'{split} of {data.name}' for split in (data.probe_train, data.test))
    learned, tested = opened.train[: options.max_train or None], opened.test[: options.max_test or None]
    if len(learned) < 2:
        raise DataError(f'{train} is one image{" (max_train)" * (len(opened.train) > 1)}, expected two or more')
    check_masks(learned, train, classes=2, images=2, workers=data.workers)
    check_masks(tested, test, classes=1, workers=data.workers)
    return opened


def evaluate(run: Run, data: masked.Splits, entry: Entry) -> dict:
    """Probes every layer of a network, and draws figures/segmentation_probe.png.

    Returns:
      {'dataset', 'train', 'test', 'layers': {layer: {'miou', 'pixel_accuracy' in %, 'iou': {class: in %, None of one
      that is neither there nor predicted}, 'penalty', 'held_out_accuracy' in %}}}.
    """
    trunk = entry.network.trunk
    classifiers, images = fit(run, data, trunk)
    row, shown = score(run, data, trunk, classifiers)
    if processes.is_first():
        _draw(run.workdir / 'figures' / FIGURE, data, row, shown, entry.key)
    return {'dataset': run.config.data.name, 'train': images, **row}


def columns(row: dict) -> dict[str, str]:
    """Returns the cells of a layer's row."""
    return {'': results.format_number(row['miou']), 'pixels': results.format_number(row['pixel_accuracy'])}


def summary(row: dict) -> list[str]:
    """Returns the mean IoU of each layer."""
    return [f'{layer} mean IoU {results.format_number(each["miou"])} %' for layer, each in row['layers'].items()]


def table(found: dict) -> str:
    """Returns the rows as tables of text: mean IoUs and accuracies of pixels, then every class's IoU."""
    networks = found[NAME]
    last = list(networks.values())[-1]
    rows = {name: {(layer,): each for layer, each in row['layers'].items()} for name, row in networks.items()}
    best = {name: _best(row['layers']) for name, row in networks.items()}
    ious = [networks[name]['layers'][layer]['iou'] for name, layer in best.items()]
    classes = [[each, *(results.format_number(iou.get(each)) for iou in ious)] for each in ious[-1]]
    return (
        f'Linear segmentation on frozen features of {last["dataset"]}, {last["train"]:,} training and'
        f' {last["test"]:,} test images; mean IoU and accuracy of pixels in %\n\n'
        + results.format_network_table(['layer'], rows, columns)
        + '\n'
        + results.format_table(['IoU', *(f'{name}, {layer}' for name, layer in best.items())], classes)
    )


def fit(run: Run, opened: masked.Splits, trunk: dict) -> tuple[dict[str, linear.Classifier], int]:
    """Returns ({layer: classifier}, of how many images).

    Raises:
      DataError: of the training images no pixel has a class, or none can be held out.
    """
    config, records = run.config, opened.train
    options, extract = config.segmentation_probe, run.devices.per_example(_maps(config))
    samples, labels, rows = {}, [], []
    squares = _squares(run, records, config.data.probe_train)
    for batch in squares.eval_batches(options.batch_size, limit=options.max_train):
        maps, index = extract(trunk, batch)
        for n, row in enumerate(index.tolist()):
            mask = records[row].read_mask()
            places, classes = sample_pixels(mask, options.pixels, np.random.default_rng((config.seed, row)))
            labels.append(classes)
            rows.append(np.full(len(classes), row))
            for layer, grids in maps.items():
                samples.setdefault(layer, []).append(interpolate(grids[n], places, mask.shape))
    labels, rows = (np.concatenate(x) if x else np.zeros(0, int) for x in (labels, rows))
    held_out = slices.is_held_out(rows, options.held_out)
    if len(labels) and (held_out.all() or not held_out.any()):  # of very few images
        held_out = rows == rows[-1]
    if not len(labels) or held_out.all():  # the others are damaged
        raise DataError(f'{len(np.unique(rows))} images of {squares.skipped.split} can be used, expected two or more')
    fit_layer = partial(
        lbfgs.fit_lbfgs,
        num_classes=int(labels.max()) + 1,
        penalties=options.penalties,
        iterations=options.iterations,
        held_out=held_out,
        key=keys.stage_key(config.seed, NAME),
    )
    classifiers = {layer: fit_layer(np.concatenate(samples.pop(layer)), labels) for layer in list(samples)}
    return classifiers, len(np.unique(rows))


def score(run: Run, opened: masked.Splits, trunk: dict, classifiers: dict[str, linear.Classifier]) -> tuple[dict, dict]:
    """Returns ({'test', 'layers'} as in `evaluate`, {layer: {position of a first image: its pixels' classes}}).

    Raises:
      DataError: no test image can be used.
    """
    config, devices = run.config, run.devices
    judge = devices.per_example(_judge(config))
    counts = {layer: np.zeros((VOID, VOID), np.int64) for layer in classifiers}
    shown, tested = {layer: {} for layer in classifiers}, 0

    def count_image(record, grids):
        mask, found = record.read_mask(), {}
        for layer, grid in grids.items():
            found[layer] = upsample(grid, mask.shape).argmax(axis=2).astype(np.uint8)
        return mask, found

    squares = _squares(run, opened.test, config.data.test)
    batches = squares.eval_batches(config.segmentation_probe.batch_size, limit=config.segmentation_probe.max_test)
    with concurrent.futures.ThreadPoolExecutor(config.data.workers or host.cpus()) as pool:
        for batch in batches:
            grids, index = judge({'trunk': trunk, 'classifiers': classifiers}, batch)
            each = [{layer: x[n] for layer, x in grids.items()} for n in range(len(index))]
            rows = index.tolist()
            for row, (mask, found) in zip(rows, pool.map(count_image, [opened.test[row] for row in rows], each)):
                tested += 1
                for layer, labels in found.items():
                    counts[layer] += confusion.compute_matrix(mask, labels, VOID)
                    if tested <= COUNT:
                        shown[layer][row] = labels
    if not tested:
        raise DataError(f'no image of {squares.skipped.split} can be used (see the warnings)')
    names = opened.names or tuple(map(str, range(_classes(classifiers, counts))))
    layers = {}
    for layer, classifier in classifiers.items():
        matrix = counts[layer][: len(names), : len(names)]
        layers[layer] = {
            'miou': results.to_percent(confusion.mean_iou(matrix)),
            'pixel_accuracy': results.to_percent(confusion.pixel_accuracy(matrix)),
            'iou': {name: results.to_percent(value) for name, value in zip(names, confusion.iou(matrix))},
            'penalty': classifier.penalty,
            'held_out_accuracy': 100 * classifier.held_out_accuracy,
        }
    return {'test': tested, 'layers': layers}, shown


def sample_pixels(
    mask: UInt8[np.ndarray, 'H W'], count: int, random: np.random.Generator
) -> tuple[Int[np.ndarray, 'N 2'], Int[np.ndarray, ' N']]:
    """Returns (rows and columns of pixels, their classes): so many that have a class, or all if there are fewer."""
    known = np.flatnonzero(mask != VOID)
    chosen = random.choice(known, min(count, len(known)), replace=False)
    return np.stack(np.unravel_index(chosen, mask.shape), axis=1), mask.reshape(-1)[chosen].astype(np.int64)


def interpolate(
    grid: Float32[np.ndarray, 'h w C'], places: Int[np.ndarray, 'N 2'], size: tuple[int, int]
) -> Float32[np.ndarray, 'N C']:
    """Returns the features of pixels.

    Args:
      grid: of the image.
      places: rows and columns of the pixels.
      size: the image's height and width.
    """
    (top, bottom, below), (left, right, beside) = (
        _between(places[:, axis], size[axis], grid.shape[axis]) for axis in (0, 1)
    )
    below, beside = below[:, None], beside[:, None]
    upper = grid[top, left] * (1 - beside) + grid[top, right] * beside
    lower = grid[bottom, left] * (1 - beside) + grid[bottom, right] * beside
    return upper * (1 - below) + lower * below


def upsample(grid: Float32[np.ndarray, 'h w K'], size: tuple[int, int]) -> Float32[np.ndarray, 'H W K']:
    """Returns what `sample` does of all pixels of an image of this height and width."""
    rows, columns = (_weights(size[axis], grid.shape[axis]) for axis in (0, 1))
    height, width, classes = grid.shape
    tall = (rows @ grid.reshape(height, -1)).reshape(size[0], width, classes)
    return np.matmul(columns[None], tall)


def _squares(run, records, split):
    config = run.config
    size, place = config.segmentation_probe.size, f'{split} of {config.data.name}'
    squares = reading.StreamedDataset(
        load=lambda record: {'image': decoding.resize_to_square(record.read_image(), size)},
        shapes={'image': ((size, size, 3), np.uint8)},
        **reading.make_options(config, records, place),
    )
    run.track_skipped(squares)
    return squares


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
    rows = [label_maps.Row(each.read_image(), (each.read_mask(), labels)) for each, labels in records]
    names = dict(enumerate(opened.names or map(str, range(VOID)))) | {VOID: 'void'}
    heads = ('photograph', 'truth', f'linear on {layer}, {network}')
    label_maps.draw(path, rows, heads, names, title='Linear segmentation on frozen features')


def _best(layers):
    return max(layers, key=lambda layer: layers[layer]['miou'] or 0.0)


def _classes(classifiers, counts):
    """Returns how many classes there are: those that can be predicted, and those that are there."""
    there = [1 + int(x.any(axis=1).nonzero()[0].max(initial=0)) for x in counts.values()]
    return max(*there, *(len(x.bias) for x in classifiers.values()))


def _between(places, length, cells):
    """Returns (the cells on both sides of pixels, how near they are to the second one, in [0, 1])."""
    position = np.clip((places + 0.5) * cells / length - 0.5, 0, cells - 1)
    first = np.minimum(position.astype(int), max(cells - 2, 0))
    return first, np.minimum(first + 1, cells - 1), (position - first).astype(np.float32)


def _weights(length, cells):
    """Returns what each cell adds to each pixel, [length, cells]."""
    first, second, near = _between(np.arange(length), length, cells)
    weights, rows = np.zeros((length, cells), np.float32), np.arange(length)
    weights[rows, first] += 1 - near
    weights[rows, second] += near
    return weights
