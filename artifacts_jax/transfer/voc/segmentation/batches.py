"""Batches of images with their label maps.

| name | content |
|---|---|
| `image` | uint8 [b, H, W, 3]: the image in the upper left corner, padded with zeros |
| `size` | int32 [b, 2]: height and width of the image without padding |
| `labels` | uint8 [b, H, W], in training only: the mask, padded with VOID; all VOID if the image cannot be decoded |
| `index` | int32 [b]: the position in the global batch; in tests, the position in the split |
| `valid` | bool [b], in tests only: False for entries that pad the batch and for images that cannot be decoded |

Training images are sampled with replacement, without scaling or mirroring. A batch is a function of (seed, step); each
host has its slice of it. H and W are the height and width of the largest image of the global batch, rounded up to a
multiple of SIZE_MULTIPLE, because each padded size is compiled separately. The padding changes neither training nor
predictions: see models/fcn.py.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from artifacts_jax.data import reading
from artifacts_jax.data.voc.records import VOID

SIZE_MULTIPLE = 125  # pixels; most of VOC's images have sides of 375 and 500


@dataclasses.dataclass(frozen=True, eq=False)
class Images(reading.PaddedDataset):
    """The images of a split, read from disk when a batch needs them."""

    def views(self, step, batch_size):
        """Returns the positions of the images in the global batch of a step."""
        random = np.random.default_rng((self.seed, step))
        return random.integers(len(self.records), size=batch_size).tolist()

    def collate(self, views, global_views):
        """As PaddedDataset.collate."""
        size = self._padded_size(global_views)
        records = [self.records[row] for row in views]
        images, void = [self.image(record) for record in records], np.zeros((0, 0), np.uint8)
        masks = [void if image is None else record.read_mask() for record, image in zip(records, images)]
        return {
            'image': np.stack([_pad(image, size) for image in images]),
            'labels': np.stack([reading.pad_array(mask, size, VOID) for mask in masks]),
            'size': np.array([record.size for record in records], np.int32),
        }

    def collate_test(self, rows, images, global_rows):
        """As PaddedDataset.collate_test."""
        size = self._padded_size(global_rows)
        return {
            'image': np.stack([_pad(image, size) for image in images]),
            'size': np.array([size if image is None else image.shape[:2] for image in images], np.int32),
        }

    def _padded_size(self, rows):
        return compute_padded_size([self.records[row].size for row in rows])


def compute_padded_size(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns the padded (height, width) for images of these (height, width), a multiple of SIZE_MULTIPLE."""
    height, width = (-(-max(size[axis] for size in sizes) // SIZE_MULTIPLE) * SIZE_MULTIPLE for axis in (0, 1))
    return height, width


def _pad(image, size):
    return np.zeros((*size, 3), np.uint8) if image is None else reading.pad_array(image, size)
