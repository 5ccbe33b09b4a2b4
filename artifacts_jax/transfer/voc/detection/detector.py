"""A detector: what it detects among the proposals of images, on one scale or several, its export and how to load it.

Of several scales each proposal is looked at on the one that makes its area nearest to 224 x 224 pixels. Those that
come to the same cells of conv5 are looked at once, as the first of them. An image may have any number of proposals:
so many as `config.voc_detection.boxes` are looked at at a time.

Of each class an image keeps its best 100 boxes. All images together keep 40 times as many as there are images, of each
class: those above the score that would be the last. Then boxes that overlap a better one are dropped.

Source: rbgirshick/fast-rcnn, lib/fast_rcnn/test.py, which raises the least score image by image, to the same effect.
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

MAX_BOXES = 100  # boxes of a class in an image
MEAN_BOXES = 40  # and over all images
REFERENCE_SIDE = 224  # pixels: each box is tested at the scale at which its area is nearest to that of this square


class Candidates(NamedTuple):
    """The best boxes of each class in an image, the best first."""

    scores: Float32[np.ndarray, 'K M']
    boxes: Float32[np.ndarray, 'K M 4']
    mask: Bool[np.ndarray, 'K M']  # False for what pads them


class NamedDetections(NamedTuple):
    """What is found in an image, the likeliest first."""

    labels: tuple[str, ...]
    scores: Float32[np.ndarray, ' N']  # in [0, 1]
    boxes: Float32[np.ndarray, 'N 4']  # x1 y1 x2 y2; pixels are counted from 0, and those named belong to the box


def choose_scales(boxes: Float32[np.ndarray, 'N 4'], factors: Sequence[float]) -> Int[np.ndarray, ' N']:
    """Returns which of an image's scales each box is looked at on, the first of equal ones.

    Args:
      boxes: in the image's own pixels.
      factors: what they are multiplied by on each scale.
    """
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1, dtype=np.float64)
    scaled = areas[:, None] * np.square(np.array(factors, np.float64))[None]
    return np.abs(scaled - REFERENCE_SIDE**2).argmin(axis=1)


def deduplicate_rois(
    boxes: Float32[np.ndarray, 'N 4'], levels: Int[np.ndarray, ' N'], factors: Sequence[float], scale: float
) -> tuple[Int[np.ndarray, ' M'], Int[np.ndarray, ' N']]:
    """Returns (places of the boxes that differ in cells of conv5, the first of each; which of them each box is).

    Args:
      boxes: in the image's own pixels.
      levels: as of choose_scales.
      factors: see there.
      scale: cells to a pixel.
    """
    cells = np.rint(boxes * np.array(factors)[levels][:, None] * scale)
    rows = np.concatenate([levels[:, None], cells], axis=1)
    _, first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, place.reshape(-1)


def make_detect_fn(config: ConfigDict, devices: Devices) -> Callable[..., dict[int, Detections]]:
    """Returns detect(variables, images, limit=0) -> {position in the split: Detections}.

    `images` are batches.Images, of which the first `limit` or all are looked at, but for those that cannot be decoded;
    variables are those of stage.Stage's state.
    """
    mapped, most = devices.per_example(_judge(config)), config.voc_detection.boxes
    together, scale = len(devices.devices), 1 / (4 * config.model.conv1_stride)

    def chosen(images, row):
        size, boxes = images.records[row].size, images.proposals[row]
        factors = [scales.compute_scale(size, shorter, images.longest) for shorter in images.shorter]
        levels = choose_scales(boxes, factors)
        first, place = deduplicate_rois(boxes, levels, factors, scale)
        return boxes[first], levels[first], place

    def detect(variables, images, limit=0):
        found, count = {}, min(limit or len(images.records), len(images.records))
        for number, batch in enumerate(images.eval_batches(together, limit=limit)):
            rows = range(number * together, min((number + 1) * together, count))
            looked_at = {row: chosen(images, row) for row in rows}
            parts = {row: [] for row in rows}
            for start in range(0, max(1, *(len(boxes) for boxes, _, _ in looked_at.values())), most):
                given = [_part(looked_at, images, int(row), start, most) for row in batch['index']]
                regions = {name: np.stack([each[name] for each in given]) for name in given[0]}
                for row, *values in zip(*mapped(variables, {**batch, **regions})):
                    parts[int(row)].append(values)
            for row in rows:
                if parts[row]:
                    boxes, _, place = looked_at[row]
                    scores, moved = (np.concatenate(x)[: len(boxes)][place] for x in zip(*parts[row]))
                    found[row] = select_candidates(scores, moved)
        return dict(zip(found, select_detections(list(found.values()))))

    return detect


def select_candidates(scores: Float32[np.ndarray, 'N K'], boxes: Float32[np.ndarray, 'N K 4']) -> Candidates:
    """Returns the candidates of an image; of equal scores the first box comes first.

    Args:
      scores: of each box to be of each class.
      boxes: each as it is moved for each class.
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


