"""VOC's images as squares of one size with the labels of their classes, each read once, for frozen features.

| view | an image becomes | whose |
|---|---|---|
| `whole` | all of it, squashed to a square | VISSL's, for AlexNet |
| `centre` | its central square | VISSL's, for ResNet |

Source: facebookresearch/vissl, configs/config/benchmark/linear_image_classification/voc07, which resizes an image twice
where this does once.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from artifacts_jax.data import decoding, ordered
from artifacts_jax.transfer.voc.annotations import NAMES

VIEWS = ('whole', 'centre')


def squashed(pixels: UInt8[np.ndarray, 'H W 3'], size: int) -> UInt8[np.ndarray, '{size} {size} 3']:
    """Returns the whole of an image as a square, antialiased."""
    return np.asarray(PIL.Image.fromarray(pixels).resize((size, size), PIL.Image.Resampling.BILINEAR))


@dataclasses.dataclass(frozen=True, eq=False)
class Squares(ordered.Read):
    """The images of a split. In batches 'image' is uint8 [b, size, size, 3], and 'labels' int8 [b, 20]."""

    records: Sequence  # of records.Record
    size: int
    view: str

    @property
    def num_examples(self) -> int:
        """The images of the split, over all hosts."""
        return len(self.records)

    def empty(self, count: int) -> dict[str, np.ndarray]:
        """Returns zeros for so many images."""
        shape = (count, self.size, self.size, 3)
        return {'image': np.zeros(shape, np.uint8), 'labels': np.zeros((count, len(NAMES)), np.int8)}

    def example(self, row: int) -> dict:
        """Returns 'image' and 'labels' of an image, {} of one that is left out."""
        record = self.records[row]
        try:
            if self.view == 'centre':
                image = decoding.decode(record.file, self.size)
            else:
                image = squashed(record.image(), self.size)
        except decoding.UnusableError as error:
            self.left_out.add(record.name, str(error))
            return {}
        return {'image': image, 'labels': record.labels}
