"""Non-maximum suppression: of boxes that overlap, the one with the highest score is kept."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from artifacts_jax.transfer.voc.detection import boxes as geometry

THRESHOLD = 0.3


def keep(
    boxes: Float[Array, 'N 4'], scores: Float[Array, ' N'], mask: Bool[Array, ' N'], *, threshold: float = THRESHOLD
) -> Bool[Array, ' N']:
    """Returns which boxes are left, of one class; under vmap, of several.

    From the highest score down, a box is dropped if its IoU with one that is kept is at least the threshold. Of equal
    scores the first box comes first. Source: rbgirshick/fast-rcnn, lib/utils/nms.pyx.

    Args:
      boxes: as of boxes.py; memory grows with their number's square.
      scores: finite.
      mask: False for what pads them, which is not kept and drops nothing.
      threshold: of IoU.
    """
    place = jnp.arange(len(scores))
    higher = (scores[:, None] > scores[None]) | ((scores[:, None] == scores[None]) & (place[:, None] < place[None]))
    drops = higher & (geometry.iou(boxes, boxes) >= threshold)

    # What the first n boxes by score do is settled after n rounds, but in practice all is after a few.
    def again(state):
        _, kept = state
        return kept, mask & ~(drops & kept[:, None]).any(axis=0)

    def unsettled(state):
        return (state[0] != state[1]).any()

    return jax.lax.while_loop(unsettled, again, again((mask, mask)))[1]
