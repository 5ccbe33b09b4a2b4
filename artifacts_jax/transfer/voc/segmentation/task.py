"""The task: trains FCN-32s on the masks of data.probe_train and SBD, and tests it on the lists in data.test."""

from ml_collections import ConfigDict

from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import confusion, published
from artifacts_jax.transfer.voc.segmentation import lists, segmenter, stage

NAME = 'voc_segmentation'
SPLITS = ()  # open_data opens VOC and SBD itself, not the splits of config.data


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError if devices and microbatches do not divide the batch, or if there are no training images."""
    devices.check_batch(f'{NAME}.batch_size', config.voc_segmentation.batch_size, config.accumulate)
    lists.check(config)


def open_data(config: ConfigDict, datasets: Datasets) -> lists.Lists:
    """Returns the records of the images with masks.

    Raises:
      DataError: VOC, SBD, an image list or a mask is missing or invalid.
    """
    options, data = config.voc_segmentation, config.data
    key = 'segmentation', data.name, data.probe_train, data.test, options.voc, options.sbd, options.sbd_list
    return datasets.cache(key, lambda: lists.open_lists(config))


def list_entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {preset: the trained network}."""
    return {config.voc_segmentation.preset: networks['learned']}


def evaluate(run: Run, data: lists.Lists, entry: Entry) -> dict:
    """Trains, exports and tests the network; writes figures/segmentation.png.

    Returns:
      {'dataset', 'preset', 'steps', 'train', 'tests': {image list: {'count', 'miou', 'pixel_accuracy', 'mean_accuracy',
      'iou': {class: IoU}}}}. 'train' and 'count' are numbers of images. The metrics are in %. The IoU is None for a
      class that is neither in the ground truth nor predicted.
    """
    config, segment = run.config, segmenter.make_segment_fn(run.config, run.devices)
    train, tests = data.images(config)
    run.track_skipped(train, *tests.values())
    first, training = next(iter(tests.values())), stage.Stage(NAME=entry.name, evaluate_fn=segment)
    state = run.train(training, entry, {'train': train, 'test': first})
    source = {'stage': entry.name, 'step': int(state.step)}
    segmenter.save(run.workdir / entry.name / 'export', state.variables, config, source)
    row = {
        'dataset': config.data.name,
        'preset': entry.key,
        'steps': int(state.step),
        'train': train.num_used,
        'tests': {
            name: _make_row(*segmenter.compute_confusion(images.records, segment(state.variables, images)))
            for name, images in tests.items()
        },
    }
    training.plot(state, first, run.workdir / 'figures')
    return row


def summary(row: dict) -> list[str]:
    """Returns the mean IoU of each list, as one line of text per list."""
    return [f'mean IoU {results.format_number(test["miou"])} % on {name}' for name, test in row['tests'].items()]


def columns(row: dict, test: str) -> dict[str, str]:
    """Returns {heading: text} of the results for one list."""
    headings = {'mean IoU': 'miou', 'pixels': 'pixel_accuracy', 'classes': 'mean_accuracy'}
    cells = {heading: results.format_number(row['tests'][test][key]) for heading, key in headings.items()}
    return {**cells, 'updates': f'{row["steps"]:,}'}


def table(all_results: dict) -> str:
    """Returns the results as text tables: metrics beside the published rows, then the IoU of each class."""
    rows, classes, counts = {}, {}, set()
    for entry, row in all_results[NAME].items():
        for test, metrics in row['tests'].items():
            rows[f'{results.get_label(all_results, f"{NAME}/{entry}")}, {entry}, {test}'] = columns(row, test)
            classes[f'{entry}, {test}'] = metrics['iou']
            counts.add(f'{row["train"]:,} training and {metrics["count"]:,} test images')
    title = 'VOC segmentation: mean IoU, pixel accuracy and mean class accuracy, %'
    return published.format_voc_tables(f'{title}; {"; ".join(sorted(counts))}', 2, rows, classes)


def format_setting(name: str, row: dict, test: str) -> str:
    """Returns a line with the numbers of images and updates of a row, and of the published rows for seg11valid."""
    theirs = published.Setting(*published.VOC12_IMAGES, stage.PRESETS[row['preset']].steps)
    ours = published.Setting(row['train'], row['tests'][test]['count'], row['steps'])
    return published.format_setting(name, f'{row["dataset"]}, {test}', ours, theirs)


def _make_row(counts, images):
    """Returns the results of a list: counts is the confusion matrix, images the number of images."""
    return {
        'count': images,
        'miou': results.to_percent(confusion.mean_iou(counts)),
        'pixel_accuracy': results.to_percent(confusion.pixel_accuracy(counts)),
        'mean_accuracy': results.to_percent(confusion.mean_accuracy(counts)),
        'iou': {name: results.to_percent(value) for name, value in zip(segmenter.CLASSES, confusion.iou(counts))},
    }
