"""FCN-32s for VOC's classes, and images as it takes them."""

import numpy as np
from jaxtyping import Array, Float32, UInt8
from ml_collections import ConfigDict

from artifacts_jax.models import architecture
from artifacts_jax.models.discriminator import scale_pixels
from artifacts_jax.models.fcn import Segmenter
from artifacts_jax.transfer.voc.annotations import NAMES

CLASSES = ('background', *NAMES)


def make(config: ConfigDict) -> Segmenter:
    """Makes the network that a config describes."""
    return architecture.make_segmenter(config, len(CLASSES))


def prepared(images: UInt8[Array | np.ndarray, 'B H W 3']) -> Float32[Array, 'B H W 3']:
    """Returns images in [-1, 1]; what surrounds them on their canvases does not matter."""
    return scale_pixels(images)
