"""Batches of images with proposals and objects, at the scales of detection.

| in training | what |
|---|---|
| `image` | uint8 [b, H, W, 3]: each scaled, in the upper left corner, zeros elsewhere |
| `size` | int32 [b, 2]: its height and width there; 0 of an image that cannot be decoded, which then adds nothing |
| `scale` | float32 [b]: what coordinates of boxes are to be multiplied by |
| `mirrored`, `width` | bool and int32 [b]: whether the image, but not yet its boxes, is mirrored; its own width |
| `proposals`, `valid_proposals` | float32 [b, N, 4], in the image's own pixels, and bool [b, N]: False for padding |
| `objects`, `labels`, `valid_objects` | the same of the objects, [b, G, 4] and [b, G]; difficult ones are among them |
| `index` | int32 [b]: the position in the global batch |

An epoch has each image twice, as it is and mirrored, in an order of its own. A batch is a function of (seed, step), of
which each host has its slice. Of an image with more than N proposals, N are drawn, anew each time it comes.

In a test there is an image for each scale, `image_0`, `size_0`, `scale_0` and so on, and no box; `index` is the
position in the split, and `valid` False for what pads a batch and for images that cannot be decoded.
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
    """How a training image is seen."""

    position: int  # among all that are trained on, from the first step on
    row: int  # of its record
    mirrored: bool
    scale: float


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Images(reading.PaddedDataset):
    """The images of a split, each read as it is needed."""

    proposals: Sequence[Float32[np.ndarray, '_ 4']]  # of each, counted from 0
    shorter: tuple[int, ...]  # the scales: lengths of the shorter side, pixels
    longest: int  # of the longer side
    most: int  # N, proposals of an image in a training batch

    @property
    def num_examples(self) -> int:
        """The images of the split and their mirror images, over all hosts."""
        return 2 * len(self.records)

    @functools.cached_property
    def padded_sizes(self) -> tuple[scales.Size, ...]:
        """The sizes that training images are padded to."""
        return scales.compute_padded_sizes(self.shorter, self.longest)

    def views(self, step, batch_size):
        """As Padded.views: an epoch has each image as it is and mirrored."""
        return [self._view(step * batch_size + n) for n in range(batch_size)]

    def collate(self, views, everyone):
        """As Padded.collate."""
        taken = [scales.compute_scaled_size(self.records[view.row].size, view.scale) for view in everyone]
        size = scales.choose_padded_size(self.padded_sizes, taken)
        examples = [self._example(view, size) for view in views]
        return {name: np.stack([x[name] for x in examples]) for name in examples[0]}

    def collate_test(self, rows, images, everyone):
        """As Padded.collate_test: an image for each scale."""
        batch = {}
        for level, shorter in enumerate(self.shorter):
            factors = {n: scales.compute_scale(self.records[n].size, shorter, self.longest) for n in everyone}
            taken = [scales.compute_scaled_size(self.records[n].size, factors[n]) for n in everyone]
            size = scales.choose_padded_size(scales.compute_padded_sizes((shorter,), self.longest), taken)
            padded = [_pad(image, factors.get(n, 1.0), size) for n, image in zip(rows, images)]
            columns = zip(*padded)
            batch |= {f'image_{level}': np.stack(next(columns)), f'size_{level}': np.array(next(columns), np.int32)}
            batch[f'scale_{level}'] = np.array([factors.get(n, 1.0) for n in rows], np.float32)
        return batch

    def _view(self, position):
        mirrored, row = divmod(self._row(position), len(self.records))
        shorter = self.shorter[scales.sample_scale(self.seed, position, len(self.shorter))]
        scale = scales.compute_scale(self.records[row].size, shorter, self.longest)
        return View(position, row, bool(mirrored), scale)

    @functools.cached_property
    def _most_objects(self):
        return max(1, *(len(record.objects.labels) for record in self.records))

    def _example(self, view, padded_size):
        record, boxes = self.records[view.row], self.proposals[view.row]
        image, objects = self.image(record), record.objects
        if len(boxes) > self.most:
            draws = np.random.default_rng((self.seed, view.position, 1))
            boxes = boxes[np.sort(draws.choice(len(boxes), self.most, replace=False))]
        if image is None:
            boxes, objects = boxes[:0], NO_OBJECTS
        elif view.mirrored:
            image = image[:, ::-1]
        image, size = _pad(image, view.scale, padded_size)
        count = self._most_objects
        return {
            'image': image,
            'size': np.array(size, np.int32),
            'scale': np.float32(view.scale),
            'mirrored': np.bool_(view.mirrored),
            'width': np.int32(record.size[1]),
            'proposals': reading.pad_array(boxes.astype(np.float32), (self.most, 4)),
            'valid_proposals': np.arange(self.most) < len(boxes),
            'objects': reading.pad_array((objects.boxes - 1).astype(np.float32), (count, 4)),
            'labels': np.pad(objects.labels, (0, count - len(objects.labels))),
            'valid_objects': np.arange(count) < len(objects.labels),
        }


def _pad(image, scale, padded_size):
    """Returns (an image scaled and padded, its height and width there)."""
    if image is None:
        return np.zeros((*padded_size, 3), np.uint8), (0, 0)
    size = scales.compute_scaled_size(image.shape[:2], scale)
    return reading.pad_array(decoding.resize(image, size), padded_size), size
