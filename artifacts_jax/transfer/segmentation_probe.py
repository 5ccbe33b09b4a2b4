"""The task `segmentation_probe`: a linear pixel classifier on each frozen layer of the trained and of a random network.

Images are resized to squares. The classifiers are trained with L-BFGS on sampled pixels of each image of
data.probe_train; held-out images choose the penalty. They are tested on all pixels of data.test, at the original sizes.

The features of a pixel are interpolated bilinearly between the positions of the feature map. Linear classification and
bilinear upsampling commute, so a test classifies the feature map and upsamples the scores.
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
SPLITS = ()  # none: this task opens its own data
list_entries = list_networks
FIGURE, FIGURE_IMAGES = 'segmentation_probe.png', 5


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if the processes cannot share the batch equally, or the images are too small for the trunk."""
    del devices
    processes.check_batch(f'{NAME}.batch_size', config.segmentation_probe.batch_size)
    architecture.check_size(f'{NAME}.size', config.segmentation_probe.size, config)


def open_data(config: ConfigDict, datasets: Datasets) -> masked.Splits:
    """Returns the splits.

    Raises:
      DataError: a mask is invalid, or there are too few images or classes.
    """
    del datasets
    images, data, options = masked.open_splits(config), config.data, config.segmentation_probe
    slices.warn_of_overlap(*images.ids, train=data.probe_train, test=data.test)
    train, test = (f'{split} of {data.name}' for split in (data.probe_train, data.test))
    train_records, test_records = images.train[: options.max_train or None], images.test[: options.max_test or None]
    if len(train_records) < 2:
        raise DataError(f'{train} is one image{" (max_train)" * (len(images.train) > 1)}, expected two or more')
    check_masks(train_records, train, classes=2, images=2, workers=data.workers)
    check_masks(test_records, test, classes=1, workers=data.workers)
    return images


def evaluate(run: Run, data: masked.Splits, entry: Entry) -> dict:
    """Trains and tests a classifier on each layer of a network, and writes figures/segmentation_probe.png.

    Returns:
      {'dataset', 'train', 'test', 'layers': {layer: {'miou' and 'pixel_accuracy' in %, 'iou': {class: in %, or None for
      a class that is neither in the truth nor predicted}, 'penalty', 'held_out_accuracy' in %}}}.
    """
    trunk = entry.network.trunk
    classifiers, num_train = fit(run, data, trunk)
    row, predictions = score(run, data, trunk, classifiers)
    if processes.is_first():
        _plot(run.workdir / 'figures' / FIGURE, data, row, predictions, entry.key)
    return {'dataset': run.config.data.name, 'train': num_train, **row}


def columns(row: dict) -> dict[str, str]:
    """Returns the table cells of one layer."""
    return {'': results.format_number(row['miou']), 'pixels': results.format_number(row['pixel_accuracy'])}


def summary(row: dict) -> list[str]:
    """Returns the lines to print for a row: the mean IoU of each layer."""
    return [f'{layer} mean IoU {results.format_number(result["miou"])} %' for layer, result in row['layers'].items()]


def table(all_results: dict) -> str:
    """Returns the rows as text tables: mean IoUs and pixel accuracies, then the IoU of each class."""
    networks = all_results[NAME]
    last = list(networks.values())[-1]
    rows = {name: {(layer,): result for layer, result in row['layers'].items()} for name, row in networks.items()}
    best = {name: _best(row['layers']) for name, row in networks.items()}
    ious = [networks[name]['layers'][layer]['iou'] for name, layer in best.items()]
    classes = [[name, *(results.format_number(iou.get(name)) for iou in ious)] for name in ious[-1]]
    return (
        f'Linear segmentation on frozen features of {last["dataset"]}, {last["train"]:,} training and'
        f' {last["test"]:,} test images; mean IoU and pixel accuracy in %\n\n'
        + results.format_network_table(['layer'], rows, columns)
        + '\n'
        + results.format_table(['IoU', *(f'{name}, {layer}' for name, layer in best.items())], classes)
    )


