"""The classes that a network sees in images, at their own sizes, on all devices; and how often these are right."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int64, UInt8
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import Devices
from artifacts_jax.transfer import confusion
from artifacts_jax.transfer.voc.segmentation import network

Segmented = Iterator[tuple[int, UInt8[np.ndarray, 'H W']]]


def make(config: ConfigDict, devices: Devices) -> Callable[..., Segmented]:
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


def counted(records: Sequence, segmented: Iterable) -> tuple[Int64[np.ndarray, 'K K'], int]:
    """Returns (the confusion matrix of all pixels, how many images they are of).

    Args:
      records: of the split.
      segmented: as of segment.
    """
    classes, images = len(network.CLASSES), 0
    counts = np.zeros((classes, classes), np.int64)
    for row, labels in segmented:
        counts += confusion.matrix(records[row].mask(), labels, classes)
        images += 1
    return counts, images


def _judge(config):
    model = network.make(config)

    def judge(variables, batch):
        images = network.prepared(batch['image'])
        scores = model.apply({'params': variables['params']}, images, batch['size'])
        return batch['index'], scores.argmax(-1).astype(jnp.uint8)

    return judge
