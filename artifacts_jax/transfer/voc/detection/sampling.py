"""The regions of an image that Fast R-CNN is trained on, drawn anew at each step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key

from artifacts_jax.transfer.voc.detection import boxes as geometry
from artifacts_jax.transfer.voc.detection.targets import FOREGROUND, match

COUNT = 64  # regions of an image
SHARE = 0.25  # of them, at most, that are foreground
BACKGROUND = 0.1  # the least IoU of background; that of foreground is above it


class Sample(NamedTuple):
    """The regions of an image: foreground, background, and what pads them, which is zero."""

    boxes: Float[Array, 'R 4']
    labels: Int32[Array, ' R']  # 0 background, or 1 more than the object's
    targets: Float[Array, 'R 4']  # how the box moves to its object, normalised for its class; 0 for background
    mask: Bool[Array, ' R']  # False for what pads them


def draw(
    key: Key[Array, ''],
    proposals: Float[Array, 'N 4'],
    mask: Bool[Array, ' N'],
    objects: Float[Array, 'G 4'],
    labels: Int[Array, ' G'],
    object_mask: Bool[Array, ' G'],
    *,
    means: Float32[Array | np.ndarray, 'K 4'],
    deviations: Float32[Array | np.ndarray, 'K 4'],
    count: int = COUNT,
) -> Sample:
    """Draws regions of an image without replacement, as a function of the key.

    Its objects join the proposals. As many as there are, at most `SHARE`, are foreground, with an IoU of at least
    `FOREGROUND` with an object, whose label they have. The rest is background, with one in [BACKGROUND, FOREGROUND). If
    there is too little background, foreground does not replace it: fewer regions are drawn, and the mask says so. In an
    image without objects nothing is background, and none is drawn.

    Source: rbgirshick/fast-rcnn, lib/roi_data_layer/minibatch.py.

    Args:
      key: the image's own.
      proposals: as of boxes.py, and so the objects.
      mask: False for what pads the proposals.
      objects: all those of the image, also difficult ones.
      labels: theirs, in [0, K).
      object_mask: False for what pads the objects.
      means: of each class, as of targets.statistics.
      deviations: of each class.
      count: how many regions to draw.
    """
    found = match(proposals, mask, objects, object_mask)
    order = jax.random.permutation(key, len(found.boxes))
    overlaps = found.overlaps[order]
    most = round(SHARE * count)
    foreground = _first(overlaps >= FOREGROUND, most)
    background = _first((overlaps >= BACKGROUND) & (overlaps < FOREGROUND), count - foreground.sum())
    kind = jnp.where(foreground, 0, jnp.where(background, 1, 2))
    chosen = jnp.argsort(kind)[:count]
    kind, chosen = kind[chosen], order[chosen]
    if not len(objects):
        return _padded(found.boxes[chosen], kind, jnp.zeros(len(kind), jnp.int32), jnp.zeros((len(kind), 4)), count)
    nearest = found.objects[chosen]
    label = labels[nearest]
    targets = geometry.encode(found.boxes[chosen], objects[nearest])
    targets = (targets - jnp.asarray(means)[label]) / jnp.asarray(deviations)[label]
    return _padded(found.boxes[chosen], kind, label + 1, targets, count)


def _first(candidates, most):
    """Returns the first so many candidates."""
    return candidates & (candidates.cumsum() <= most)


def _padded(boxes, kind, labels, targets, count):
    """Returns a sample of regions of a kind: foreground 0, background 1, and what is no region 2."""
    missing = [(0, count - len(kind))]
    kind = jnp.pad(kind, missing, constant_values=2)
    boxes, targets = (jnp.pad(values, [*missing, (0, 0)]) for values in (boxes, targets))
    return Sample(
        jnp.where(kind[:, None] < 2, boxes, 0.0),
        jnp.where(kind == 0, jnp.pad(labels, missing), 0).astype(jnp.int32),
        jnp.where(kind[:, None] == 0, targets, 0.0),
        kind < 2,
    )
