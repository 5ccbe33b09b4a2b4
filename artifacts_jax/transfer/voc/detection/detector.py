"""The detector: detects objects from region proposals, at one scale or several; its export and loading.

With several scales, each proposal is tested at the scale that makes its area closest to 224 x 224 pixels. Proposals
that fall on the same cells of conv5 are computed once. An image may have any number of proposals; the network processes
them in chunks of `config.voc_detection.boxes`.

For each class, an image keeps its 100 best boxes, and all images together keep 40 boxes per image on average: those
with the highest scores. Then NMS (non-maximum suppression) removes boxes that overlap a better one.

Source: rbgirshick/fast-rcnn, lib/fast_rcnn/test.py; it raises the minimum score image by image, with the same result.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, Int
from ml_collections import ConfigDict

from artifacts_jax.data.skipped import SkippedExamples
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.data.voc.records import Record
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports, images
from artifacts_jax.models import architecture, fast_rcnn
from artifacts_jax.models import boxes as geometry
from artifacts_jax.transfer.voc.detection import batches, proposals, scales, selective_search
from artifacts_jax.transfer.voc.detection.detections import Detections

MAX_BOXES = 100  # per class and image, before NMS
MEAN_BOXES = 40  # per class and image, averaged over all images, before NMS
REFERENCE_SIDE = 224  # pixels; each box is tested at the scale that makes its area closest to this square


class Candidates(NamedTuple):
    """The boxes of each class in an image before NMS, by descending score."""

    scores: Float32[np.ndarray, 'K M']
    boxes: Float32[np.ndarray, 'K M 4']
    valid: Bool[np.ndarray, 'K M']  # False for padding


class NamedDetections(NamedTuple):
    """The detections in an image with class names, by descending score."""

    labels: tuple[str, ...]
    scores: Float32[np.ndarray, ' N']  # in [0, 1]
    boxes: Float32[np.ndarray, 'N 4']  # x1 y1 x2 y2, 0-based; both corner pixels belong to the box


def choose_scales(boxes: Float32[np.ndarray, 'N 4'], factors: Sequence[float]) -> Int[np.ndarray, ' N']:
    """Returns the index of the scale at which each box is tested; in ties the first one.

    Args:
      boxes: in original pixels.
      factors: the factor from original pixels to pixels of each scale.
    """
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1, dtype=np.float64)
    scaled = areas[:, None] * np.square(np.array(factors, np.float64))[None]
    return np.abs(scaled - REFERENCE_SIDE**2).argmin(axis=1)


def deduplicate_rois(
    boxes: Float32[np.ndarray, 'N 4'], levels: Int[np.ndarray, ' N'], factors: Sequence[float], scale: float
) -> tuple[Int[np.ndarray, ' M'], Int[np.ndarray, ' N']]:
    """Returns (indices of boxes with distinct conv5 cells, for each box the position among them of its equivalent).

    Args:
      boxes: in original pixels.
      levels: the scale of each box, as choose_scales returns it.
      factors: as for choose_scales.
      scale: conv5 cells per pixel.
    """
    cells = np.rint(boxes * np.array(factors)[levels][:, None] * scale)
    rows = np.concatenate([levels[:, None], cells], axis=1)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def make_detect_fn(config: ConfigDict, devices: Devices) -> Callable[..., dict[int, Detections]]:
    """Returns detect(variables, images, limit=0) -> {position in the split: Detections}.

    `variables` are the variables of stage.Stage's state. `images` are batches.Images; `detect` tests the first `limit`
    of them (0: all), and skips images that cannot be decoded. The batch size is one image per device.
    """
    predict, chunk_size = devices.per_example(_make_predict_fn(config)), config.voc_detection.boxes
    batch_size, scale = len(devices.devices), 1 / (4 * config.model.conv1_stride)

    def prepare_rois(images, row):
        size, boxes = images.records[row].size, images.proposals[row]
        factors = [scales.compute_scale(size, shorter, images.longest) for shorter in images.shorter_sides]
        levels = choose_scales(boxes, factors)
        first, inverse = deduplicate_rois(boxes, levels, factors, scale)
        return boxes[first], levels[first], inverse

    def detect(variables, images, limit=0):
        candidates, count = {}, min(limit or len(images.records), len(images.records))
        for number, batch in enumerate(images.eval_batches(batch_size, limit=limit)):
            rows = range(number * batch_size, min((number + 1) * batch_size, count))
            rois = {row: prepare_rois(images, row) for row in rows}
            outputs = {row: [] for row in rows}
            for start in range(0, max(1, *(len(boxes) for boxes, _, _ in rois.values())), chunk_size):
                chunks = [_pad_chunk(rois, images, int(row), start, chunk_size) for row in batch['index']]
                stacked = {name: np.stack([chunk[name] for chunk in chunks]) for name in chunks[0]}
                for row, *values in zip(*predict(variables, {**batch, **stacked})):
                    outputs[int(row)].append(values)
            for row in rows:
                if outputs[row]:  # empty if the image cannot be decoded
                    boxes, _, inverse = rois[row]
                    scores, predicted_boxes = (np.concatenate(x)[: len(boxes)][inverse] for x in zip(*outputs[row]))
                    candidates[row] = select_candidates(scores, predicted_boxes)
        return dict(zip(candidates, select_detections(list(candidates.values()))))

    return detect


def select_candidates(scores: Float32[np.ndarray, 'N K'], boxes: Float32[np.ndarray, 'N K 4']) -> Candidates:
    """Returns the MAX_BOXES best boxes of each class in an image; ties keep the order of the boxes.

    Args:
      scores: the score of each RoI for each class.
      boxes: the box that is predicted from each RoI for each class.
    """
    classes = scores.shape[1]
    order = np.argsort(-scores, axis=0, kind='stable')[:MAX_BOXES].T
    missing = MAX_BOXES - order.shape[1]
    columns = np.arange(classes)[:, None]
    return Candidates(
        np.pad(scores[order, columns], ((0, 0), (0, missing))),
        np.pad(boxes[order, columns], ((0, 0), (0, missing), (0, 0))),
        np.tile(np.arange(MAX_BOXES) < order.shape[1], (classes, 1)),
    )


def select_detections(candidates: Sequence[Candidates]) -> list[Detections]:
    """Returns the detections in images, by class and descending score.

    Args:
      candidates: of all images, one per image; their number determines the minimum score of each class.
    """
    if not candidates:
        return []
    limit = MEAN_BOXES * len(candidates)
    all_scores = [
        np.concatenate([of_image.scores[k][of_image.valid[k]] for of_image in candidates])
        for k in range(len(candidates[0].scores))
    ]
    thresholds = np.array([_compute_threshold(scores, limit) for scores in all_scores], np.float32)
    return [_apply_nms(of_image, of_image.valid & (of_image.scores > thresholds[:, None])) for of_image in candidates]


def _compute_threshold(scores, limit):
    """Returns the score above which fewer than `limit` detections lie; -inf if there are at most `limit`."""
    return np.partition(scores, -limit)[-limit] if len(scores) > limit else -np.inf


def _apply_nms(candidates, valid):
    labels, columns = np.nonzero(np.asarray(_nms(candidates.boxes, candidates.scores, valid)))
    return Detections(labels.astype(np.int32), candidates.scores[labels, columns], candidates.boxes[labels, columns])


def save(folder: Path, variables: dict, config: ConfigDict, source: dict) -> None:
    """Exports a detector.

    Args:
      folder: the folder of the export.
      variables: the variables of stage.Stage's state.
      config: the run's configuration.
      source: as for exports.save.
    """
    params = dict(variables['params'])
    params['head'] = fold_target_statistics(params['head'], params.pop('targets'))
    head = {'protocol': 'detection', 'names': list(NAMES)}
    exports.save(folder, {'params': params, 'batch_stats': {}}, config, head=head, source=source)


def fold_target_statistics(head: dict, targets: dict) -> dict:
    """Returns the parameters of an equivalent head whose box deltas are not normalised.

    Args:
      head: the parameters of fast_rcnn.Regions.
      targets: {'means', 'deviations'}, [K, 4] each: the statistics that normalise the head's box deltas.
    """
    mean = jnp.pad(targets['means'], ((1, 0), (0, 0))).reshape(-1)
    deviation = jnp.pad(targets['deviations'], ((1, 0), (0, 0)), constant_values=1).reshape(-1)
    kernel, bias = head['bbox_pred']['kernel'], head['bbox_pred']['bias']
    return {**head, 'bbox_pred': {'kernel': kernel * deviation[None], 'bias': bias * deviation + mean}}


def load_detector(
    folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)
) -> Callable[..., NamedDetections]:
    """Loads a detector that the stage voc_detection has exported.

    Args:
      folder: the export, such as WORKDIR/voc_detection/single_scale_frozen1/export.
      value_range: (low, high), the range of floating point images, such as (0, 1).

    Returns:
      detect(image, boxes=None) -> NamedDetections. The image is [H, W, 3], RGB, of any size; integers are values from 0
      to 255. `boxes` are region proposals [N, 4], in the coordinates of NamedDetections.boxes; invalid boxes are
      clipped or skipped (see docs/tables.md). Without `boxes`, selective search computes proposals, which takes seconds
      and needs `pip install -e '.[voc]'`. The result has at most 40 boxes per class, with any score. `detect` raises
      ValueError for an image of another shape, type or range.

    Raises:
      ExportError: a file or network of the export is missing or different, or the export has no detector.
      ValueError: value_range is not an increasing pair of numbers.
    """
    value_range = images.check_range(value_range)
    detect_records, names = load_detect_fn(folder)

    def detect(image: Any, boxes: Any = None) -> NamedDetections:
        pixels = images.to_pixels(image, value_range)
        boxes = selective_search.search(pixels) if boxes is None else _check_boxes(boxes, pixels.shape[:2])
        records = [Record('the image', pixels, pixels.shape[:2])]
        (detections,) = detect_records(records, [boxes]).values()
        order = np.argsort(-detections.scores, kind='stable')
        labels = tuple(names[n] for n in detections.labels[order])
        return NamedDetections(labels, detections.scores[order], detections.boxes[order])

    return detect


def load_detect_fn(folder: str | Path) -> tuple[Callable[..., dict[int, Detections]], Sequence[str]]:
    """Returns (detect_records(records, boxes) -> {position in `records`: Detections}, the names of the classes).

    detect_records skips images that cannot be decoded, with a warning; `boxes` are proposals as proposals.load returns
    them. Arguments and errors are those of load_detector.
    """
    description = exports.read_description(folder)
    exports.make_network(folder, description, 'detector')  # raises ExportError for other networks
    config, restored = ConfigDict(description['config']), exports.load_networks(folder, ('trunk', 'head'))
    names = description['head']['names']
    targets = {'means': jnp.zeros((len(names), 4)), 'deviations': jnp.ones((len(names), 4))}
    variables = {'params': {**restored['params'], 'targets': targets}}
    detect = make_detect_fn(config, Devices('jit', jax.local_devices()[:1]))
    shorter_sides, longest = scales.resolve_scales(config)

    def detect_records(records, boxes):
        skipped = SkippedExamples('the input', len(records), live=True)
        options = {'shorter_sides': shorter_sides['test'], 'longest': longest, 'seed': 0, 'skipped': skipped}
        options['max_proposals'] = config.voc_detection.boxes
        return detect(variables, batches.Images(records=records, proposals=boxes, **options))

    return detect_records, names


def _pad_chunk(rois, images, row, start, size):
    """Returns {name: array} of `size` RoIs of an image from index `start` on: boxes, their scales, the image's size."""
    boxes, levels, extent = np.zeros((0, 4), np.float32), np.zeros(0, int), (1, 1)
    if row in rois:
        boxes, levels, _ = rois[row]
        boxes, levels, extent = boxes[start : start + size], levels[start : start + size], images.records[row].size
    missing = size - len(boxes)
    return {
        'boxes': np.pad(boxes, ((0, missing), (0, 0))),
        'level': np.pad(levels, (0, missing), constant_values=-1).astype(np.int32),
        'extent': np.array(extent, np.int32),
    }


