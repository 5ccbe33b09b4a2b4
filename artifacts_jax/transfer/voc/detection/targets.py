"""Regions of interest: what they are to be moved to, its mean and deviation, and those that a step learns from."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key

from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.models import boxes as geometry

PADDING_MULTIPLE = 512  # proposals and objects are padded to multiples of, and of a sixteenth, for fewer programs
FOREGROUND_IOU = 0.5  # the least IoU of a region with the object that it is taken for
BACKGROUND_IOU = 0.1  # the least IoU of background; that of foreground is above it
ROIS_PER_IMAGE = 64  # regions of an image that are drawn
FOREGROUND_FRACTION = 0.25  # of them, at most, that are foreground


class Matches(NamedTuple):
    """The regions of an image, first its objects and then its proposals, and the object that each overlaps most."""

    boxes: Float[Array, 'R 4']
    overlaps: Float[Array, ' R']  # IoU with that object; 0 where there is none, -1 for what pads the regions
    objects: Int[Array, ' R']  # its position; the first of several; of an object, itself


class Moments(NamedTuple):
    """Sums over regions, by class. Those of several images add up."""

    count: Float[Array | np.ndarray, ' K']  # type: ignore[assignment]  # a method of tuples
    total: Float[Array | np.ndarray, 'K 4']
    squares: Float[Array | np.ndarray, 'K 4']


class RoiSample(NamedTuple):
    """The regions of an image: foreground, background, and what pads them, which is zero."""

    boxes: Float[Array, 'R 4']
    labels: Int32[Array, ' R']  # 0 background, or 1 more than the object's
    targets: Float[Array, 'R 4']  # how the box moves to its object, normalised for its class; 0 for background
    mask: Bool[Array, ' R']  # False for what pads them


def match_objects(
    proposals: Float[Array, 'N 4'],
    mask: Bool[Array, ' N'],
    objects: Float[Array, 'G 4'],
    object_mask: Bool[Array, ' G'],
) -> Matches:
    """Matches an image's regions with its objects.

    Args:
      proposals: as of boxes.py, and so the objects.
      mask: False for what pads the proposals.
      objects: of any class, also difficult ones.
      object_mask: False for what pads the objects.
    """
    count = len(objects)
    regions = jnp.concatenate([objects, proposals])
    there = jnp.concatenate([object_mask, mask])
    if not count:
        return Matches(regions, jnp.where(there, 0.0, -1.0), jnp.zeros(len(regions), jnp.int32))
    overlaps = jnp.where(object_mask[None], geometry.iou(regions, objects), 0.0)
    # Two objects may have one box: each is its own.
    best = jnp.concatenate([jnp.arange(count), overlaps[count:].argmax(axis=1)])
    highest = jnp.take_along_axis(overlaps, best[:, None], axis=1)[:, 0]
    return Matches(regions, jnp.where(there, highest, -1.0), best)


def compute_moments(
    proposals: Float[Array, 'N 4'],
    mask: Bool[Array, ' N'],
    objects: Float[Array, 'G 4'],
    labels: Int[Array, ' G'],
    object_mask: Bool[Array, ' G'],
    *,
    classes: int = len(NAMES),
) -> Moments:
    """Returns the sums of what an image's foreground regions, its objects among them, are to be moved by.

    Args:
      proposals: as for `match`, and so all but the labels.
      mask: see there.
      objects: see there.
      labels: in [0, classes).
      object_mask: see there.
      classes: how many.
    """
    found = match_objects(proposals, mask, objects, object_mask)
    if not len(objects):
        return Moments(jnp.zeros(classes), jnp.zeros((classes, 4)), jnp.zeros((classes, 4)))
    moves = geometry.encode(found.boxes, objects[found.objects])
    place = jnp.where(found.overlaps >= FOREGROUND_IOU, labels[found.objects], classes)

    def summed(values):
        return jnp.zeros((classes, *values.shape[1:])).at[place].add(values, mode='drop')

    return Moments(summed(jnp.ones(len(place))), summed(moves), summed(jnp.square(moves)))


def add_mirrored(sums: Moments) -> Moments:
    """Returns the sums over the images and their mirror images, in which x alone moves the other way."""
    sign = np.array([[0.0, 2.0, 2.0, 2.0]])
    return Moments(2 * sums.count, sign * sums.total, 2 * sums.squares)


def compute_statistics(sums: Moments) -> tuple[Float32[np.ndarray, 'K 4'], Float32[np.ndarray, 'K 4']]:
    """Returns (means, deviations) by class.

    A class without regions has mean 0. Where all its regions move alike, as when it has none, the deviation is 1.
    Source: rbgirshick/fast-rcnn, lib/roi_data_layer/roidb.py.

    Args:
      sums: over all images. Add them up in float64.
    """
    count = np.maximum(np.asarray(sums.count, np.float64), 1)[:, None]
    mean, square = (np.asarray(values, np.float64) / count for values in (sums.total, sums.squares))
    variance = square - np.square(mean)
    alike = variance <= 1e-6 * square  # which is what rounding leaves
    return mean.astype(np.float32), np.sqrt(np.where(alike, 1.0, variance)).astype(np.float32)


def compute_split_statistics(
    records: Sequence, proposals: Sequence[Float32[np.ndarray, '_ 4']]
) -> tuple[Float32[np.ndarray, 'K 4'], Float32[np.ndarray, 'K 4']]:
    """Returns the statistics of images and their mirror images.

    Args:
      records: of the images.
      proposals: of each, as of boxes.py.
    """
    sums: Any = None
    for record, boxes in zip(records, proposals, strict=True):
        regions, mask = _padded(boxes, PADDING_MULTIPLE)
        objects, object_mask = _padded(record.objects.boxes - 1, PADDING_MULTIPLE // 16)
        labels = jnp.asarray(np.pad(record.objects.labels, (0, len(objects) - len(record.objects.labels))))
        found = _moments(regions, mask, objects, labels, object_mask)
        found = jax.tree.map(lambda x: np.asarray(x, np.float64), found)
        sums = found if sums is None else jax.tree.map(np.add, sums, found)
    return compute_statistics(add_mirrored(sums))


def sample_rois(
    key: Key[Array, ''],
    proposals: Float[Array, 'N 4'],
    mask: Bool[Array, ' N'],
    objects: Float[Array, 'G 4'],
    labels: Int[Array, ' G'],
    object_mask: Bool[Array, ' G'],
    *,
    means: Float32[Array | np.ndarray, 'K 4'],
    deviations: Float32[Array | np.ndarray, 'K 4'],
    count: int = ROIS_PER_IMAGE,
) -> RoiSample:
    """Draws regions of an image without replacement, as a function of the key.

    The objects of the image are added to its proposals. Foreground RoIs have an IoU of at least `FOREGROUND_IOU` with
    an object and get its label; they are at most `FOREGROUND_FRACTION` of the sample. The rest is background, with a
    highest IoU in [BACKGROUND_IOU, FOREGROUND_IOU). If there is too little background, the sample has fewer RoIs, as
    the mask shows; foreground does not fill it up. An image without objects has no background, and gives no RoI.

    Source: rbgirshick/fast-rcnn, lib/roi_data_layer/minibatch.py.

    Args:
      key: the image's own.
      proposals: as of boxes.py, and so the objects.
      mask: False for what pads the proposals.
      objects: all those of the image, also difficult ones.
      labels: theirs, in [0, K).
      object_mask: False for what pads the objects.
      means: of each class, as of `statistics`.
      deviations: of each class.
      count: how many regions to draw.
    """
    found = match_objects(proposals, mask, objects, object_mask)
    order = jax.random.permutation(key, len(found.boxes))
    overlaps = found.overlaps[order]
    most = round(FOREGROUND_FRACTION * count)
    foreground = _first(overlaps >= FOREGROUND_IOU, most)
    background = _first((overlaps >= BACKGROUND_IOU) & (overlaps < FOREGROUND_IOU), count - foreground.sum())
    kind = jnp.where(foreground, 0, jnp.where(background, 1, 2))
    chosen = jnp.argsort(kind)[:count]
    kind, chosen = kind[chosen], order[chosen]
    if not len(objects):
        return _sample(found.boxes[chosen], kind, jnp.zeros(len(kind), jnp.int32), jnp.zeros((len(kind), 4)), count)
    nearest = found.objects[chosen]
    label = labels[nearest]
    targets = geometry.encode(found.boxes[chosen], objects[nearest])
    targets = (targets - jnp.asarray(means)[label]) / jnp.asarray(deviations)[label]
    return _sample(found.boxes[chosen], kind, label + 1, targets, count)


_moments = jax.jit(compute_moments)


def _padded(boxes, multiple):
    size = max(1, -(-len(boxes) // multiple)) * multiple
    padded = np.zeros((size, 4), np.float32)
    padded[: len(boxes)] = boxes
    return jnp.asarray(padded), jnp.arange(size) < len(boxes)


def _first(candidates, most):
    """Returns the first so many candidates."""
    return candidates & (candidates.cumsum() <= most)


def _sample(boxes, kind, labels, targets, count):
    """Returns a sample of regions of a kind: foreground 0, background 1, and what is no region 2."""
    missing = [(0, count - len(kind))]
    kind = jnp.pad(kind, missing, constant_values=2)
    boxes, targets = (jnp.pad(values, [*missing, (0, 0)]) for values in (boxes, targets))
    return RoiSample(
        jnp.where(kind[:, None] < 2, boxes, 0.0),
        jnp.where(kind == 0, jnp.pad(labels, missing), 0).astype(jnp.int32),
        jnp.where(kind[:, None] == 0, targets, 0.0),
        kind < 2,
    )
