"""A detector's scores and boxes for the proposals of images, on one scale or several, on all devices.

Of several scales each proposal is looked at on the one that makes its area nearest to 224 x 224 pixels. Those that
come to the same cells of conv5 are looked at once, as the first of them. An image may have any number of proposals:
so many as `config.voc_detection.boxes` are looked at at a time.

Source: rbgirshick/fast-rcnn, lib/fast_rcnn/test.py.
"""

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float32, Int
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import Devices
from artifacts_jax.models import architecture, fast_rcnn
from artifacts_jax.transfer.voc.annotations import NAMES
from artifacts_jax.transfer.voc.detection import boxes as geometry
from artifacts_jax.transfer.voc.detection import presets, scales, selection
from artifacts_jax.transfer.voc.detection.detections import Detections

Found = dict[int, Detections]


def level_of(boxes: Float32[np.ndarray, 'N 4'], factors: Sequence[float]) -> Int[np.ndarray, ' N']:
    """Returns which of an image's scales each box is looked at on, the first of equal ones.

    Args:
      boxes: in the image's own pixels.
      factors: what they are multiplied by on each scale.
    """
    areas = (boxes[:, 2:] - boxes[:, :2] + 1).prod(axis=1, dtype=np.float64)
    scaled = areas[:, None] * np.square(np.array(factors, np.float64))[None]
    return np.abs(scaled - presets.VIEWED**2).argmin(axis=1)


def distinct(
    boxes: Float32[np.ndarray, 'N 4'], levels: Int[np.ndarray, ' N'], factors: Sequence[float], scale: float
) -> tuple[Int[np.ndarray, ' M'], Int[np.ndarray, ' N']]:
    """Returns (places of the boxes that differ in cells of conv5, the first of each; which of them each box is).

    Args:
      boxes: in the image's own pixels.
      levels: as of level_of.
      factors: see there.
      scale: cells to a pixel.
    """
    cells = np.rint(boxes * np.array(factors)[levels][:, None] * scale)
    rows = np.concatenate([levels[:, None], cells], axis=1)
    _, first, place = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    return first, place.reshape(-1)


def make(config: ConfigDict, devices: Devices) -> Callable[..., Found]:
    """Returns detect(variables, images, limit=0) -> {position in the split: Detections}.

    `images` are batches.Images, of which the first `limit` or all are looked at, but for those that cannot be decoded;
    variables are those of stage.Stage's state.
    """
    mapped, most = devices.per_example(_judge(config)), config.voc_detection.boxes
    together, scale = len(devices.devices), 1 / (4 * config.model.conv1_stride)

    def chosen(images, row):
        size, boxes = images.records[row].size, images.proposals[row]
        factors = [scales.scale_of(size, shorter, images.longest) for shorter in images.shorter]
        levels = level_of(boxes, factors)
        first, place = distinct(boxes, levels, factors, scale)
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
                    found[row] = selection.best(scores, moved)
        return dict(zip(found, selection.select(list(found.values()))))

    return detect


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
