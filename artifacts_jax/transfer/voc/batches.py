"""Batches of VOC's images with the labels of their classes, in memory or streamed.

| name | what |
|---|---|
| `image` | uint8 [b, S, S, 3]: an image in the upper left corner of its canvas |
| `size` | int32 [b, 2]: its height and width there; what is larger than a canvas is scaled down to it, antialiased |
| `labels` | int8 [b, 20]: of each class 1 it is there, 0 not known, -1 it is not |
| `index` | int32 [b]: the position in the global batch or, in evaluation, in the split |
| `mask` | bool [b], in evaluation: False for what pads the last batch |

As in the protocol of classification, a split is shuffled once, by the seed, and read in this order again and again. A
batch is a function of (seed, step), of which each host has its slice: see data/ordered.py.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from ml_collections import ConfigDict

from artifacts_jax.data import decoding, ordered
from artifacts_jax.data.left_out import LeftOut
from artifacts_jax.transfer.voc import canvas
from artifacts_jax.transfer.voc.annotations import NAMES

SIDE = 500  # of a canvas, pixels: the largest side of VOC's images


@dataclasses.dataclass(frozen=True, eq=False)
class InMemory(ordered.Held):
    """Images that are decoded already."""

    columns: dict[str, np.ndarray]  # 'image', 'size' and 'labels' of all

    @property
    def num_examples(self) -> int:
        """The images of the split, over all hosts."""
        return len(self.columns['image'])

    def examples(self, rows: Int[np.ndarray, ' b']) -> dict[str, np.ndarray]:
        """Returns 'image', 'size' and 'labels' of the images at these positions."""
        return {name: column[rows] for name, column in self.columns.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Streamed(ordered.Read):
    """Images that are decoded as they are needed. Their batches are those of InMemory."""

    records: Sequence  # of records.Record
    side: int  # of the canvas

    @property
    def num_examples(self) -> int:
        """The images of the split, over all hosts."""
        return len(self.records)

    def decode(self) -> InMemory:
        """Returns the images decoded once, without those that cannot be used; says how many these are.

        Raises:
          DataError: none is left.
        """
        return InMemory(self.read_all(), **self.shared())

    def empty(self, count: int) -> dict[str, np.ndarray]:
        """Returns zeros for so many images."""
        return {
            'image': np.zeros((count, self.side, self.side, 3), np.uint8),
            'size': np.zeros((count, 2), np.int32),
            'labels': np.zeros((count, len(NAMES)), np.int8),
        }

    def example(self, row: int) -> dict:
        """Returns 'image', 'size' and 'labels' of an image, {} of one that is left out."""
        record = self.records[row]
        try:
            image, _ = canvas.fit(record.image(), record.objects.boxes, self.side)
        except decoding.UnusableError as error:
            self.left_out.add(record.name, str(error))
            return {}
        return {'image': canvas.place(image, self.side), 'size': image.shape[:2], 'labels': record.labels}


def load(
    records: Sequence,
    config: ConfigDict,
    *,
    place: str,
    seed: int,
    side: int = SIDE,
    process_index: int = 0,
    process_count: int = 1,
) -> InMemory | Streamed:
    """Makes batches of images, decoded once or streamed as the configuration says.

    Args:
      records: of a split, as devkit.open_voc gives them.
      config: the run's `config.data`, of which loading, memory_limit_gb and workers are read.
      place: what the split is, for messages, such as 'trainval of VOCdevkit/VOC2007'.
      seed: decides the order of training batches.
      side: of the canvases, pixels.
      process_index: this host.
      process_count: the hosts that share the data.

    Raises:
      DataError: no image can be decoded.
    """
    fits = len(records) * side**2 * 3 <= config.memory_limit_gb * 1e9
    in_memory = config.loading == 'memory' or (config.loading == 'auto' and fits)
    streamed = Streamed(
        records,
        side,
        workers=config.workers,
        seed=seed,
        process_index=process_index,
        process_count=process_count,
        reshuffle=False,
        left_out=LeftOut(place, len(records), live=not in_memory),
    )
    return streamed.decode() if in_memory else streamed