def fit(run: Run, images: masked.Splits, trunk: dict) -> tuple[dict[str, linear.Classifier], int]:
    """Returns ({layer: classifier}, number of training images).

    Raises:
      DataError: no pixel of the training images has a class, or no image can be held out.
    """
    config, records = run.config, images.train
    options, extract = config.segmentation_probe, run.devices.per_example(_make_extractor(config))
    samples, labels, rows = {}, [], []
    squares = _resize_to_squares(run, records, config.data.probe_train)
    for batch in squares.eval_batches(options.batch_size, limit=options.max_train):
        maps, index = extract(trunk, batch)
        for n, row in enumerate(index.tolist()):
            mask = records[row].read_mask()
            pixels, classes = sample_pixels(mask, options.pixels, np.random.default_rng((config.seed, row)))
            labels.append(classes)
            rows.append(np.full(len(classes), row))
            for layer, grids in maps.items():
                samples.setdefault(layer, []).append(interpolate(grids[n], pixels, mask.shape))
    labels, rows = (np.concatenate(x) if x else np.zeros(0, int) for x in (labels, rows))
    held_out = slices.is_held_out(rows, options.held_out)
    if len(labels) and (held_out.all() or not held_out.any()):  # there are very few images
        held_out = rows == rows[-1]
    if not len(labels) or held_out.all():  # too few images are undamaged
        raise DataError(f'{squares.skipped.split}: {len(np.unique(rows))} usable images, expected two or more')
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


def score(run: Run, images: masked.Splits, trunk: dict, classifiers: dict[str, linear.Classifier]) -> tuple[dict, dict]:
    """Returns ({'test', 'layers'} as in `evaluate`, {layer: {index of a test image: predicted classes of its pixels}}).

    The predictions are those of the first FIGURE_IMAGES test images.

    Raises:
      DataError: no test image can be used.
    """
    config, devices = run.config, run.devices
    score_maps = devices.per_example(_make_scorer(config))
    counts = {layer: np.zeros((VOID, VOID), np.int64) for layer in classifiers}
    predictions, num_test = {layer: {} for layer in classifiers}, 0

    def predict_image(record, grids):
        mask, predicted = record.read_mask(), {}
        for layer, grid in grids.items():
            predicted[layer] = upsample(grid, mask.shape).argmax(axis=2).astype(np.uint8)
        return mask, predicted

    squares = _resize_to_squares(run, images.test, config.data.test)
    batches = squares.eval_batches(config.segmentation_probe.batch_size, limit=config.segmentation_probe.max_test)
    with concurrent.futures.ThreadPoolExecutor(config.data.workers or host.cpus()) as pool:
        for batch in batches:
            grids, index = score_maps({'trunk': trunk, 'classifiers': classifiers}, batch)
            image_grids = [{layer: x[n] for layer, x in grids.items()} for n in range(len(index))]
            rows = index.tolist()
            records = [images.test[row] for row in rows]
            for row, (mask, predicted) in zip(rows, pool.map(predict_image, records, image_grids)):
                num_test += 1
                for layer, labels in predicted.items():
                    counts[layer] += confusion.compute_matrix(mask, labels, VOID)
                    if num_test <= FIGURE_IMAGES:
                        predictions[layer][row] = labels
    if not num_test:
        raise DataError(f'{squares.skipped.split}: no usable images (see the warnings)')
    names = images.names or tuple(map(str, range(_count_classes(classifiers, counts))))
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
    return {'test': num_test, 'layers': layers}, predictions


def sample_pixels(
    mask: UInt8[np.ndarray, 'H W'], count: int, random: np.random.Generator
) -> tuple[Int[np.ndarray, 'N 2'], Int[np.ndarray, ' N']]:
    """Samples `count` pixels that have a class, or all of them if there are fewer.

    Returns:
      (rows and columns of the pixels, their classes).
    """
    candidates = np.flatnonzero(mask != VOID)
    sample = random.choice(candidates, min(count, len(candidates)), replace=False)
    return np.stack(np.unravel_index(sample, mask.shape), axis=1), mask.reshape(-1)[sample].astype(np.int64)