def select_detections(found: Sequence[Candidates]) -> list[Detections]:
    """Returns the detections of images, by class, the best first.

    Args:
      found: the candidates of each image; how many images there are decides which scores are too low.
    """
    if not found:
        return []
    least = [_least(np.concatenate([each.scores[k][each.mask[k]] for each in found]), MEAN_BOXES * len(found))
             for k in range(len(found[0].scores))]  # fmt: skip
    return [_suppressed(each, each.mask & (each.scores > np.array(least, np.float32)[:, None])) for each in found]


def _least(scores, most):
    """Returns the score that a detection has to be above, such that fewer than so many are; any, if there are fewer."""
    return np.partition(scores, -most)[-most] if len(scores) > most else -np.inf


def _suppressed(each, mask):
    kept = np.asarray(_keep(each.boxes, each.scores, mask))
    labels, places = np.nonzero(kept)
    return Detections(labels.astype(np.int32), each.scores[labels, places], each.boxes[labels, places])


def save(folder: Path, variables: dict, config: ConfigDict, source: dict) -> None:
    """Exports a detector.

    Args:
      folder: gets the export.
      variables: of stage.Stage's state.
      config: the run's configuration.
      source: as of exports.save.
    """
    params = dict(variables['params'])
    params['head'] = fold_target_statistics(params['head'], params.pop('targets'))
    head = {'protocol': 'detection', 'names': list(NAMES)}
    exports.save(folder, {'params': params, 'batch_stats': {}}, config, head=head, source=source)


def fold_target_statistics(head: dict, targets: dict) -> dict:
    """Returns the parameters of a head whose moves are not normalised, and otherwise the same.

    Args:
      head: those of fast_rcnn.Regions.
      targets: {'means', 'deviations'}: by which its moves are, [K, 4] each.
    """
    mean = jnp.pad(targets['means'], ((1, 0), (0, 0))).reshape(-1)
    deviation = jnp.pad(targets['deviations'], ((1, 0), (0, 0)), constant_values=1).reshape(-1)
    kernel, bias = head['bbox_pred']['kernel'], head['bbox_pred']['bias']
    return {**head, 'bbox_pred': {'kernel': kernel * deviation[None], 'bias': bias * deviation + mean}}


def load_detector(
    folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)
) -> Callable[..., NamedDetections]:
    """Loads a detector, which the stage voc_detection has exported.

    Args:
      folder: the export, such as WORKDIR/voc_detection/single_scale_frozen1/export.
      value_range: (low, high) that floating point images will lie in, such as (0, 1).

    Returns:
      detect(image, boxes=None) -> NamedDetections. The image is [H, W, 3], RGB, of any size; integers are values from 0
      to 255. Boxes are proposals [N, 4], as those of NamedDetections; without them selective search finds some, which
      takes seconds, and needs `pip install -e '.[voc]'`. Boxes are cut and left out as docs/tables.md has it.
      Returned are at
      most 40 boxes of a class, of any score. An image of another shape, type or range is a ValueError.

    Raises:
      ExportError: what is missing or differs, by name; or there is no detector.
      ValueError: value_range is no range.
    """
    value_range = images.check_range(value_range)
    find, names = load_detect_fn(folder)

    def detect(image: Any, boxes: Any = None) -> NamedDetections:
        pixels = images.to_pixels(image, value_range)
        boxes = selective_search.search(pixels) if boxes is None else _boxes(boxes, pixels.shape[:2])
        (found,) = find([Record('the image', pixels, pixels.shape[:2])], [boxes]).values()
        order = np.argsort(-found.scores, kind='stable')
        return NamedDetections(tuple(names[n] for n in found.labels[order]), found.scores[order], found.boxes[order])

    return detect


