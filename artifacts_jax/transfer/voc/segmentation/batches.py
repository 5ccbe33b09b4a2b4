"""Batches of images with the classes of their pixels.

| name | what |
|---|---|
| `image` | uint8 [b, H, W, 3]: each in the upper left corner, zeros elsewhere |
| `size` | int32 [b, 2]: its height and width |
| `labels` | uint8 [b, H, W], in training: as of Record.mask, VOID elsewhere, and of an image that cannot be decoded |
| `index` | int32 [b]: the position in the global batch or, in tests, in the split |
| `valid` | bool [b], in tests: False for what pads a batch and for images that cannot be decoded |

Training images are drawn with replacement, each as it is. A batch is a function of (seed, step), of which each host has
its slice. Height and width are those of the largest image of the whole, in steps, since a program is compiled for each.
Neither what is learned nor what is predicted of an image depends on them: see models/fcn.py.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from artifacts_jax.data import reading
from artifacts_jax.data.voc.records import VOID

SIZE_MULTIPLE = 125  # pixels: most of VOC's images have sides of 375 and 500


@dataclasses.dataclass(frozen=True, eq=False)
class Images(reading.PaddedDataset):
    """The images of a split, each read as it is needed."""

    def views(self, step, batch_size):
        """Returns which images are in the global batch at a step."""
        draws = np.random.default_rng((self.seed, step))
        return draws.integers(len(self.records), size=batch_size).tolist()

    def collate(self, views, everyone):
        """As Padded.collate."""
        size = self._padded_size(everyone)
        records = [self.records[row] for row in views]
        images, void = [self.image(record) for record in records], np.zeros((0, 0), np.uint8)
        masks = [void if image is None else record.read_mask() for record, image in zip(records, images)]
        return {
            'image': np.stack([_pad(image, size) for image in images]),
            'labels': np.stack([reading.pad_array(mask, size, VOID) for mask in masks]),
            'size': np.array([record.size for record in records], np.int32),
        }

    def collate_test(self, rows, images, everyone):
        """As Padded.collate_test."""
        size = self._padded_size(everyone)
        return {
            'image': np.stack([_pad(image, size) for image in images]),
            'size': np.array([size if image is None else image.shape[:2] for image in images], np.int32),
        }

    def _padded_size(self, rows):
        return compute_padded_size([self.records[row].size for row in rows])


def compute_padded_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns the height and width, in steps, that hold images of these heights and widths."""
    height, width = (-(-max(size[axis] for size in sizes) // SIZE_MULTIPLE) * SIZE_MULTIPLE for axis in (0, 1))
    return height, width


def _pad(image, size):
    return np.zeros((*size, 3), np.uint8) if image is None else reading.pad_array(image, size)
