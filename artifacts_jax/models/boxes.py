"""Boxes in an image: how they overlap, move, end at its borders, are mirrored, and which remain of those that overlap.

A box is x1 y1 x2 y2: its first and last pixels, which both belong to it, counted from 0, as Fast R-CNN has them. VOC
counts from 1: `from_voc`. Areas are of pixels, so x2 - x1 + 1 wide; a box with x2 < x1 or y2 < y1 has none, and
overlaps nothing. In regression widths are x2 - x1 + EPS, as published: what deltas a box one pixel wide is huge, but
finite.

Source: rbgirshick/fast-rcnn, lib/fast_rcnn/test.py, lib/roi_data_layer/roidb.py and lib/utils/nms.pyx.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Num

EPS = 1e-14  # pixels
SUPPRESSION = 0.3  # the IoU from which on a box suppresses one of a lower score


def from_voc(boxes: Num[ArrayLike, '*N 4']) -> Num[ArrayLike, '*N 4']:
    """Returns boxes of annotations.Objects, whose pixels are counted from 1, with pixels counted from 0."""
    return boxes - 1


def iou(boxes: Num[ArrayLike, 'N 4'], others: Num[ArrayLike, 'M 4']) -> Float[Array | np.ndarray, 'N M']:
    """Returns the intersection over the union, in pixels, of each box with each of the others: in [0, 1].

    NumPy's arrays give NumPy's in float64, JAX's give JAX's.

    Args:
      boxes: any.
      others: whose pixels are counted from the same number.
    """
    xp, dtype = (jnp, None) if any(isinstance(x, jax.Array) for x in (boxes, others)) else (np, np.float64)
    boxes, others = xp.asarray(boxes, dtype)[:, None], xp.asarray(others, dtype)[None]
    common = _area(xp.maximum(boxes[..., :2], others[..., :2]), xp.minimum(boxes[..., 2:], others[..., 2:]))
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - common
    return xp.where(common > 0, common / xp.where(common > 0, union, 1.0), 0.0)


def encode(boxes: Float[ArrayLike, '*N 4'], targets: Float[ArrayLike, '*N 4']) -> Float[Array, '*N 4']:
    """Returns what deltas boxes to their targets.

    It is how far the centre deltas in x and y, in widths and heights of the box, and the logarithms of the ratios of
    widths and of heights.
    """
    centres, sides = _centred(boxes)
    target_centres, target_sides = _centred(targets)
    return jnp.concatenate([(target_centres - centres) / sides, jnp.log(target_sides / sides)], axis=-1)


def decode(boxes: Float[ArrayLike, '*#N 4'], deltas: Float[ArrayLike, '*#N 4']) -> Float[Array, '*_ 4']:
    """Returns boxes moved, which `encode` undoes; neither is clipped. One box may have deltas of several classes."""
    centres, sides = _centred(boxes)
    deltas = jnp.asarray(deltas)
    centres, halves = deltas[..., :2] * sides + centres, 0.5 * jnp.exp(deltas[..., 2:]) * sides
    return jnp.concatenate([centres - halves, centres + halves], axis=-1)


def clip(boxes: Float[ArrayLike, '*N 4'], size: Num[ArrayLike, '2']) -> Float[Array, '*N 4']:
    """Returns boxes with both ends inside an image.

    Of one that lies outside, pixels at the border remain, where Fast R-CNN, which clips x1 and y1 from below and x2 and
    y2 from above alone, has a box without area.

    Args:
      boxes: which.
      size: the image's height and width, pixels.
    """
    boxes = jnp.asarray(boxes)
    last = jnp.tile(jnp.asarray(size, boxes.dtype)[::-1] - 1, 2)
    return jnp.clip(boxes, 0, last.reshape((1,) * (boxes.ndim - 1) + (4,)))


def flip(boxes: Float[ArrayLike, '*N 4'], width: Num[ArrayLike, '']) -> Float[Array, '*N 4']:
    """Returns the boxes of a mirrored image of this width, pixels."""
    x1, y1, x2, y2 = jnp.moveaxis(jnp.asarray(boxes), -1, 0)
    return jnp.stack([width - 1 - x2, y1, width - 1 - x1, y2], axis=-1)


def nms(
    boxes: Float[Array, 'N 4'], scores: Float[Array, ' N'], valid: Bool[Array, ' N'], *, threshold: float = SUPPRESSION
) -> Bool[Array, ' N']:
    """Returns which boxes remain after non-maximum suppression, of one class; under vmap, of several.

    From the highest score down, a box is dropped if its IoU with one that is kept is at least the threshold. Of equal
    scores the first box comes first.

    Args:
      boxes: memory grows with their number's square.
      scores: finite.
      valid: False for what pads them, which is not kept and drops nothing.
      threshold: of IoU.
    """
    place = jnp.arange(len(scores))
    higher = (scores[:, None] > scores[None]) | ((scores[:, None] == scores[None]) & (place[:, None] < place[None]))
    drops = higher & (iou(boxes, boxes) >= threshold)

    # What the first n boxes by score do is settled after n rounds, but in practice all is after a few.
    def again(state):
        _, kept = state
        return kept, valid & ~(drops & kept[:, None]).any(axis=0)

    def unsettled(state):
        return (state[0] != state[1]).any()

    return jax.lax.while_loop(unsettled, again, again((valid, valid)))[1]


def _area(first, last):
    return (last - first + 1).clip(0).prod(axis=-1)


def _centred(boxes):
    boxes = jnp.asarray(boxes)
    sides = boxes[..., 2:] - boxes[..., :2] + EPS
    return boxes[..., :2] + 0.5 * sides, sides
