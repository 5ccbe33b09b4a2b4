"""What a detector is exported as, and what users load of it: a function from an image to what is in it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32
from ml_collections import ConfigDict

from artifacts_jax.data.left_out import LeftOut
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.data.voc.records import Record
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports, images
from artifacts_jax.transfer.voc.detection import batches, detector, proposals, scales, selective_search
from artifacts_jax.transfer.voc.detection.detections import Detections


class Found(NamedTuple):
    """What is found in an image, the likeliest first."""

    labels: tuple[str, ...]
    scores: Float32[np.ndarray, ' N']  # in [0, 1]
    boxes: Float32[np.ndarray, 'N 4']  # x1 y1 x2 y2; pixels are counted from 0, and those named belong to the box


def save(folder: Path, variables: dict, config: ConfigDict, source: dict) -> None:
    """Exports a detector.

    Args:
      folder: gets the export.
      variables: of stage.Stage's state.
      config: the run's configuration.
      source: as of exports.save.
    """
    params = dict(variables['params'])
    params['head'] = absorb(params['head'], params.pop('targets'))
    head = {'protocol': 'detection', 'names': list(NAMES)}
    exports.save(folder, {'params': params, 'batch_stats': {}}, config, head=head, source=source)


def absorb(head: dict, targets: dict) -> dict:
    """Returns the parameters of a head whose moves are not normalised, and otherwise the same.

    Args:
      head: those of fast_rcnn.Regions.
      targets: {'means', 'deviations'}: by which its moves are, [K, 4] each.
    """
    mean = jnp.pad(targets['means'], ((1, 0), (0, 0))).reshape(-1)
    deviation = jnp.pad(targets['deviations'], ((1, 0), (0, 0)), constant_values=1).reshape(-1)
    kernel, bias = head['bbox_pred']['kernel'], head['bbox_pred']['bias']
    return {**head, 'bbox_pred': {'kernel': kernel * deviation[None], 'bias': bias * deviation + mean}}


def load_detector(folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)) -> Callable[..., Found]:
    """Loads a detector, which the stage voc_detection has exported.

    Args:
      folder: the export, such as WORKDIR/voc_detection/single_scale_frozen1/export.
      value_range: (low, high) that floating point images will lie in, such as (0, 1).

    Returns:
      detect(image, boxes=None) -> Found. The image is [H, W, 3], RGB, of any size; integers are values from 0 to 255.
      Boxes are proposals [N, 4], as those of Found; without them selective search finds some, which takes seconds, and
      needs `pip install -e '.[voc]'`. Boxes are cut and left out as docs/tables.md has it. Returned are at
      most 40 boxes of a class, of any score. An image of another shape, type or range is a ValueError.

    Raises:
      ExportError: what is missing or differs, by name; or there is no detector.
      ValueError: value_range is no range.
    """
    value_range = images.check_range(value_range)
    find, names = load(folder)

    def detect(image: Any, boxes: Any = None) -> Found:
        pixels = images.to_pixels(image, value_range)
        boxes = selective_search.search(pixels) if boxes is None else _boxes(boxes, pixels.shape[:2])
        (found,) = find([Record('the image', pixels, pixels.shape[:2])], [boxes]).values()
        order = np.argsort(-found.scores, kind='stable')
        return Found(tuple(names[n] for n in found.labels[order]), found.scores[order], found.boxes[order])

    return detect


def load(folder: str | Path) -> tuple[Callable[..., dict[int, Detections]], Sequence[str]]:
    """Returns (find(records, boxes) -> {position: what is found in an image}, the names of the classes).

    Images that cannot be decoded are left out, and said. Arguments and errors are as of load_detector, boxes as of
    proposals.load.
    """
    description = exports.describe(folder)
    exports.make_network(folder, description, 'detector')  # refuses others
    config, restored = ConfigDict(description['config']), exports.load(folder, ('trunk', 'head'))
    names = description['head']['names']
    targets = {'means': jnp.zeros((len(names), 4)), 'deviations': jnp.ones((len(names), 4))}
    variables = {'params': {**restored['params'], 'targets': targets}}
    detect = detector.make(config, Devices('jit', jax.local_devices()[:1]))
    shorter, longest = scales.seen_at(config)

    def find(given, boxes):
        left_out = LeftOut('those given', len(given), live=True)
        options = {'shorter': shorter['test'], 'longest': longest, 'most': config.voc_detection.boxes}
        images = batches.Images(records=given, proposals=boxes, seed=0, left_out=left_out, **options)
        return detect(variables, images)

    return find, names


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
    (cleaned,) = proposals.cleaned([boxes], ['the image'], [size], 'the boxes')
    return cleaned
