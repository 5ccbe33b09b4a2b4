"""The figure of what a network sees: photographs of a split with the classes of their pixels, true and predicted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from artifacts_jax.drawing import label_maps
from artifacts_jax.transfer.voc.records import VOID
from artifacts_jax.transfer.voc.segmentation import network

FILE = 'segmentation.png'
COUNT = 5  # photographs


def draw(path: Path, records: Sequence, found: dict[int, UInt8[np.ndarray, 'H W']], *, step: int) -> None:
    """Writes the PNG file.

    Args:
      path: the file.
      records: of the split.
      found: {position in the split: the class of each pixel} of the images to draw; where there are none, nothing is
        written.
      step: of the network.
    """
    rows = [label_maps.Row(records[row].image(), (records[row].mask(), labels)) for row, labels in found.items()]
    if rows:
        title = f'Segmentation after {step:,} updates'
        heads = ('photograph', 'truth', 'prediction')
        label_maps.draw(path, rows, heads, dict(enumerate(network.CLASSES)) | {VOID: 'void'}, title=title)
