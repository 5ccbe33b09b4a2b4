"""Batches of images with proposals and objects, at the scales of detection.

| in training | what |
|---|---|
| `image` | uint8 [b, H, W, 3]: each scaled, in the upper left corner of one of canvases.py's, zeros elsewhere |
| `size` | int32 [b, 2]: its height and width there; 0 of an image that cannot be decoded, which then adds nothing |
| `scale` | float32 [b]: what coordinates of boxes are to be multiplied by |
| `mirrored`, `width` | bool and int32 [b]: whether the image, but not yet its boxes, is mirrored; its own width |
| `proposals`, `there` | float32 [b, N, 4], in the image's own pixels, and bool [b, N]: False for what pads them |
| `objects`, `labels`, `object_there` | the same of the objects, [b, G, 4] and [b, G]; difficult ones are among them |
| `index` | int32 [b]: the position in the global batch |

An epoch has each image twice, as it is and mirrored, in an order of its own. A batch is a function of (seed, step), of
which each host has its slice. Of an image with more than N proposals, N are drawn, anew each time it comes.

In a test there is an image for each scale, `image_0`, `size_0`, `scale_0` and so on, and no box; `index` is the
position in the split, and `mask` False for what pads a batch and for images that cannot be decoded.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import grain
import numpy as np
import PIL.Image
from jaxtyping import Float32, UInt8

from artifacts_jax.data import decoding, ordered
from artifacts_jax.devices import host
from artifacts_jax.transfer.voc import annotations
from artifacts_jax.transfer.voc.detection import canvases, scales


class View(NamedTuple):
    """How a training image is seen."""

    position: int  # among all that are trained on, from the first step on
    row: int  # of its record
    mirrored: bool
    scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Images(ordered.Ordered):
    """The images of a split, each read as it is needed."""

    records: Sequence  # of records.Record
    proposals: Sequence[Float32[np.ndarray, '_ 4']]  # of each, counted from 0
    shorter: tuple[int, ...]  # the scales: lengths of the shorter side, pixels
    longest: int  # of the longer side
    most: int  # N, proposals of an image in a training batch
    workers: int = 0  # threads, 0: as many as there are CPUs

    @property
    def num_examples(self) -> int:
        """The images of the split and their mirror images, over all hosts."""
        return 2 * len(self.records)

    @property
    def used(self) -> int:
        """The images of the split but those that have been left out so far, over all hosts."""
        return len(self.records) - self.left_out.ever()

    @functools.cached_property
    def canvases(self) -> tuple[canvases.Size, ...]:
        """The sizes that training images are padded to."""
        return canvases.sizes(self.shorter, self.longest)

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Returns this host's part of the global batch at a step."""
        index = self._share(batch_size)
        views = [self._view(step * batch_size + n) for n in range(batch_size)]
        taken = [scales.scaled(self.records[view.row].size, view.scale) for view in views]
        canvas = canvases.smallest(self.canvases, taken)
        examples = [self._example(views[n], canvas) for n in index]
        return {**{name: np.stack([x[name] for x in examples]) for name in examples[0]}, 'index': index}

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches of start_step, start_step + 1, ... for ever."""
        return self._ahead(lambda step: self.batch(step, batch_size), start_step, ordered.LAST)

    def test_batch(self, number: int, batch_size: int, limit: int = 0) -> dict[str, np.ndarray]:
        """Returns this host's part of a test batch; arguments as of eval_batches."""
        count = self._tested(limit)
        everyone = [n for n in range(number * batch_size, (number + 1) * batch_size) if n < count]
        index = number * batch_size + self._share(batch_size)
        pixels = [self._pixels(self.records[n]) if n < count else None for n in index]
        batch = {'index': index, 'mask': np.array([image is not None for image in pixels])}
        for level, shorter in enumerate(self.shorter):
            factors = {n: scales.scale_of(self.records[n].size, shorter, self.longest) for n in everyone}
            taken = [scales.scaled(self.records[n].size, factors[n]) for n in everyone]
            canvas = canvases.smallest(canvases.sizes((shorter,), self.longest), taken)
            placed = [_placed(image, factors.get(int(n), 1.0), canvas) for n, image in zip(index, pixels)]
            columns = zip(*placed)
            batch |= {f'image_{level}': np.stack(next(columns)), f'size_{level}': np.array(next(columns), np.int32)}
            batch[f'scale_{level}'] = np.array([factors.get(int(n), 1.0) for n in index], np.float32)
        return batch

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields every image once, in order, or the first `limit`, 0: all."""
        return self._ahead(lambda n: self.test_batch(n, batch_size, limit), 0, -(-self._tested(limit) // batch_size))

    def _tested(self, limit):
        return min(limit or len(self.records), len(self.records))

    def _view(self, position):
        mirrored, row = divmod(self._row(position), len(self.records))
        shorter = self.shorter[scales.draw(self.seed, position, len(self.shorter))]
        scale = scales.scale_of(self.records[row].size, shorter, self.longest)
        return View(position, row, bool(mirrored), scale)

    @functools.cached_property
    def _most_objects(self):
        return max(1, *(len(record.objects.labels) for record in self.records))

    def _example(self, view, canvas):
        record, boxes = self.records[view.row], self.proposals[view.row]
        pixels, objects = self._pixels(record), record.objects
        if len(boxes) > self.most:
            draws = np.random.default_rng((self.seed, view.position, 1))
            boxes = boxes[np.sort(draws.choice(len(boxes), self.most, replace=False))]
        if pixels is None:
            boxes, objects = boxes[:0], annotations.objects([])
        image, size = _placed(pixels[:, ::-1] if view.mirrored and pixels is not None else pixels, view.scale, canvas)
        proposals, there = _padded(boxes, self.most)
        corners, object_there = _padded(objects.boxes - 1, self._most_objects)
        return {
            'image': image,
            'size': np.array(size, np.int32),
            'scale': np.float32(view.scale),
            'mirrored': np.bool_(view.mirrored),
            'width': np.int32(record.size[1]),
            'proposals': proposals,
            'there': there,
            'objects': corners,
            'labels': np.pad(objects.labels, (0, self._most_objects - len(objects.labels))),
            'object_there': object_there,
        }

    def _pixels(self, record) -> UInt8[np.ndarray, 'H W 3'] | None:
        try:
            return record.image()
        except decoding.UnusableError as error:
            self.left_out.add(record.name, str(error))
            return None

    def _ahead(self, made: Callable, start: int, end: int):
        """Yields made(start), made(start + 1), ..., made ahead by threads."""
        workers = self.workers or host.cpus()
        options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * workers)
        iterator = iter(grain.MapDataset.range(start, end).map(made).to_iter_dataset(options))
        try:
            yield from iterator
        finally:
            iterator.close()


def _placed(pixels, scale, canvas):
    """Returns (an image scaled, in the upper left corner of a canvas, and its height and width there)."""
    placed = np.zeros((*canvas, 3), np.uint8)
    if pixels is None:
        return placed, (0, 0)
    height, width = scales.scaled(pixels.shape[:2], scale)
    image = PIL.Image.fromarray(pixels).resize((width, height), PIL.Image.Resampling.BILINEAR)
    placed[:height, :width] = image
    return placed, (height, width)


def _padded(boxes, count):
    """Returns (boxes and zeros, so many, and where they are boxes)."""
    padded = np.zeros((count, 4), np.float32)
    padded[: len(boxes)] = boxes
    return padded, np.arange(count) < len(boxes)
