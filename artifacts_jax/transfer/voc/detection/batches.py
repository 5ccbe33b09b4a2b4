"""Batches of scaled images with proposals and ground-truth boxes.

| in training | content |
|---|---|
| `image` | uint8 [b, H, W, 3]: the scaled image in the upper left corner, padded with zeros |
| `size` | int32 [b, 2]: (height, width) of the scaled image; (0, 0) if it cannot be decoded, which gives no loss |
| `scale` | float32 [b]: the factor from box coordinates to pixels of the scaled image |
| `mirrored`, `width` | bool, int32 [b]: whether the image is mirrored (its boxes are not yet); its original width |
| `proposals`, `valid_proposals` | float32 [b, N, 4], in original pixels; bool [b, N], False for padding |
| `objects`, `labels`, `valid_objects` | ground truth, also difficult objects: float32 [b, G, 4]; int, bool [b, G] |
| `index` | int32 [b]: the position in the global batch |

An epoch has each image twice, as it is and mirrored, in a new random order. A batch is a function of (seed, step); each
host has its slice of it. If an image has more than N proposals, N of them are sampled each time the image is used.

A test batch has an image for each scale (`image_0`, `size_0`, `scale_0`, `image_1`, ...), and no boxes. `index` is the
position in the split. `valid` is False for entries that pad the batch and for images that cannot be decoded.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from artifacts_jax.data import decoding, reading
from artifacts_jax.data.voc.annotations import NO_OBJECTS
from artifacts_jax.transfer.voc.detection import scales


class View(NamedTuple):
    """A training image with its random augmentation."""

    position: int  # in the sequence of all training images, from the first step on
    row: int  # the position of its record in the split
    mirrored: bool
    scale: float


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Images(reading.PaddedDataset):
    """The images of a split, read from disk when a batch needs them."""

    proposals: Sequence[Float32[np.ndarray, '_ 4']]  # one array per image: x1 y1 x2 y2, 0-based
    shorter_sides: tuple[int, ...]  # the scales: lengths of the shorter side, pixels
    longest: int  # maximum length of the longer side, pixels
    max_proposals: int  # N: proposals of an image in a training batch

    @property
    def num_examples(self) -> int:
        """Number of images of the split and their mirror images, over all hosts."""
        return 2 * len(self.records)

    @functools.cached_property
    def padded_sizes(self) -> tuple[scales.Size, ...]:
        """The padded sizes (height, width) of training images."""
        return scales.compute_padded_sizes(self.shorter_sides, self.longest)

    def views(self, step, batch_size):
        """As PaddedDataset.views: an epoch has each image as it is and mirrored."""
        return [self._view(step * batch_size + n) for n in range(batch_size)]

    def collate(self, views, global_views):
        """As PaddedDataset.collate."""
        sizes = [scales.compute_scaled_size(self.records[view.row].size, view.scale) for view in global_views]
        size = scales.choose_padded_size(self.padded_sizes, sizes)
        examples = [self._example(view, size) for view in views]
        return {name: np.stack([x[name] for x in examples]) for name in examples[0]}

    def collate_test(self, rows, images, global_rows):
        """As PaddedDataset.collate_test: an image for each scale."""
        batch = {}
        for level, shorter in enumerate(self.shorter_sides):
            factors = {n: scales.compute_scale(self.records[n].size, shorter, self.longest) for n in global_rows}
            sizes = [scales.compute_scaled_size(self.records[n].size, factors[n]) for n in global_rows]
            size = scales.choose_padded_size(scales.compute_padded_sizes((shorter,), self.longest), sizes)
            padded = [_pad(image, factors.get(n, 1.0), size) for n, image in zip(rows, images)]
            columns = zip(*padded)
            batch |= {f'image_{level}': np.stack(next(columns)), f'size_{level}': np.array(next(columns), np.int32)}
            batch[f'scale_{level}'] = np.array([factors.get(n, 1.0) for n in rows], np.float32)
        return batch

    def _view(self, position):
        mirrored, row = divmod(self._row(position), len(self.records))
        shorter = self.shorter_sides[scales.sample_scale(self.seed, position, len(self.shorter_sides))]
        scale = scales.compute_scale(self.records[row].size, shorter, self.longest)
        return View(position, row, bool(mirrored), scale)

    @functools.cached_property
    def _max_objects(self):
        return max(1, *(len(record.objects.labels) for record in self.records))

    def _example(self, view, padded_size):
        record, boxes = self.records[view.row], self.proposals[view.row]
        image, objects = self.image(record), record.objects
        if len(boxes) > self.max_proposals:
            random = np.random.default_rng((self.seed, view.position, 1))
            boxes = boxes[np.sort(random.choice(len(boxes), self.max_proposals, replace=False))]
        if image is None:
            boxes, objects = boxes[:0], NO_OBJECTS
        elif view.mirrored:
            image = image[:, ::-1]
        image, size = _pad(image, view.scale, padded_size)
        count = self._max_objects
        return {
            'image': image,
            'size': np.array(size, np.int32),
            'scale': np.float32(view.scale),
            'mirrored': np.bool_(view.mirrored),
            'width': np.int32(record.size[1]),
            'proposals': reading.pad_array(boxes.astype(np.float32), (self.max_proposals, 4)),
            'valid_proposals': np.arange(self.max_proposals) < len(boxes),
            'objects': reading.pad_array((objects.boxes - 1).astype(np.float32), (count, 4)),
            'labels': np.pad(objects.labels, (0, count - len(objects.labels))),
            'valid_objects': np.arange(count) < len(objects.labels),
        }


def _pad(image, scale, padded_size):
    """Returns (the scaled and padded image, the (height, width) of the scaled image without padding)."""
    if image is None:
        return np.zeros((*padded_size, 3), np.uint8), (0, 0)
    size = scales.compute_scaled_size(image.shape[:2], scale)
    return reading.pad_array(decoding.resize(image, size), padded_size), size
