"""Loads functions from exports, which map images to features or to class logits."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from artifacts_jax.exchange import exports, images
from artifacts_jax.models import architecture
from artifacts_jax.models.discriminator import Trunk
from artifacts_jax.models.generator import Encoder


def load_variables(folder: str | Path) -> tuple[Trunk | Encoder, dict, int]:
    """Returns (network, its variables, image size in pixels) of an export.

    The network is the trunk, or the encoder if the export has no trunk.

    Raises:
      ExportError: the export or the network is missing, damaged or different; the message names it.
    """
    description = exports.read_description(folder)
    name = 'trunk' if 'trunk' in description['networks'] else 'encoder'
    if name == 'trunk':
        network = exports.make_trunk(description)
    else:
        network = architecture.make_encoder(ConfigDict(description['config']))
    return network, exports.load_network(folder, name, description), description['image_size']


def load_features(folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)) -> Callable:
    """Loads a function that computes frozen features of images.

    Args:
      folder: an export, such as WORKDIR/export.
      value_range: (low, high), the range of floating point images, such as (0, 1).

    Returns:
      A jitted function. It maps images [B, H, W, 3], RGB, to {'conv1': ..., 'conv5': ...}, feature maps [B, h, w, C] in
      float32, after ReLU. For an export without a trunk, it returns the maps of the encoder, {'layer1': ..., ...}.
      Integers are values from 0 to 255. H and W may differ from those of the training images. The function raises
      ValueError for images of another shape, type or range.

    Raises:
      ExportError: the export or the network is missing, damaged or different; the message names it.
      ValueError: value_range is not a range.
    """
    value_range = images.check_range(value_range)
    network, variables, _ = load_variables(folder)

    @jax.jit
    def apply(variables, batch):
        features = network.apply(variables, images.scale(batch))[1]
        return {name: x.astype(jnp.float32) for name, x in features.items()}

    def features(batch):
        return apply(variables, images.to_network(batch, value_range))

    return features


def load_classifier(folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)) -> Callable:
    """Loads a classifier that the stage stl10 has trained, or one imported from a TensorFlow 1 checkpoint.

    Args:
      folder: an export with a head, such as WORKDIR/stl10/linear/export.
      value_range: as for `load_features`.

    Returns:
      A jitted function. It maps images, as for `load_features` but of the size of the training images, to class logits
      [B, classes] in float32.

    Raises:
      ExportError: the export or a network is missing, damaged or different, or the export has no classifier.
      ValueError: value_range is not a range.
    """
    value_range = images.check_range(value_range)
    description = exports.read_description(folder)
    classifier = exports.make_network(folder, description, 'classifier')
    variables = exports.load_networks(folder, ('trunk', 'head'))

    @jax.jit
    def apply(variables, batch):
        return classifier.apply(variables, images.scale(batch))

    def logits(batch):
        return apply(variables, images.to_network(batch, value_range, description['image_size']))

    return logits
