"""Functions that create the networks of a configuration, and the shapes of their variables."""

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
    """Creates the generator of a configuration; `axis_name` is the axis of the devices under pmap."""
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
    """Creates only the encoder of a configuration."""
    widths, kernel = tuple(config.model.encoder_widths), config.model.encoder_kernel
    return Encoder(widths, kernel, _products(config), jnp.dtype(config.dtype))


def make_trunk(config: ConfigDict, axis_name: str | None = None, **options) -> Trunk:
    """Creates the discriminator's trunk of a configuration.

    Args:
      config: the run's configuration.
      axis_name: the axis of the devices under pmap.
      **options: arguments of Trunk that are not in the configuration: geometry, normalise.
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
    """Raises ConfigError if images are too small for the trunk.

    Args:
      name: the configuration key of the image size.
      size: the image size in pixels.
      config: the run's configuration.
      geometry: the padding of the trunk.
      connected: whether pool5 and fully connected layers follow.
    """
    min_size = compute_min_size(config, geometry, connected=connected)
    if size < min_size:
        names = [key for key, value in alexnet.GEOMETRIES.items() if value == geometry != TRAINED]
        suffix = f' with the geometry {names[0]!r}' if names else ''
        raise ConfigError(f'{name}={size}: too small for the trunk; expected {min_size} pixels or more{suffix}')


def compute_min_size(config: ConfigDict, geometry: Geometry = TRAINED, *, connected: bool = False) -> int:
    """Returns the smallest image size, in pixels, for which no feature map is empty; arguments as in `check_size`.

    It is at least the kernel size of conv1, and at least the stride of conv5 in pixels.
    """
    kernel, stride = config.model.kernels[0], config.model.conv1_stride
    num_maps = 4 if connected else 3
    sizes = itertools.count(max(kernel, 4 * stride))
    return next(size for size in sizes if min(alexnet.compute_map_sizes(size, kernel, stride, geometry)[:num_maps]) > 0)


def make_discriminator(config: ConfigDict, axis_name: str | None = None) -> Discriminator:
    """Creates the discriminator of a configuration; `axis_name` is the axis of the devices under pmap."""
    model = config.model
    return Discriminator(make_trunk(config, axis_name), model.hidden, model.dropout, _products(config))


def make_head(
    protocol: str, classes: int, *, config: ConfigDict, axis_name: str | None = None
) -> LinearHead | FineTuneHead:
    """Creates the head of a protocol, 'linear' or 'finetune'; `axis_name` is the axis of the devices under pmap."""
    dtype, options = jnp.dtype(config.dtype), config.stl10
    if protocol == 'linear':
        return LinearHead(classes, dtype)
    return FineTuneHead(classes, options.hidden, options.dropout, dtype, axis_name)


def make_classifier(protocol: str, classes: int, *, config: ConfigDict, axis_name: str | None = None) -> Classifier:
    """Creates the trunk with the head of a protocol; arguments as in `make_head`."""
    head = make_head(protocol, classes, config=config, axis_name=axis_name)
    return Classifier(make_trunk(config, axis_name), head)


def make_detector(config: ConfigDict, classes: int) -> fast_rcnn.Detector:
    """Creates the Fast R-CNN detector of a configuration, for a number of classes."""
    options = config.voc_detection
    trunk = make_trunk(config, geometry=fast_rcnn.geometry(config.model.kernels[0]), normalise=False)
    return fast_rcnn.Detector(trunk, fast_rcnn.Regions(classes, options.hidden, options.dropout, trunk.dtype))


def make_segmenter(config: ConfigDict, classes: int) -> fcn.Segmenter:
    """Creates the fully convolutional segmentation network of a configuration, for a number of classes."""
    options = config.voc_segmentation
    trunk = make_trunk(config, geometry=fcn.geometry(config.model.conv1_stride), normalise=False)
    return fcn.Segmenter(trunk, fcn.Convolved(classes, options.hidden, options.dropout, trunk.dtype))


def make_network(config: ConfigDict, head: dict) -> Classifier | fast_rcnn.Detector | fcn.Segmenter:
    """Creates the trunk with the head that an export describes. Its variables have the branches 'trunk' and 'head'.

    Args:
      config: the configuration of the export.
      head: {'protocol': 'linear' or 'finetune', 'classes': number of classes} or {'protocol': 'detection' or
        'segmentation', 'names': class names}.
    """
    makers: dict[str, Any] = {'detection': make_detector, 'segmentation': make_segmenter}
    if make := makers.get(head['protocol']):
        return make(config, len(head['names']))
    return make_classifier(**head, config=config)


def network_template(config: ConfigDict, size: int, head: dict | None) -> dict:
    """Returns the shapes of the variables of `make_network`; without a head, only those of the branch 'trunk'.

    Args:
      config: as in make_network.
      size: the image size in pixels.
      head: as in make_network, or None.
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
    """Returns the shapes of all variables of the networks of a configuration, without computing anything.

    The result is {'params': {network: tree}, 'batch_stats': {network: tree}} with the networks 'encoder', 'decoder',
    'repair' and 'discriminator'.
    """
    size, grid = config.model.image_size, mask_grid(config)

    def init(key):
        images, mask = jnp.zeros((1, size, size, 3)), jnp.ones((1, *grid, 1))
        phi = jnp.zeros((1, *grid, config.model.encoder_widths[-1]))
        generator = make_generator(config)
        autoencoder = generator.init(key, images, method='reconstruct')
        corrupted = generator.init(key, phi, mask, method='corrupt')
        discriminator = make_discriminator(config).init(key, images)
        return {
            kind: {
                **autoencoder[kind],
                'repair': corrupted[kind].get('repair', {}),
                'discriminator': discriminator[kind],
            }
            for kind in discriminator
        }

    return jax.eval_shape(init, jax.random.key(0))


def mask_grid(config: ConfigDict) -> tuple[int, int]:
    """Returns (rows, columns) of the mask, the size of the encoder's feature grid."""
    side = config.model.image_size // 2 ** (len(config.model.encoder_widths) - 1)
    return side, side
