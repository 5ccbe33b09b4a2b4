"""What is left of the scores and boxes of proposals: the detections of an image, as Fast R-CNN has them.

Of each class an image keeps its best 100 boxes. All images together keep 40 times as many as there are images, of each
class: those above the score that would be the last. Then boxes that overlap a better one are dropped.

Source: rbgirshick/fast-rcnn, lib/fast_rcnn/test.py, which raises the least score image by image, to the same effect.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool, Float32

from artifacts_jax.transfer.voc.detection import nms
from artifacts_jax.transfer.voc.detection.detections import Detections

MOST = 100  # boxes of a class in an image
AVERAGE = 40  # and over all images


class Candidates(NamedTuple):
    """The best boxes of each class in an image, the best first."""

    scores: Float32[np.ndarray, 'K M']
    boxes: Float32[np.ndarray, 'K M 4']
    mask: Bool[np.ndarray, 'K M']  # False for what pads them


def best(scores: Float32[np.ndarray, 'N K'], boxes: Float32[np.ndarray, 'N K 4']) -> Candidates:
    """Returns the candidates of an image; of equal scores the first box comes first.

    Args:
      scores: of each box to be of each class.
      boxes: each as it is moved for each class.
    """
    classes = scores.shape[1]
    order = np.argsort(-scores, axis=0, kind='stable')[:MOST].T
    missing = MOST - order.shape[1]
    columns = np.arange(classes)[:, None]
    return Candidates(
        np.pad(scores[order, columns], ((0, 0), (0, missing))),
        np.pad(boxes[order, columns], ((0, 0), (0, missing), (0, 0))),
        np.tile(np.arange(MOST) < order.shape[1], (classes, 1)),
    )


def select(found: Sequence[Candidates]) -> list[Detections]:
    """Returns the detections of images, by class, the best first.

    Args:
      found: the candidates of each image; how many images there are decides which scores are too low.
    """
    if not found:
        return []
    least = [_least(np.concatenate([each.scores[k][each.mask[k]] for each in found]), AVERAGE * len(found))
             for k in range(len(found[0].scores))]  # fmt: skip
    return [_suppressed(each, each.mask & (each.scores > np.array(least, np.float32)[:, None])) for each in found]


def _least(scores, most):
    """Returns the score that a detection has to be above, such that fewer than so many are; any, if there are fewer."""
    return np.partition(scores, -most)[-most] if len(scores) > most else -np.inf


def _suppressed(each, mask):
    kept = np.asarray(_keep(each.boxes, each.scores, mask))
    labels, places = np.nonzero(kept)
    return Detections(labels.astype(np.int32), each.scores[labels, places], each.boxes[labels, places])


_keep = jax.jit(jax.vmap(nms.keep))
