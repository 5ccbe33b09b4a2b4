"""FCN-32s on AlexNet: fc6 and fc7 are convolutions over pool5, and their class scores are upsampled to all pixels.

The input of conv1 has 100 pixels of padding. Without it, fc6 (a 6x6 kernel on pool5) would have no output near the
corners of the image. Position k of a row of scores is centred at pixel 32 k + 13. The fixed deconvolution has the
maximum of its kernel at 32 k + 31, so its output is cropped by 18 pixels at the start. Pooling rounds up: if it rounded
down, the scores would not reach the last pixels of many image sizes. For a trunk with another stride or kernel than
AlexNet's, these numbers change in proportion.

Source: shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet/net.py, and Caffe's bilinear filler.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, Key

from artifacts_jax.models import alexnet, layers
from artifacts_jax.models.discriminator import Geometry, Trunk

WINDOW = 6  # kernel size of fc6, in positions of pool5
PADDING = 25  # of conv1, in multiples of its stride


class Convolved(nn.Module):
    """fc6 and fc7 as convolutions with dropout, and the layer of class scores, which is initialised with zeros."""

    classes: int
    hidden: int = 4096
    rate: float = 0.5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, pooled: Float[Array, 'B M N C'], dropout_keys: Key[Array, 'B 2'] | None = None
    ) -> Float32[Array, 'B _ _ {self.classes}']:
        """Returns the scores before softmax, [B, M - 5, N - 5, classes].

        Args:
          pooled: the activations of pool5.
          dropout_keys: two keys for each example; None switches dropout off.
        """
        x = pooled
        for n, (name, side) in enumerate((('fc6', WINDOW), ('fc7', 1))):
            convolve = nn.Conv(
                self.hidden,
                (side, side),
                padding='VALID',
                kernel_init=alexnet.GAUSSIAN,
                bias_init=alexnet.BIAS,
                dtype=self.dtype,
                name=name,
            )
            x = nn.relu(convolve(x))
            if dropout_keys is not None:
                x = layers.dropout(dropout_keys[:, n], x.reshape(len(x), -1), self.rate).reshape(x.shape)
        x = nn.Conv(self.classes, (1, 1), kernel_init=nn.initializers.zeros, dtype=self.dtype, name='score')(x)
        return x.astype(jnp.float32)


class Segmenter(nn.Module):
    """The trunk, the head and the upsampling; its variables have the branches 'trunk' and 'head'."""

    trunk: Trunk  # with the padding that `geometry` returns
    head: Convolved

    def __call__(
        self,
        images: Float[Array, 'B H W 3'],
        sizes: Int[Array | np.ndarray, 'B 2'] | None = None,
        dropout_keys: Key[Array, 'B 2'] | None = None,
    ) -> Float32[Array, 'B H W {self.head.classes}']:
        """Returns the scores of each pixel before softmax. Padding does not change the scores of an image.

        Args:
          images: images in [-1, 1] with padding below and to the right.
          sizes: heights and widths without padding; None: the images have no padding.
          dropout_keys: two keys for each image; None switches dropout off.
        """
        scores = self.head(self.pool(images, sizes), dropout_keys)
        kernel, stride = self.trunk.kernels[0], self.trunk.conv1_stride
        if sizes is not None:
            scores = layers.zero_padding(scores, count_scores(sizes, kernel, stride))
        return upsample(scores, images.shape[1:3], 8 * stride, offset(kernel, stride))

    def pool(
        self, images: Float[Array, 'B H W 3'], sizes: Int[Array | np.ndarray, 'B 2'] | None = None
    ) -> Float[Array, 'B M N C']:
        """Returns the activations of pool5; arguments as above. `count_scores` counts the valid positions of fc6."""
        conv5, _ = self.trunk(images, sizes=sizes)
        return layers.max_pool(conv5, 0)


def geometry(stride: int) -> Geometry:
    """Returns the padding of the trunk, for the stride of conv1."""
    return Geometry(PADDING * stride, 0, 0)


def offset(kernel: int = 11, stride: int = 4) -> int:
    """Returns how many pixels are cropped at the start of the deconvolution's output, for conv1's kernel and stride."""
    return 6 * stride - 1 - (kernel - 1) // 2


def count_scores(size: layers.Length, kernel: int = 11, stride: int = 4) -> layers.Length:
    """Returns the number of scores along an axis for an image size in pixels; kernel and stride are those of conv1."""
    size = layers.conv_output_size(size, kernel, stride, PADDING * stride)
    for _ in range(3):
        size = layers.pool_output_size(size, 0)
    return size - WINDOW + 1


def upsample(
    scores: Float[Array, 'B M N K'], size: tuple[int, ...], stride: int = 32, before: int = 18
) -> Float[Array, 'B {size[0]} {size[1]} K']:
    """Upsamples scores by a bilinear deconvolution and crops the result to the image.

    It is computed as matrix products with the interpolation weights of rows and columns.

    Args:
      scores: class scores on the grid of fc7.
      size: height and width of the image.
      stride: pixels from one score to the next; the kernel has 2 * stride - 1 pixels.
      before: pixels that are cropped at the start of both axes.
    """
    rows, columns = (_weights(scores.shape[n + 1], size[n], stride, before) for n in (0, 1))
    scores = jnp.einsum('ym,bmnk->bynk', rows, scores, precision='highest')
    return jnp.einsum('xn,bynk->byxk', columns, scores, precision='highest')


def _weights(count, length, stride, before):
    """Returns the interpolation weights, [length, count]: the weight of each score for each pixel."""
    pixels, peaks = np.arange(length) + before, stride * np.arange(count) + stride - 1
    distances = np.abs(pixels[:, None] - peaks[None])
    return np.maximum(0, 1 - distances / stride).astype(np.float32)
