"""Batches of images with the classes of their pixels.

| name | what |
|---|---|
| `image` | uint8 [b, H, W, 3]: each in the upper left corner of its canvas, zeros elsewhere |
| `size` | int32 [b, 2]: its height and width |
| `labels` | uint8 [b, H, W], in training: as of Record.mask, VOID elsewhere, and of an image that cannot be decoded |
| `index` | int32 [b]: the position in the global batch or, in tests, in the split |
| `mask` | bool [b], in tests: False for what pads a batch and for images that cannot be decoded |

Training images are drawn with replacement, each as it is. A batch is a function of (seed, step), of which each host has
its slice, and its canvas is that of the whole.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from artifacts_jax.data import decoding, ordered
from artifacts_jax.transfer.voc.records import VOID
from artifacts_jax.transfer.voc.segmentation import canvases


@dataclasses.dataclass(frozen=True, eq=False)
class Images(ordered.Ordered):
    """The images of a split, each read as it is needed."""

    records: Sequence  # of records.Record, with masks
    workers: int = 0  # threads, 0: as many as there are CPUs

    @property
    def num_examples(self) -> int:
        """The images of the split, over all hosts."""
        return len(self.records)

    @property
    def used(self) -> int:
        """The images of the split but those that have been left out so far, over all hosts."""
        return len(self.records) - self.left_out.ever()

    def batch(self, step: int, batch_size: int) -> dict[str, np.ndarray]:
        """Returns this host's part of the global batch at a step."""
        index, rows = self._share(batch_size), self.rows(step, batch_size)
        canvas = canvases.smallest([self.records[row].size for row in rows])
        records = [self.records[rows[n]] for n in index]
        images, labels = zip(*(self._example(record, canvas) for record in records))
        return {
            'image': np.stack(images),
            'labels': np.stack(labels),
            'size': np.array([record.size for record in records], np.int32),
            'index': index,
        }

    def rows(self, step: int, batch_size: int) -> list[int]:
        """Returns which images are in the global batch at a step."""
        draws = np.random.default_rng((self.seed, step))
        return draws.integers(len(self.records), size=batch_size).tolist()

    def train_batches(self, batch_size: int, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields the batches of start_step, start_step + 1, ... for ever."""
        return ordered.ahead(lambda step: self.batch(step, batch_size), start_step, ordered.LAST, workers=self.workers)

    def test_batch(self, number: int, batch_size: int, limit: int = 0) -> dict[str, np.ndarray]:
        """Returns this host's part of a test batch; arguments as of eval_batches."""
        count = min(limit or len(self.records), len(self.records))
        everyone = range(number * batch_size, min((number + 1) * batch_size, count))
        canvas = canvases.smallest([self.records[n].size for n in everyone])
        index = number * batch_size + self._share(batch_size)
        pixels = [self._pixels(self.records[n]) if n < count else None for n in index]
        return {
            'image': np.stack([_placed(image, canvas) for image in pixels]),
            'size': np.array([canvas if image is None else image.shape[:2] for image in pixels], np.int32),
            'index': index,
            'mask': np.array([image is not None for image in pixels]),
        }

    def eval_batches(self, batch_size: int, limit: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yields every image once, in order, or the first `limit`, 0: all."""
        count = self.eval_steps(batch_size, limit)
        return ordered.ahead(lambda n: self.test_batch(n, batch_size, limit), 0, count, workers=self.workers)

    def _example(self, record, canvas):
        """Returns an image and its labels on a canvas."""
        labels, pixels = np.full(canvas, VOID, np.uint8), self._pixels(record)
        if pixels is not None:
            labels[: record.size[0], : record.size[1]] = record.mask()
        return _placed(pixels, canvas), labels

    def _pixels(self, record) -> UInt8[np.ndarray, 'H W 3'] | None:
        try:
            return record.image()
        except decoding.UnusableError as error:
            self.left_out.add(record.name, str(error))
            return None


def _placed(pixels, canvas):
    placed = np.zeros((*canvas, 3), np.uint8)
    if pixels is not None:
        placed[: pixels.shape[0], : pixels.shape[1]] = pixels
    return placed
