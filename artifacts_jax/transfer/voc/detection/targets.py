"""RoIs (regions of interest) for training: matching with objects, box targets and their statistics, and sampling."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key

from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.models import boxes as geometry

# To limit recompilation, proposals are padded to multiples of this, and objects to multiples of a sixteenth of it.
PADDING_MULTIPLE = 512
FOREGROUND_IOU = 0.5  # minimum IoU of a foreground RoI with an object
BACKGROUND_IOU = 0.1  # minimum IoU of a background RoI; its maximum is below FOREGROUND_IOU
ROIS_PER_IMAGE = 64  # in a mini-batch
FOREGROUND_FRACTION = 0.25  # maximum fraction of foreground RoIs


class Matches(NamedTuple):
    """The RoIs of an image (its objects, then its proposals), and the object that each RoI overlaps most."""

    boxes: Float[Array, 'R 4']
    iou: Float[Array, ' R']  # with the matched object; 0 in an image without objects, -1 for padding
    objects: Int[Array, ' R']  # index of the matched object, the first in ties; an object matches itself


class Moments(NamedTuple):
    """Sums over the foreground RoIs of each class: their number, their box deltas and the squared box deltas.

    The moments of several images can be added.
    """

    count: Float[Array | np.ndarray, ' K']  # type: ignore[assignment]  # a method of tuples
    total: Float[Array | np.ndarray, 'K 4']
    squares: Float[Array | np.ndarray, 'K 4']


class RoiSample(NamedTuple):
    """The sampled RoIs of an image: foreground, then background, then padding, which is zero."""

    boxes: Float[Array, 'R 4']
    labels: Int32[Array, ' R']  # 0 for background, else 1 + the label of the object
    targets: Float[Array, 'R 4']  # box deltas to the object, normalised for its class; 0 for background
    valid: Bool[Array, ' R']  # False for padding


def match_objects(
    proposals: Float[Array, 'N 4'],
    valid_proposals: Bool[Array, ' N'],
    objects: Float[Array, 'G 4'],
    valid_objects: Bool[Array, ' G'],
) -> Matches:
    """Matches each RoI of an image with the object that it overlaps most.

    Args:
      proposals: boxes as in models/boxes.py.
      valid_proposals: False for padding.
      objects: boxes of all objects, also difficult ones.
      valid_objects: False for padding.
    """
    count = len(objects)
    boxes = jnp.concatenate([objects, proposals])
    valid = jnp.concatenate([valid_objects, valid_proposals])
    if not count:
        return Matches(boxes, jnp.where(valid, 0.0, -1.0), jnp.zeros(len(boxes), jnp.int32))
    iou = jnp.where(valid_objects[None], geometry.iou(boxes, objects), 0.0)
    # An object matches itself, even if another object has the same box.
    best = jnp.concatenate([jnp.arange(count), iou[count:].argmax(axis=1)])
    max_iou = jnp.take_along_axis(iou, best[:, None], axis=1)[:, 0]
    return Matches(boxes, jnp.where(valid, max_iou, -1.0), best)


def compute_moments(
    proposals: Float[Array, 'N 4'],
    valid_proposals: Bool[Array, ' N'],
    objects: Float[Array, 'G 4'],
    labels: Int[Array, ' G'],
    valid_objects: Bool[Array, ' G'],
    *,
    classes: int = len(NAMES),
) -> Moments:
    """Returns the moments of the box deltas from an image's foreground RoIs, including its objects, to their objects.

    Args:
      proposals: as for `match_objects`.
      valid_proposals: as for `match_objects`.
      objects: as for `match_objects`.
      labels: the class of each object, in [0, classes).
      valid_objects: as for `match_objects`.
      classes: the number of classes.
    """
    matches = match_objects(proposals, valid_proposals, objects, valid_objects)
    if not len(objects):
        return Moments(jnp.zeros(classes), jnp.zeros((classes, 4)), jnp.zeros((classes, 4)))
    deltas = geometry.encode(matches.boxes, objects[matches.objects])
    index = jnp.where(matches.iou >= FOREGROUND_IOU, labels[matches.objects], classes)  # `classes` is dropped

    def sum_by_class(values):
        return jnp.zeros((classes, *values.shape[1:])).at[index].add(values, mode='drop')

    return Moments(sum_by_class(jnp.ones(len(index))), sum_by_class(deltas), sum_by_class(jnp.square(deltas)))


def add_mirrored(sums: Moments) -> Moments:
    """Returns the moments of images and their mirror images, whose deltas of x have the opposite sign."""
    sign = np.array([[0.0, 2.0, 2.0, 2.0]])
    return Moments(2 * sums.count, sign * sums.total, 2 * sums.squares)


def compute_statistics(sums: Moments) -> tuple[Float32[np.ndarray, 'K 4'], Float32[np.ndarray, 'K 4']]:
    """Returns (means, standard deviations) of the box deltas of each class.

    A class without RoIs has mean 0. If all deltas of a class are equal, or there are none, the deviation is 1.
    Source: rbgirshick/fast-rcnn, lib/roi_data_layer/roidb.py.

    Args:
      sums: the moments of all images, added in float64.
    """
    count = np.maximum(np.asarray(sums.count, np.float64), 1)[:, None]
    mean, square = (np.asarray(values, np.float64) / count for values in (sums.total, sums.squares))
    variance = square - np.square(mean)
    is_constant = variance <= 1e-6 * square  # rounding errors make the variance of equal deltas slightly nonzero
    return mean.astype(np.float32), np.sqrt(np.where(is_constant, 1.0, variance)).astype(np.float32)


def compute_split_statistics(
    records: Sequence, proposals: Sequence[Float32[np.ndarray, '_ 4']]
) -> tuple[Float32[np.ndarray, 'K 4'], Float32[np.ndarray, 'K 4']]:
    """Returns the statistics of a split, over its images and their mirror images, as compute_statistics does.

    Args:
      records: the records of the images.
      proposals: of each image, boxes as in models/boxes.py.
    """
    sums: Any = None
    for record, boxes in zip(records, proposals, strict=True):
        padded, valid_proposals = _pad_boxes(boxes, PADDING_MULTIPLE)
        objects, valid_objects = _pad_boxes(record.objects.boxes - 1, PADDING_MULTIPLE // 16)
        labels = jnp.asarray(np.pad(record.objects.labels, (0, len(objects) - len(record.objects.labels))))
        moments = _compute_moments(padded, valid_proposals, objects, labels, valid_objects)
        moments = jax.tree.map(lambda x: np.asarray(x, np.float64), moments)
        sums = moments if sums is None else jax.tree.map(np.add, sums, moments)
    return compute_statistics(add_mirrored(sums))


def sample_rois(
    key: Key[Array, ''],
    proposals: Float[Array, 'N 4'],
    valid_proposals: Bool[Array, ' N'],
    objects: Float[Array, 'G 4'],
    labels: Int[Array, ' G'],
    valid_objects: Bool[Array, ' G'],
    *,
    means: Float32[Array | np.ndarray, 'K 4'],
    deviations: Float32[Array | np.ndarray, 'K 4'],
    count: int = ROIS_PER_IMAGE,
) -> RoiSample:
    """Samples RoIs of an image without replacement, as a function of the key.

    The objects of the image are added to its proposals. Foreground RoIs have an IoU of at least `FOREGROUND_IOU` with
    an object and get its label; they are at most `FOREGROUND_FRACTION` of the sample. The rest is background, with a
    highest IoU in [BACKGROUND_IOU, FOREGROUND_IOU). If there is too little background, the sample has fewer RoIs, as
    `valid` shows; foreground does not fill it up. An image without objects has no background, and gives no RoI.

    Source: rbgirshick/fast-rcnn, lib/roi_data_layer/minibatch.py.

    Args:
      key: the random key of the image.
      proposals: as for `match_objects`.
      valid_proposals: as for `match_objects`.
      objects: as for `match_objects`.
      labels: the class of each object, in [0, K).
      valid_objects: as for `match_objects`.
      means: of the box deltas of each class, from `compute_statistics`.
      deviations: of the box deltas of each class, from `compute_statistics`.
      count: the number of RoIs to sample.
    """
    matches = match_objects(proposals, valid_proposals, objects, valid_objects)
    order = jax.random.permutation(key, len(matches.boxes))
    iou = matches.iou[order]
    foreground = _take_first(iou >= FOREGROUND_IOU, round(FOREGROUND_FRACTION * count))
    background = _take_first((iou >= BACKGROUND_IOU) & (iou < FOREGROUND_IOU), count - foreground.sum())
    kind = jnp.where(foreground, 0, jnp.where(background, 1, 2))
    sampled = jnp.argsort(kind)[:count]
    kind, sampled = kind[sampled], order[sampled]
    if not len(objects):
        return _make_sample(
            matches.boxes[sampled], kind, jnp.zeros(len(kind), jnp.int32), jnp.zeros((len(kind), 4)), count
        )
    matched = matches.objects[sampled]
    label = labels[matched]
    targets = geometry.encode(matches.boxes[sampled], objects[matched])
    targets = (targets - jnp.asarray(means)[label]) / jnp.asarray(deviations)[label]
    return _make_sample(matches.boxes[sampled], kind, label + 1, targets, count)


_compute_moments = jax.jit(compute_moments)


def _pad_boxes(boxes, multiple):
    """Returns (boxes padded to a multiple of a number, False for padding)."""
    size = max(1, -(-len(boxes) // multiple)) * multiple
    padded = np.zeros((size, 4), np.float32)
    padded[: len(boxes)] = boxes
    return jnp.asarray(padded), jnp.arange(size) < len(boxes)


def _take_first(candidates, limit):
    """Returns a boolean array, True for the first `limit` candidates."""
    return candidates & (candidates.cumsum() <= limit)


def _make_sample(boxes, kind, labels, targets, count):
    """Returns the padded sample; `kind` is 0 for foreground, 1 for background and 2 for padding."""
    padding = [(0, count - len(kind))]
    kind = jnp.pad(kind, padding, constant_values=2)
    boxes, targets = (jnp.pad(values, [*padding, (0, 0)]) for values in (boxes, targets))
    return RoiSample(
        jnp.where(kind[:, None] < 2, boxes, 0.0),
        jnp.where(kind == 0, jnp.pad(labels, padding), 0).astype(jnp.int32),
        jnp.where(kind[:, None] == 0, targets, 0.0),
        kind < 2,
    )
