"""What a segmenter is exported as, and what users load of it: a function from an image to the classes of its pixels."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from ml_collections import ConfigDict

from artifacts_jax.data.left_out import LeftOut
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports, images
from artifacts_jax.transfer.voc import records
from artifacts_jax.transfer.voc.segmentation import batches, network, segmenter


def save(folder: Path, variables: dict, config: ConfigDict, source: dict) -> None:
    """Exports a segmenter.

    Args:
      folder: gets the export.
      variables: of stage.Stage's state.
      config: the run's configuration.
      source: as of exports.save.
    """
    head = {'protocol': 'segmentation', 'names': list(network.CLASSES)}
    exports.save(folder, variables, config, head=head, source=source)


def load_segmenter(folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)) -> Callable:
    """Loads a segmenter, which the stage voc_segmentation has exported.

    Args:
      folder: the export, such as WORKDIR/voc_segmentation/fcn/export.
      value_range: (low, high) that floating point images will lie in, such as (0, 1).

    Returns:
      segment(image) -> uint8 [H, W], the class of each pixel: 0 background, and then VOC's classes in the order of the
      alphabet, 1 aeroplane to 20 tvmonitor. The image is [H, W, 3], RGB, of any size; integers are values from 0 to
      255. One of another shape, type or range is a ValueError.

    Raises:
      ExportError: what is missing or differs, by name; or there is no segmenter.
      ValueError: value_range is no range.
    """
    value_range = images.check_range(value_range)
    find, _ = load(folder)

    def segment(image: Any) -> UInt8[np.ndarray, 'H W']:
        ((_, labels),) = find([records.Given(images.to_pixels(image, value_range))])
        return labels

    return segment


def load(folder: str | Path) -> tuple[Callable[..., segmenter.Segmented], Sequence[str]]:
    """Returns (find(records), which yields (position, the class of each pixel), the names of the classes).

    Images that cannot be decoded are left out, and said. Arguments and errors as of load_segmenter.
    """
    description = exports.describe(folder)
    exports.make_network(folder, description, 'segmenter')  # refuses others
    variables = exports.load(folder, ('trunk', 'head'))
    segment = segmenter.make(ConfigDict(description['config']), Devices('jit', jax.local_devices()[:1]))

    def find(given):
        left_out = LeftOut('those given', len(given), live=True)
        return segment(variables, batches.Images(given, seed=0, left_out=left_out))

    return find, description['head']['names']