def interpolate(
    grid: Float32[np.ndarray, 'h w C'], pixels: Int[np.ndarray, 'N 2'], size: tuple[int, int]
) -> Float32[np.ndarray, 'N C']:
    """Returns the features of pixels, interpolated bilinearly.

    Args:
      grid: the feature map of an image.
      pixels: rows and columns of the pixels.
      size: height and width of the image, in pixels.
    """
    (top, bottom, y), (left, right, x) = (_locate(pixels[:, axis], size[axis], grid.shape[axis]) for axis in (0, 1))
    y, x = y[:, None], x[:, None]
    upper = grid[top, left] * (1 - x) + grid[top, right] * x
    lower = grid[bottom, left] * (1 - x) + grid[bottom, right] * x
    return upper * (1 - y) + lower * y


def upsample(grid: Float32[np.ndarray, 'h w K'], size: tuple[int, int]) -> Float32[np.ndarray, 'H W K']:
    """Returns a map interpolated bilinearly at all pixels of an image; `size` is its height and width."""
    rows, columns = (_make_weights(size[axis], grid.shape[axis]) for axis in (0, 1))
    height, width, classes = grid.shape
    tall = (rows @ grid.reshape(height, -1)).reshape(size[0], width, classes)
    return np.matmul(columns[None], tall)


def _resize_to_squares(run, records, split):
    """Returns the images of a split as a data set, resized to squares."""
    config = run.config
    size, name = config.segmentation_probe.size, f'{split} of {config.data.name}'
    squares = reading.StreamedDataset(
        load=lambda record: {'image': decoding.resize_to_square(record.read_image(), size)},
        shapes={'image': ((size, size, 3), np.uint8)},
        **reading.make_options(config, records, name),
    )
    run.track_skipped(squares)
    return squares


def _make_extractor(config):
    """Returns extract(variables of the trunk, batch) -> ({layer: feature maps}, index)."""
    trunk, layers = architecture.make_trunk(config), config.segmentation_probe.layers

    def extract(variables, batch):
        _, maps = trunk.apply(variables, scale_pixels(batch['image']))
        return {layer: maps[layer].astype(jnp.float32) for layer in layers}, batch['index']

    return extract


def _make_scorer(config):
    """Returns score_maps({'trunk', 'classifiers'}, batch) -> ({layer: class scores [B, h, w, K]}, index)."""
    extract = _make_extractor(config)

    def score_maps(variables, batch):
        maps, index = extract(variables['trunk'], batch)
        scores = {}
        for layer, grids in maps.items():
            flat = linear.predict(variables['classifiers'][layer], grids.reshape(-1, grids.shape[-1]))
            scores[layer] = flat.reshape(*grids.shape[:3], -1)
        return scores, index

    return score_maps


def _plot(path, images, row, predictions, network):
    layer = _best(row['layers'])
    records = [(images.test[n], labels) for n, labels in predictions[layer].items()]
    rows = [label_maps.Row(record.read_image(), (record.read_mask(), labels)) for record, labels in records]
    names = dict(enumerate(images.names or map(str, range(VOID)))) | {VOID: 'void'}
    heads = ('photograph', 'truth', f'linear on {layer}, {network}')
    label_maps.draw(path, rows, heads, names, title='Linear segmentation on frozen features')


def _best(layers):
    return max(layers, key=lambda layer: layers[layer]['miou'] or 0.0)


def _count_classes(classifiers, counts):
    """Returns the number of classes, including those that only the truth or only the classifiers have."""
    in_truth = [1 + int(x.any(axis=1).nonzero()[0].max(initial=0)) for x in counts.values()]
    return max(*in_truth, *(len(x.bias) for x in classifiers.values()))


def _locate(pixels, length, cells):
    """Returns (the cell before, the cell after, the weight of the cell after, in [0, 1]) for pixels along one axis."""
    position = np.clip((pixels + 0.5) * cells / length - 0.5, 0, cells - 1)
    first = np.minimum(position.astype(int), max(cells - 2, 0))
    return first, np.minimum(first + 1, cells - 1), (position - first).astype(np.float32)


def _make_weights(length, cells):
    """Returns the interpolation weight of each cell for each pixel, [length, cells]."""
    first, second, fraction = _locate(np.arange(length), length, cells)
    weights, rows = np.zeros((length, cells), np.float32), np.arange(length)
    weights[rows, first] += 1 - fraction
    weights[rows, second] += fraction
    return weights
