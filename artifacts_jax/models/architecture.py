"""The networks that a configuration describes, and the shapes of their variables."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from artifacts_jax.config import ConfigError
from artifacts_jax.models import alexnet, fast_rcnn, fcn
from artifacts_jax.models.discriminator import TRAINED, Discriminator, Geometry, Trunk
from artifacts_jax.models.generator import Encoder, Generator
from artifacts_jax.models.heads import Classifier, FineTuneHead, LinearHead


def make_generator(config: ConfigDict, axis_name: str | None = None) -> Generator:
    """Makes the generator that a config describes; `axis_name` names the devices under pmap."""
    model, artifacts = config.model, config.artifacts
    return Generator(
        widths=tuple(model.encoder_widths),
        encoder_kernel=model.encoder_kernel,
        upsampling=model.upsampling,
        filter_size=artifacts.filter_size,
        repair_layers=artifacts.repair_layers,
        feed_mask=artifacts.feed_mask,
        gated=artifacts.gated,
        rounds=artifacts.rounds,
        products=_products(config),
        dtype=jnp.dtype(config.dtype),
        axis_name=axis_name,
    )


def make_encoder(config: ConfigDict) -> Encoder:
    """Makes the encoder alone that a config describes."""
    widths, kernel = tuple(config.model.encoder_widths), config.model.encoder_kernel
    return Encoder(widths, kernel, _products(config), jnp.dtype(config.dtype))


def make_trunk(config: ConfigDict, axis_name: str | None = None, **options) -> Trunk:
    """Makes the discriminator's trunk that a config describes.

    Args:
      config: the run's configuration.
      axis_name: the devices' axis under pmap.
      **options: of Trunk, that no configuration has: geometry, normalise.
    """
    model = config.model
    return Trunk(
        widths=tuple(model.widths),
        kernels=tuple(model.kernels),
        conv1_stride=model.conv1_stride,
        groups=model.groups,
        products=_products(config),
        dtype=jnp.dtype(config.dtype),
        axis_name=axis_name,
        **options,
    )


def check_size(
    name: str, size: int, config: ConfigDict, geometry: Geometry = TRAINED, *, connected: bool = False
) -> None:
    """Raises ConfigError if a trunk cannot take images of a size.

    Args:
      name: the key that has the size.
      size: pixels.
      config: the run's configuration.
      geometry: the trunk's.
      connected: whether pool5 and connected layers follow.
    """
    least = compute_min_size(config, geometry, connected=connected)
    if size < least:
        known = [each for each, other in alexnet.GEOMETRIES.items() if other == geometry != TRAINED]
        where = f' in the geometry {known[0]!r}' if known else ''
        raise ConfigError(f'{name}={size}: the trunk takes {least} pixels or more{where}')


def compute_min_size(config: ConfigDict, geometry: Geometry = TRAINED, *, connected: bool = False) -> int:
    """Returns the least size of images, pixels, that leaves every map an entry; arguments as of `check_size`.

    It is no less than conv1's kernel, nor than what an entry of conv5 stands for.
    """
    kernel, stride = config.model.kernels[0], config.model.conv1_stride
    used = 4 if connected else 3
    sizes = itertools.count(max(kernel, 4 * stride))
    return next(size for size in sizes if min(alexnet.compute_map_sizes(size, kernel, stride, geometry)[:used]) > 0)


def make_discriminator(config: ConfigDict, axis_name: str | None = None) -> Discriminator:
    """Makes the discriminator that a config describes; `axis_name` names the devices under pmap."""
    model = config.model
    return Discriminator(make_trunk(config, axis_name), model.hidden, model.dropout, _products(config))


def make_head(
    protocol: str, classes: int, *, config: ConfigDict, axis_name: str | None = None
) -> LinearHead | FineTuneHead:
    """Makes the head of a protocol, 'linear' or 'finetune'; `axis_name` names the devices under pmap."""
    dtype, options = jnp.dtype(config.dtype), config.stl10
    if protocol == 'linear':
        return LinearHead(classes, dtype)
    return FineTuneHead(classes, options.hidden, options.dropout, dtype, axis_name)


def make_classifier(protocol: str, classes: int, *, config: ConfigDict, axis_name: str | None = None) -> Classifier:
    """Makes the trunk with a protocol's head; arguments as of `make_head`."""
    head = make_head(protocol, classes, config=config, axis_name=axis_name)
    return Classifier(make_trunk(config, axis_name), head)


