"""AlexNet as the literature transfers to it: other geometries of the trunk, batch norm absorbed, and fc6 to fc8 on it.

Geometries differ in where conv5's entries lie. Under 'centred' entry k of a row is centred at pixel 16 k, as Fast R-CNN
takes it; under 'same' that depends on the image's size.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Key

from artifacts_jax.models import layers
from artifacts_jax.models.discriminator import TRAINED, Geometry, Trunk

GEOMETRIES = {
    'same': TRAINED,  # as in pretraining
    'caffe': Geometry(0, 0, 0),  # AlexNet's own: 227 pixels give maps of 55, 27 and 13
    'torch': Geometry(2, 0, 0),  # PyTorch's: 224 pixels do
    'centred': Geometry(5, 1, 1),  # Fast R-CNN's
}


def fold_batch_norm(variables: dict) -> dict:
    """Returns the variables of a trunk with normalise=False that computes the same, {'params': tree}.

    Its conv5 has the scale and the offset of batch norm, by the running averages, in its kernels and biases.

    Args:
      variables: a trunk's 'params' and 'batch_stats'.
    """
    params, averages = dict(variables['params']), variables['batch_stats']['norm5']
    norm = params.pop('norm5')
    factor = layers.norm_factor(averages['var'])
    shift, absorbed, start = norm['bias'] - averages['mean'] * factor, {}, 0
    for name, convolution in sorted(params['conv5'].items()):
        end = start + convolution['kernel'].shape[-1]
        absorbed[name] = {
            'kernel': convolution['kernel'] * factor[start:end][None, None, None],
            'bias': shift[start:end],
        }
        start = end
    return {'params': {**params, 'conv5': absorbed}}


class Connected(nn.Module):
    """fc6, fc7 and fc8 on pooled conv5, with dropout after the first two."""

    outputs: int
    hidden: int = 4096
    rate: float = 0.5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, 'B M N C'], dropout_keys: Key[Array, 'B 2'] | None = None
    ) -> Float32[Array, 'B {self.outputs}']:
        """Returns the outputs, before any activation.

        Args:
          x: conv5, pooled: 6x6x256 of AlexNet.
          dropout_keys: two for each example; None switches dropout off.
        """
        x = x.reshape(len(x), -1)
        for n, name in enumerate(('fc6', 'fc7')):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=GAUSSIAN, bias_init=BIAS, dtype=self.dtype, name=name)(x))
            if dropout_keys is not None:
                x = layers.dropout(dropout_keys[:, n], x, self.rate)
        x = nn.Dense(self.outputs, kernel_init=LAST, bias_init=BIAS, dtype=self.dtype, name='fc8')(x)
        return x.astype(jnp.float32)


GAUSSIAN = nn.initializers.normal(0.005)  # of fc6 and fc7: BVLC's AlexNet
LAST = nn.initializers.normal(0.01)  # of fc8: philkr/voc-classification
BIAS = nn.initializers.constant(0.1)


class AlexNet(nn.Module):
    """The trunk, pool5 (3x3/2) and the connected layers; its networks are 'trunk' and 'head'."""

    trunk: Trunk
    head: Connected

    def __call__(
        self, images: Float[Array, 'B H W 3'], dropout_keys: Key[Array, 'B 2'] | None = None
    ) -> Float32[Array, 'B _']:
        """Returns the head's outputs for images in [-1, 1]."""
        conv5, _ = self.trunk(images)
        return self.head(layers.max_pool(conv5, pool5(self.trunk.geometry)), dropout_keys)


def pool5(geometry: Geometry) -> int | str:
    """Returns the padding of the pooling that follows conv5."""
    return 'SAME' if geometry == TRAINED else 0


def compute_map_sizes(size: int, kernel: int, stride: int, geometry: Geometry) -> tuple[int, int, int, int]:
    """Returns how many entries conv1, pool1, pool2 and pool5 have along an axis; below 1 where there are none.

    Those of conv2 to conv5 are pool1's and pool2's.

    Args:
      size: of the image, pixels.
      kernel: conv1's.
      stride: conv1's.
      geometry: what stands around the maps.
    """
    conv1 = geometry.conv1
    found = [-(-size // stride) if isinstance(conv1, str) else layers.conv_output_size(size, kernel, stride, conv1)]
    for padding in (geometry.pool1, geometry.pool2, pool5(geometry)):
        found.append((found[-1] + 1) // 2 if isinstance(padding, str) else layers.pool_output_size(found[-1], padding))
    return found[0], found[1], found[2], found[3]
