"""FCN-32s as a segmenter: the classes that it sees in images, how often these are correct, its export and figure."""

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

Segmented = Iterator[tuple[int, UInt8[np.ndarray, 'H W']]]


def make_network(config: ConfigDict) -> Segmenter:
    """Makes the network that a config describes."""
    return architecture.make_segmenter(config, len(CLASSES))


def make_segment_fn(config: ConfigDict, devices: Devices) -> Callable[..., Segmented]:
    """Returns segment(variables, images, limit=0), which yields (position in the split, the class of each pixel).

    `images` are batches.Images, of which the first `limit` or all are looked at, but for those that cannot be decoded;
    variables are those of stage.Stage's state. Each device looks at an image at a time.
    """
    mapped, together = devices.per_example(_judge(config)), len(devices.devices)

    def segment(variables, images, limit=0):
        for batch in images.eval_batches(together, limit):
            for row, labels in zip(*mapped(variables, batch)):
                height, width = images.records[row].size
                yield int(row), labels[:height, :width]

    return segment


def compute_confusion(records: Sequence, segmented: Iterable) -> tuple[Int64[np.ndarray, 'K K'], int]:
    """Returns (the confusion matrix of all pixels, how many images they are of).

    Args:
      records: of the split.
      segmented: as of segment.
    """
    classes, images = len(CLASSES), 0
    counts = np.zeros((classes, classes), np.int64)
    for row, labels in segmented:
        counts += confusion.compute_matrix(records[row].read_mask(), labels, classes)
        images += 1
    return counts, images


def save(folder: Path, variables: dict, config: ConfigDict, source: dict) -> None:
    """Exports a segmenter.

    Args:
      folder: gets the export.
      variables: of stage.Stage's state.
      config: the run's configuration.
      source: as of exports.save.
    """
    head = {'protocol': 'segmentation', 'names': list(CLASSES)}
    exports.save(folder, variables, config, head=head, source=source)


def load_segmenter(folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)) -> Callable:
    """Loads a segmenter, which the stage voc_segmentation has exported.

    Args:
      folder: the export, such as WORKDIR/voc_segmentation/fcn/export.
      value_range: (low, high) that floating point images will lie in, such as (0, 1).

    Returns:
      segment(image) -> uint8 [H, W], the class of each pixel: 0 background, and then VOC's classes in the order of the
      alphabet, 1 aeroplane to 20 tvmonitor. The image is [H, W, 3], RGB, of any size; integers are values from 0 to
      255. One of another shape, type or range is a ValueError.

    Raises:
      ExportError: what is missing or differs, by name; or there is no segmenter.
      ValueError: value_range is no range.
    """
    value_range = images.check_range(value_range)
    find, _ = load_segment_fn(folder)

    def segment(image: Any) -> UInt8[np.ndarray, 'H W']:
        pixels = images.to_pixels(image, value_range)
        ((_, labels),) = find([Record('the image', pixels, pixels.shape[:2])])
        return labels

    return segment


def load_segment_fn(folder: str | Path) -> tuple[Callable[..., Segmented], Sequence[str]]:
    """Returns (find(records), which yields (position, the class of each pixel), the names of the classes).

    Images that cannot be decoded are left out, and said. Arguments and errors as of load_segmenter.
    """
    description = exports.read_description(folder)
    exports.make_network(folder, description, 'segmenter')  # refuses others
    variables = exports.load_networks(folder, ('trunk', 'head'))
    segment = make_segment_fn(ConfigDict(description['config']), Devices('jit', jax.local_devices()[:1]))

    def find(given):
        skipped = SkippedExamples('those given', len(given), live=True)
        return segment(variables, batches.Images(records=given, seed=0, skipped=skipped))

    return find, description['head']['names']


def plot_segmentations(path: Path, records: Sequence, found: dict[int, UInt8[np.ndarray, 'H W']], *, step: int) -> None:
    """Writes the PNG file.

    Args:
      path: the file.
      records: of the split.
      found: {position in the split: the class of each pixel} of the images to draw; where there are none, nothing is
        written.
      step: of the network.
    """
    rows = [
        label_maps.Row(records[row].read_image(), (records[row].read_mask(), labels)) for row, labels in found.items()
    ]
    if rows:
        title = f'Segmentation after {step:,} updates'
        heads = ('photograph', 'truth', 'prediction')
        label_maps.draw(path, rows, heads, dict(enumerate(CLASSES)) | {VOID: 'void'}, title=title)


def _judge(config):
    model = make_network(config)

    def judge(variables, batch):
        images = scale_pixels(batch['image'])
        scores = model.apply({'params': variables['params']}, images, batch['size'])
        return batch['index'], scores.argmax(-1).astype(jnp.uint8)

    return judge