def _make_predict_fn(config):
    """Returns predict(variables, batch) -> (positions [B], scores [B, N, K], predicted boxes [B, N, K, 4])."""
    model = architecture.make_detector(config, len(NAMES))

    def predict(variables, batch):
        params, pooled = {'params': variables['params']}, 0.0
        for level in range(sum(name.startswith('image_') for name in batch)):
            images = fast_rcnn.preprocess(batch[f'image_{level}'], batch[f'size_{level}'])
            boxes = batch['boxes'] * batch[f'scale_{level}'][:, None, None]
            pooled += model.apply(params, images, boxes, batch['level'] == level, method='pool')
        scores, deltas = model.apply(params, pooled, method='predict')
        means, deviations = (variables['params']['targets'][name][None, None] for name in ('means', 'deviations'))
        decoded = geometry.decode(batch['boxes'][:, :, None], deltas[:, :, 1:] * deviations + means)
        return batch['index'], jax.nn.softmax(scores)[..., 1:], jax.vmap(geometry.clip)(decoded, batch['extent'])

    return predict


def _check_boxes(boxes, size):
    """Returns the boxes of an image of this (height, width), cleaned as by proposals.load."""
    try:
        boxes = np.asarray(boxes, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f'the boxes are not an array of numbers ({error}): expected [N, 4], x1 y1 x2 y2') from error
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f'boxes of shape {boxes.shape}: expected [N, 4], x1 y1 x2 y2')
    (cleaned,) = proposals.clean_boxes([boxes], ['the image'], [size], 'the boxes')
    return cleaned


_nms = jax.jit(jax.vmap(geometry.nms))
