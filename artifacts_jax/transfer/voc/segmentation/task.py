"""The task: FCN-32s learns VOC's masks from data.probe_train and SBD, and is tested on the lists in data.test."""

from ml_collections import ConfigDict

from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.training import results
from artifacts_jax.training.evaluation import Entry, Network, Run
from artifacts_jax.transfer import confusion, published
from artifacts_jax.transfer.voc.segmentation import lists, segmenter, stage

NAME = 'voc_segmentation'
SPLITS = ()  # of the data of other tasks; it opens its own


def check(config: ConfigDict, devices: Devices) -> None:
    """Raises ConfigError for a batch that devices and parts do not divide, or where there is nothing to learn from."""
    devices.check_batch(f'{NAME}.batch_size', config.voc_segmentation.batch_size, config.accumulate)
    lists.check(config)


def open_data(config: ConfigDict, datasets: Datasets) -> lists.Lists:
    """Returns the records of images with masks.

    Raises:
      DataError: VOC, SBD, one of their lists or a mask is not what it should be.
    """
    options, data = config.voc_segmentation, config.data
    key = 'segmentation', data.name, data.probe_train, data.test, options.voc, options.sbd, options.sbd_list
    return datasets.cache(key, lambda: lists.open_lists(config))


def entries(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns {preset: the learned network}."""
    return {config.voc_segmentation.preset: networks['learned']}


def evaluate(run: Run, data: lists.Lists, entry: Entry) -> dict:
    """Trains, exports and tests the network; draws figures/segmentation.png.

    Returns:
      {'dataset', 'preset', 'steps', 'train', 'tests': {list of images: {'count', 'miou', 'pixel_accuracy',
      'mean_accuracy' in %, 'iou': {class: in %, None of one that is neither there nor predicted}}}}.
    """
    config, segment = run.config, segmenter.make_segment_fn(run.config, run.devices)
    train, tests = data.images(config)
    run.watch(train, *tests.values())
    first, training = next(iter(tests.values())), stage.Stage(NAME=entry.name, predict=segment)
    state = run.train(training, entry, {'train': train, 'test': first})
    source = {'stage': entry.name, 'step': int(state.step)}
    segmenter.save(run.workdir / entry.name / 'export', state.variables, config, source)
    row = {
        'dataset': config.data.name,
        'preset': entry.key,
        'steps': int(state.step),
        'train': train.num_used,
        'tests': {
            name: _measured(*segmenter.compute_confusion(images.records, segment(state.variables, images)))
            for name, images in tests.items()
        },
    }
    training.plot(state, first, run.workdir / 'figures')
    return row


def summary(row: dict) -> list[str]:
    """Returns the mean IoU of each list."""
    return [f'mean IoU {results.format_number(each["miou"])} % on {name}' for name, each in row['tests'].items()]


def columns(row: dict, test: str) -> dict[str, str]:
    """Returns the cells of a row for a list of images."""
    names = {'mean IoU': 'miou', 'pixels': 'pixel_accuracy', 'classes': 'mean_accuracy'}
    texts = {name: results.format_number(row['tests'][test][key]) for name, key in names.items()}
    return {**texts, 'updates': f'{row["steps"]:,}'}


def table(found: dict) -> str:
    """Returns the rows as tables of text: mean IoUs beside the published, then every class's."""
    rows, classes, counts = {}, {}, set()
    for part, row in found[NAME].items():
        for test, measured in row['tests'].items():
            rows[f'{results.get_label(found, f"{NAME}/{part}")}, {part}, {test}'] = columns(row, test)
            classes[f'{part}, {test}'] = measured['iou']
            counts.add(f'{row["train"]:,} training and {measured["count"]:,} test images')
    title = 'VOC segmentation: mean IoU over the classes, accuracies of pixels and over classes, %'
    return published.format_voc_tables(f'{title}; {"; ".join(sorted(counts))}', 2, rows, classes)


def setting(name: str, row: dict, test: str) -> str:
    """Returns a line of what a row was reached on, beside what is published on seg11valid."""
    there = published.Setting(*published.VOC12_IMAGES, stage.PRESETS[row['preset']].steps)
    here = published.Setting(row['train'], row['tests'][test]['count'], row['steps'])
    return published.format_setting(name, f'{row["dataset"]}, {test}', here, there)


def _measured(counts, images):
    return {
        'count': images,
        'miou': results.to_percent(confusion.mean_iou(counts)),
        'pixel_accuracy': results.to_percent(confusion.pixel_accuracy(counts)),
        'mean_accuracy': results.to_percent(confusion.mean_accuracy(counts)),
        'iou': {name: results.to_percent(value) for name, value in zip(segmenter.CLASSES, confusion.iou(counts))},
    }