def load_detect_fn(folder: str | Path) -> tuple[Callable[..., dict[int, Detections]], Sequence[str]]:
    """Returns (find(records, boxes) -> {position: what is found in an image}, the names of the classes).

    Images that cannot be decoded are left out, and said. Arguments and errors are as of load_detector, boxes as of
    proposals.load.
    """
    description = exports.read_description(folder)
    exports.make_network(folder, description, 'detector')  # refuses others
    config, restored = ConfigDict(description['config']), exports.load_networks(folder, ('trunk', 'head'))
    names = description['head']['names']
    targets = {'means': jnp.zeros((len(names), 4)), 'deviations': jnp.ones((len(names), 4))}
    variables = {'params': {**restored['params'], 'targets': targets}}
    detect = make_detect_fn(config, Devices('jit', jax.local_devices()[:1]))
    shorter, longest = scales.resolve_scales(config)

    def find(given, boxes):
        skipped = SkippedExamples('those given', len(given), live=True)
        options = {'shorter': shorter['test'], 'longest': longest, 'most': config.voc_detection.boxes}
        images = batches.Images(records=given, proposals=boxes, seed=0, skipped=skipped, **options)
        return detect(variables, images)

    return find, names


def _part(looked_at, images, row, start, most):
    """Returns so many of an image's boxes, from one on, and where they are looked at."""
    boxes, levels, extent = np.zeros((0, 4), np.float32), np.zeros(0, int), (1, 1)
    if row in looked_at:
        boxes, levels, _ = looked_at[row]
        boxes, levels, extent = boxes[start : start + most], levels[start : start + most], images.records[row].size
    missing = most - len(boxes)
    return {
        'boxes': np.pad(boxes, ((0, missing), (0, 0))),
        'level': np.pad(levels, (0, missing), constant_values=-1).astype(np.int32),
        'extent': np.array(extent, np.int32),
    }


def _judge(config):
    model = architecture.make_detector(config, len(NAMES))

    def judge(variables, batch):
        params, pooled = {'params': variables['params']}, 0.0
        for level in range(sum(name.startswith('image_') for name in batch)):
            images = fast_rcnn.prepared(batch[f'image_{level}'], batch[f'size_{level}'])
            boxes = batch['boxes'] * batch[f'scale_{level}'][:, None, None]
            pooled += model.apply(params, images, boxes, batch['level'] == level, method='pooled')
        scores, moves = model.apply(params, pooled, method='judged')
        means, deviations = (variables['params']['targets'][name][None, None] for name in ('means', 'deviations'))
        moved = geometry.decode(batch['boxes'][:, :, None], moves[:, :, 1:] * deviations + means)
        return batch['index'], jax.nn.softmax(scores)[..., 1:], jax.vmap(geometry.clip)(moved, batch['extent'])

    return judge


def _boxes(boxes, size):
    """Returns boxes as of proposals.load."""
    try:
        boxes = np.asarray(boxes, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f'the boxes are no array of numbers ({error}): expected [N, 4], x1 y1 x2 y2') from error
    if boxes.size == 0:
        return np.zeros((0, 4), np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f'boxes of shape {boxes.shape}: expected [N, 4], x1 y1 x2 y2')
    (cleaned,) = proposals.clean_boxes([boxes], ['the image'], [size], 'the boxes')
    return cleaned


_keep = jax.jit(jax.vmap(geometry.keep))
