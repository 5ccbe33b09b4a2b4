"""AlexNet for the transfer benchmarks: other paddings of the trunk, folded batch norm, and the layers fc6 to fc8.

A geometry is a set of paddings. It determines where the positions of conv5 are centred. With 'centred', position k of a
row is centred at pixel 16 k, as Fast R-CNN assumes. With 'same', the centre depends on the image size.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Key

from artifacts_jax.models import layers
from artifacts_jax.models.discriminator import TRAINED, Geometry, Trunk

GEOMETRIES = {
    'same': TRAINED,  # as in pretraining
    'caffe': Geometry(0, 0, 0),  # original AlexNet: feature maps of 55, 27 and 13 for 227 pixels
    'torch': Geometry(2, 0, 0),  # PyTorch's AlexNet: the same feature maps for 224 pixels
    'centred': Geometry(5, 1, 1),  # Fast R-CNN's AlexNet
}


def fold_batch_norm(variables: dict) -> dict:
    """Folds the batch norm of conv5 into its kernels and biases.

    Args:
      variables: 'params' and 'batch_stats' of a trunk.

    Returns:
      {'params': tree} of a trunk with normalise=False. It computes the same features as the original trunk with its
      running averages.
    """
    params, averages = dict(variables['params']), variables['batch_stats']['norm5']
    norm = params.pop('norm5')
    factor = layers.norm_factor(averages['var'])
    shift, folded, start = norm['bias'] - averages['mean'] * factor, {}, 0
    for name, convolution in sorted(params['conv5'].items()):
        end = start + convolution['kernel'].shape[-1]
        folded[name] = {
            'kernel': convolution['kernel'] * factor[start:end][None, None, None],
            'bias': shift[start:end],
        }
        start = end
    return {'params': {**params, 'conv5': folded}}


class Connected(nn.Module):
    """The fully connected layers fc6, fc7 and fc8, with dropout after fc6 and fc7."""

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
          x: pooled conv5 activations; 6x6x256 in AlexNet.
          dropout_keys: two keys for each example; None switches dropout off.
        """
        x = x.reshape(len(x), -1)
        for n, name in enumerate(('fc6', 'fc7')):
            x = nn.relu(nn.Dense(self.hidden, kernel_init=GAUSSIAN, bias_init=BIAS, dtype=self.dtype, name=name)(x))
            if dropout_keys is not None:
                x = layers.dropout(dropout_keys[:, n], x, self.rate)
        x = nn.Dense(self.outputs, kernel_init=LAST, bias_init=BIAS, dtype=self.dtype, name='fc8')(x)
        return x.astype(jnp.float32)


GAUSSIAN = nn.initializers.normal(0.005)  # kernels of fc6 and fc7; source: BVLC's AlexNet
LAST = nn.initializers.normal(0.01)  # kernel of fc8; source: philkr/voc-classification
BIAS = nn.initializers.constant(0.1)


class AlexNet(nn.Module):
    """The trunk, pool5 (3x3/2) and the fully connected layers; its variables have the branches 'trunk' and 'head'."""

    trunk: Trunk
    head: Connected

    def __call__(
        self, images: Float[Array, 'B H W 3'], dropout_keys: Key[Array, 'B 2'] | None = None
    ) -> Float32[Array, 'B _']:
        """Returns the head's outputs for images in [-1, 1]."""
        conv5, _ = self.trunk(images)
        return self.head(layers.max_pool(conv5, pool5(self.trunk.geometry)), dropout_keys)


def pool5(geometry: Geometry) -> int | str:
    """Returns the padding of pool5, the pooling after conv5."""
    return 'SAME' if geometry == TRAINED else 0


def compute_map_sizes(size: int, kernel: int, stride: int, geometry: Geometry) -> tuple[int, int, int, int]:
    """Returns the sizes of the feature maps of conv1, pool1, pool2 and pool5 along an axis.

    A size below 1 means that the image is too small. The map of conv2 has the size of pool1; the maps of conv3 to conv5
    have the size of pool2.

    Args:
      size: the image size in pixels.
      kernel: the kernel size of conv1.
      stride: the stride of conv1.
      geometry: the padding of the trunk.
    """
    conv1 = geometry.conv1
    sizes = [-(-size // stride) if isinstance(conv1, str) else layers.conv_output_size(size, kernel, stride, conv1)]
    for padding in (geometry.pool1, geometry.pool2, pool5(geometry)):
        sizes.append((sizes[-1] + 1) // 2 if isinstance(padding, str) else layers.pool_output_size(sizes[-1], padding))
    return sizes[0], sizes[1], sizes[2], sizes[3]