def make_detector(config: ConfigDict, classes: int) -> fast_rcnn.Detector:
    """Makes the detector of so many classes that a config describes."""
    options = config.voc_detection
    trunk = make_trunk(config, geometry=fast_rcnn.geometry(config.model.kernels[0]), normalise=False)
    return fast_rcnn.Detector(trunk, fast_rcnn.Regions(classes, options.hidden, options.dropout, trunk.dtype))


def make_segmenter(config: ConfigDict, classes: int) -> fcn.Segmenter:
    """Makes the fully convolutional network that a config describes, for so many classes."""
    options = config.voc_segmentation
    trunk = make_trunk(config, geometry=fcn.geometry(config.model.conv1_stride), normalise=False)
    return fcn.Segmenter(trunk, fcn.Convolved(classes, options.hidden, options.dropout, trunk.dtype))


def make_network(config: ConfigDict, head: dict) -> Classifier | fast_rcnn.Detector | fcn.Segmenter:
    """Makes the trunk with the head that an export describes; its variables have the branches 'trunk' and 'head'.

    Args:
      config: the configuration that it was made from.
      head: {'protocol': 'linear' or 'finetune', 'classes': how many}, or {'protocol': 'detection' or 'segmentation',
        'names': of the classes}.
    """
    makers: dict[str, Any] = {'detection': make_detector, 'segmentation': make_segmenter}
    if make := makers.get(head['protocol']):
        return make(config, len(head['names']))
    return make_classifier(**head, config=config)


def network_template(config: ConfigDict, size: int, head: dict | None) -> dict:
    """Returns the shapes of the variables of `make_network`, or without a head those of the trunk, as its branch.

    Args:
      config: as of make_network.
      size: of the images, pixels.
      head: as of make_network, or None.
    """
    key, images = jax.random.key(0), jnp.zeros((1, size, size, 3))
    if head is None:
        trunk = jax.eval_shape(make_trunk(config).init, key, images)
        return {kind: {'trunk': tree} for kind, tree in trunk.items()}
    network = make_network(config, head)
    regions = (jnp.zeros((1, 1, 4)), jnp.ones((1, 1), bool)) if isinstance(network, fast_rcnn.Detector) else ()
    return {'batch_stats': {}, **jax.eval_shape(network.init, key, images, *regions)}


def _products(config):
    if config.convolutions == 'auto':
        return jax.default_backend() == 'cpu'
    return config.convolutions == 'products'


def template(config: ConfigDict) -> dict:
    """Returns the shapes of all variables of a config's networks, with nothing computed.

    {'params': {network: tree}, 'batch_stats': {network: tree}} of 'encoder', 'decoder', 'repair' and 'discriminator'.
    """
    size, grid = config.model.image_size, mask_grid(config)

    def init(key):
        images, mask = jnp.zeros((1, size, size, 3)), jnp.ones((1, *grid, 1))
        phi = jnp.zeros((1, *grid, config.model.encoder_widths[-1]))
        generator = make_generator(config)
        autoencoder = generator.init(key, images, method='reconstruct')
        generated = generator.init(key, phi, mask, method='corrupt')
        judged = make_discriminator(config).init(key, images)
        return {
            kind: {**autoencoder[kind], 'repair': generated[kind].get('repair', {}), 'discriminator': judged[kind]}
            for kind in judged
        }

    return jax.eval_shape(init, jax.random.key(0))


def mask_grid(config: ConfigDict) -> tuple[int, int]:
    """Returns (rows, columns) of the mask: the encoder's grid."""
    side = config.model.image_size // 2 ** (len(config.model.encoder_widths) - 1)
    return side, side
