"""FCN-32s on AlexNet: fc6 and fc7 slide over pool5, and their scores of classes are stretched to the image's pixels.

conv1 has 100 pixels around it, so that fc6, which sees 6x6 entries of pool5, has one where the image's corner is. Entry
k of a row of scores is centred at pixel 32 k + 13. The deconvolution, a fixed one, has its maximum at 32 k + 31, so
that 18 pixels are cut off before the first. Poolings round up; else many sizes would end before their last pixels do.
For trunks of another stride or kernel than AlexNet's these numbers are in proportion.

Source: shelhamer/fcn.berkeleyvision.org, voc-fcn-alexnet/net.py, and Caffe's bilinear filler.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, Key

from artifacts_jax.models import alexnet, layers
from artifacts_jax.models.discriminator import Geometry, Trunk

WINDOW = 6  # entries of pool5 along a side of what fc6 sees
PADDING = 25  # around conv1, in its strides


class Convolved(nn.Module):
    """fc6 and fc7 as convolutions, with dropout after each, and on them the scores, which begin at zero."""

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
          pooled: pool5.
          dropout_keys: two for each example; None switches dropout off.
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
    """The trunk and what judges every pixel; its networks are 'trunk' and 'head'."""

    trunk: Trunk  # of the geometry that `geometry` returns
    head: Convolved

    def __call__(
        self,
        images: Float[Array, 'B H W 3'],
        sizes: Int[Array | np.ndarray, 'B 2'] | None = None,
        dropout_keys: Key[Array, 'B 2'] | None = None,
    ) -> Float32[Array, 'B H W {self.head.classes}']:
        """Returns each pixel's scores before softmax; those of an image do not depend on its padding.

        Args:
          images: in [-1, 1], padded below and to the right.
          sizes: their heights and widths before; None: they are not padded.
          dropout_keys: two for each image; None switches dropout off.
        """
        scores = self.head(self.pool(images, sizes), dropout_keys)
        kernel, stride = self.trunk.kernels[0], self.trunk.conv1_stride
        if sizes is not None:
            scores = layers.zero_padding(scores, count_scores(sizes, kernel, stride))
        return upsample(scores, images.shape[1:3], 8 * stride, offset(kernel, stride))

    def pool(
        self, images: Float[Array, 'B H W 3'], sizes: Int[Array | np.ndarray, 'B 2'] | None = None
    ) -> Float[Array, 'B M N C']:
        """Returns pool5; arguments as above. Of an image, windows of fc6 so many as `count_scores` says count."""
        conv5, _ = self.trunk(images, sizes=sizes)
        return layers.max_pool(conv5, 0)


def geometry(stride: int) -> Geometry:
    """Returns what stands around the trunk's maps, for this stride of conv1."""
    return Geometry(PADDING * stride, 0, 0)


def offset(kernel: int = 11, stride: int = 4) -> int:
    """Returns how many pixels of the deconvolution lie before the image's first; arguments are conv1's."""
    return 6 * stride - 1 - (kernel - 1) // 2


def count_scores(size: layers.Length, kernel: int = 11, stride: int = 4) -> layers.Length:
    """Returns how many scores an image of a size, pixels, has along an axis; the other arguments are conv1's."""
    size = layers.conv_output_size(size, kernel, stride, PADDING * stride)
    for _ in range(3):
        size = layers.pool_output_size(size, 0)
    return size - WINDOW + 1


def upsample(
    scores: Float[Array, 'B M N K'], size: tuple[int, ...], stride: int = 32, before: int = 18
) -> Float[Array, 'B {size[0]} {size[1]} K']:
    """Returns the bilinear deconvolution of scores, without what lies around an image.

    As products with the weights along rows and along columns.

    Args:
      scores: on the grid of pool5.
      size: the image's height and width.
      stride: pixels from one score to the next; the kernel is 2 * stride - 1 wide.
      before: pixels that are cut off before the first.
    """
    rows, columns = (_weights(scores.shape[n + 1], size[n], stride, before) for n in (0, 1))
    scores = jnp.einsum('ym,bmnk->bynk', rows, scores, precision='highest')
    return jnp.einsum('xn,bynk->byxk', columns, scores, precision='highest')


def _weights(count, length, stride, before):
    """Returns what each of so many scores adds to each of so many pixels."""
    pixels, peaks = np.arange(length) + before, stride * np.arange(count) + stride - 1
    distances = np.abs(pixels[:, None] - peaks[None])
    return np.maximum(0, 1 - distances / stride).astype(np.float32)
