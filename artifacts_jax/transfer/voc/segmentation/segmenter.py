"""FCN-32s as a segmenter: predicts label maps, evaluates them, exports and loads the network, and plots the figure."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int64, UInt8
from ml_collections import ConfigDict

from artifacts_jax.data.skipped import SkippedExamples
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.data.voc.records import VOID, Record
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.drawing import label_maps
from artifacts_jax.exchange import exports, images
from artifacts_jax.models import architecture
from artifacts_jax.models.discriminator import scale_pixels
from artifacts_jax.models.fcn import Segmenter
from artifacts_jax.transfer import confusion
from artifacts_jax.transfer.voc.segmentation import batches

CLASSES = ('background', *NAMES)
FIGURE, NUM_PHOTOGRAPHS = 'segmentation.png', 5

LabelMaps = Iterator[tuple[int, UInt8[np.ndarray, 'H W']]]  # (position in the split, class of each pixel)


def make_network(config: ConfigDict) -> Segmenter:
    """Makes the network that the configuration describes."""
    return architecture.make_segmenter(config, len(CLASSES))


def make_segment_fn(config: ConfigDict, devices: Devices) -> Callable[..., LabelMaps]:
    """Returns segment(variables, images, limit=0), which yields (position in the split, class of each pixel).

    `variables` are the variables of stage.Stage's state. `images` are batches.Images; `segment` predicts the first
    `limit` of them (0: all), and skips images that cannot be decoded. The batch size is one image per device.
    """
    predict, batch_size = devices.per_example(_make_predict_fn(config)), len(devices.devices)

    def segment(variables, images, limit=0):
        for batch in images.eval_batches(batch_size, limit):
            for row, labels in zip(*predict(variables, batch)):
                height, width = images.records[row].size
                yield int(row), labels[:height, :width]

    return segment


def compute_confusion(records: Sequence, predicted: Iterable) -> tuple[Int64[np.ndarray, 'K K'], int]:
    """Returns (the confusion matrix of all pixels, the number of images).

    Args:
      records: the records of the split.
      predicted: (position in the split, class of each pixel) of each image.
    """
    classes, images = len(CLASSES), 0
    counts = np.zeros((classes, classes), np.int64)
    for row, labels in predicted:
        counts += confusion.compute_matrix(records[row].read_mask(), labels, classes)
        images += 1
    return counts, images


def save(folder: Path, variables: dict, config: ConfigDict, source: dict) -> None:
    """Exports a segmenter.

    Args:
      folder: the folder of the export.
      variables: the variables of stage.Stage's state.
      config: the run's configuration.
      source: as for exports.save.
    """
    head = {'protocol': 'segmentation', 'names': list(CLASSES)}
    exports.save(folder, variables, config, head=head, source=source)


def load_segmenter(folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)) -> Callable:
    """Loads a segmenter that the stage voc_segmentation has exported.

    Args:
      folder: the export, such as WORKDIR/voc_segmentation/fcn/export.
      value_range: (low, high), the range of floating point images, such as (0, 1).

    Returns:
      segment(image) -> uint8 [H, W], the class of each pixel. 0 is background; 1 (aeroplane) to 20 (tvmonitor) are
      VOC's classes in alphabetical order. The image is [H, W, 3], RGB, of any size; integers are values from 0 to 255.
      `segment` raises ValueError for an image of another shape, type or range.

    Raises:
      ExportError: a file or network of the export is missing or different, or the export has no segmenter.
      ValueError: value_range is not an increasing pair of numbers.
    """
    value_range = images.check_range(value_range)
    segment_records, _ = load_segment_fn(folder)

    def segment(image: Any) -> UInt8[np.ndarray, 'H W']:
        pixels = images.to_pixels(image, value_range)
        ((_, labels),) = segment_records([Record('the image', pixels, pixels.shape[:2])])
        return labels

    return segment


def load_segment_fn(folder: str | Path) -> tuple[Callable[..., LabelMaps], Sequence[str]]:
    """Returns (segment_records(records), the names of the classes).

    segment_records yields (position in `records`, class of each pixel), and skips images that cannot be decoded, with a
    warning. Arguments and errors are those of load_segmenter.
    """
    description = exports.read_description(folder)
    exports.make_network(folder, description, 'segmenter')  # raises ExportError for other networks
    variables = exports.load_networks(folder, ('trunk', 'head'))
    segment = make_segment_fn(ConfigDict(description['config']), Devices('jit', jax.local_devices()[:1]))

    def segment_records(records):
        skipped = SkippedExamples('the input', len(records), live=True)
        return segment(variables, batches.Images(records=records, seed=0, skipped=skipped))

    return segment_records, description['head']['names']


def plot_segmentations(
    path: Path, records: Sequence, predicted: dict[int, UInt8[np.ndarray, 'H W']], *, step: int
) -> None:
    """Writes a figure of images, their ground truth and the predictions; writes nothing without images.

    Args:
      path: the PNG file.
      records: the records of the split.
      predicted: {position in the split: class of each pixel} of the images to plot.
      step: the step of the network.
    """
    rows = [
        label_maps.Row(records[row].read_image(), (records[row].read_mask(), labels))
        for row, labels in predicted.items()
    ]
    if rows:
        title = f'Segmentation after {step:,} updates'
        heads = ('photograph', 'truth', 'prediction')
        label_maps.draw(path, rows, heads, dict(enumerate(CLASSES)) | {VOID: 'void'}, title=title)


def _make_predict_fn(config):
    """Returns predict(variables, batch) -> (positions [B], class of each pixel [B, H, W])."""
    model = make_network(config)

    def predict(variables, batch):
        images = scale_pixels(batch['image'])
        scores = model.apply({'params': variables['params']}, images, batch['size'])
        return batch['index'], scores.argmax(-1).astype(jnp.uint8)

    return predict
