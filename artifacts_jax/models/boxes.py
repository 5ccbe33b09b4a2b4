"""Operations on bounding boxes: IoU, regression deltas, clipping, flipping and non-maximum suppression.

A box is (x1, y1, x2, y2), its first and last pixel, as in Fast R-CNN. Both pixels belong to the box. Pixels are counted
from 0; VOC counts from 1 (see `from_voc`). For areas, the width of a box is x2 - x1 + 1 pixels. A box with x2 < x1 or
y2 < y1 has area 0 and overlaps no other box. For regression, the width is x2 - x1 + EPS, as published: the deltas of a
box that is one pixel wide are very large, but finite.

Source: rbgirshick/fast-rcnn, lib/fast_rcnn/test.py, lib/roi_data_layer/roidb.py and lib/utils/nms.pyx.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Num

EPS = 1e-14  # pixels
SUPPRESSION = 0.3  # a box suppresses boxes of lower scores at this IoU or more


def from_voc(boxes: Num[ArrayLike, '*N 4']) -> Num[ArrayLike, '*N 4']:
    """Converts boxes of annotations.Objects: from pixels counted from 1 to pixels counted from 0."""
    return boxes - 1


def iou(boxes: Num[ArrayLike, 'N 4'], others: Num[ArrayLike, 'M 4']) -> Float[Array | np.ndarray, 'N M']:
    """Returns the intersection over union (IoU), in [0, 1], of each box with each of the other boxes.

    The result is a JAX array if one of the arguments is a JAX array, otherwise a NumPy array in float64.

    Args:
      boxes: boxes in pixels.
      others: boxes in pixels that are counted from the same number, 0 or 1.
    """
    xp, dtype = (jnp, None) if any(isinstance(x, jax.Array) for x in (boxes, others)) else (np, np.float64)
    boxes, others = xp.asarray(boxes, dtype)[:, None], xp.asarray(others, dtype)[None]
    intersection = _area(xp.maximum(boxes[..., :2], others[..., :2]), xp.minimum(boxes[..., 2:], others[..., 2:]))
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - intersection
    return xp.where(intersection > 0, intersection / xp.where(intersection > 0, union, 1.0), 0.0)


def encode(boxes: Float[ArrayLike, '*N 4'], targets: Float[ArrayLike, '*N 4']) -> Float[Array, '*N 4']:
    """Returns the regression deltas (dx, dy, dw, dh) from boxes to their targets.

    dx and dy are the shifts of the centre, divided by the width and height of the box. dw and dh are the logarithms of
    the ratios of the widths and of the heights.
    """
    centres, sides = _centres_and_sides(boxes)
    target_centres, target_sides = _centres_and_sides(targets)
    return jnp.concatenate([(target_centres - centres) / sides, jnp.log(target_sides / sides)], axis=-1)


def decode(boxes: Float[ArrayLike, '*#N 4'], deltas: Float[ArrayLike, '*#N 4']) -> Float[Array, '*_ 4']:
    """Applies deltas to boxes, the inverse of `encode`, without clipping. A box can have deltas of several classes."""
    centres, sides = _centres_and_sides(boxes)
    deltas = jnp.asarray(deltas)
    centres, halves = deltas[..., :2] * sides + centres, 0.5 * jnp.exp(deltas[..., 2:]) * sides
    return jnp.concatenate([centres - halves, centres + halves], axis=-1)


def clip(boxes: Float[ArrayLike, '*N 4'], size: Num[ArrayLike, '2']) -> Float[Array, '*N 4']:
    """Clips both corners of the boxes to an image.

    A box outside the image becomes a strip of pixels at its border. Fast R-CNN differs: it clips x1 and y1 only from
    below and x2 and y2 only from above, so that such a box has no area.

    Args:
      boxes: boxes in pixels counted from 0.
      size: the image's height and width, pixels.
    """
    boxes = jnp.asarray(boxes)
    last = jnp.tile(jnp.asarray(size, boxes.dtype)[::-1] - 1, 2)
    return jnp.clip(boxes, 0, last.reshape((1,) * (boxes.ndim - 1) + (4,)))


def flip(boxes: Float[ArrayLike, '*N 4'], width: Num[ArrayLike, '']) -> Float[Array, '*N 4']:
    """Returns the boxes in the horizontally flipped image; `width` is its width in pixels."""
    x1, y1, x2, y2 = jnp.moveaxis(jnp.asarray(boxes), -1, 0)
    return jnp.stack([width - 1 - x2, y1, width - 1 - x1, y2], axis=-1)


def nms(
    boxes: Float[Array, 'N 4'], scores: Float[Array, ' N'], valid: Bool[Array, ' N'], *, threshold: float = SUPPRESSION
) -> Bool[Array, ' N']:
    """Returns the mask of the boxes that remain after non-maximum suppression within one class; use vmap for several.

    Boxes are visited from the highest score down. A box is suppressed if its IoU with a retained box is at least the
    threshold. Of boxes with equal scores, the one with the lower index is visited first.

    Args:
      boxes: the boxes; the memory grows with the square of their number.
      scores: finite scores.
      valid: False for padding, which is never retained and suppresses no box.
      threshold: the IoU.
    """
    index = jnp.arange(len(scores))
    higher = (scores[:, None] > scores[None]) | ((scores[:, None] == scores[None]) & (index[:, None] < index[None]))
    suppresses = higher & (iou(boxes, boxes) >= threshold)

    # After n iterations, the result of the n boxes with the highest scores is final. In practice, a few are enough.
    def iterate(state):
        _, retained = state
        return retained, valid & ~(suppresses & retained[:, None]).any(axis=0)

    def has_changed(state):
        return (state[0] != state[1]).any()

    return jax.lax.while_loop(has_changed, iterate, iterate((valid, valid)))[1]


def _area(first, last):
    return (last - first + 1).clip(0).prod(axis=-1)


def _centres_and_sides(boxes):
    boxes = jnp.asarray(boxes)
    sides = boxes[..., 2:] - boxes[..., :2] + EPS
    return boxes[..., :2] + 0.5 * sides, sides
