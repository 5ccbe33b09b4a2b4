"""What users load of an export: functions from images to features or to class logits."""

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
    """Returns (network, its variables, image size) of an export: the trunk, or of an autoencoder alone its encoder.

    Raises:
      ExportError: what is missing or differs, by name.
    """
    description = exports.read_description(folder)
    part = 'trunk' if 'trunk' in description['networks'] else 'encoder'
    if part == 'trunk':
        network = exports.make_trunk(description)
    else:
        network = architecture.make_encoder(ConfigDict(description['config']))
    return network, exports.load_network(folder, part, description), description['image_size']


def load_features(folder: str | Path, *, value_range: tuple[float, float] = (-1.0, 1.0)) -> Callable:
    """Loads frozen features for downstream use.

    Args:
      folder: an export, such as WORKDIR/export.
      value_range: (low, high) that floating point images will lie in, such as (0, 1).

    Returns:
      A jitted function from images [B, H, W, 3], RGB, to {'conv1': ..., 'conv5': ...}, each [B, h, w, C] float32, after
      ReLU; of an export without a trunk, to the encoder's {'layer1': ..., ...}. Integers are values from 0 to 255. H
      and W may differ from the training images'. Images of another shape, type or range are a ValueError.

    Raises:
      ExportError: what is missing or differs, by name.
      ValueError: value_range is no range.
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
    """Loads a classifier, of the stage stl10 or imported.

    Args:
      folder: an export with a head, such as WORKDIR/stl10/linear/export.
      value_range: as of `load_features`.

    Returns:
      A jitted function from images as `load_features` has them, but of the size that the classifier was trained on, to
      its class logits [B, classes], float32.

    Raises:
      ExportError: what is missing or differs, by name; or there is no head.
      ValueError: value_range is no range.
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
