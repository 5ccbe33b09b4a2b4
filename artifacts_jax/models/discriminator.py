"""The discriminator, an AlexNet: a trunk up to conv5, whose features are the result of the method, and two heads.

Images are in [-1, 1]. Architecture: section 3 of the paper and the authors' 2019 STL-10 code.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, Key, Shaped

from artifacts_jax.models import layers
from artifacts_jax.models.cpu import products


class Geometry(NamedTuple):
    """The padding of conv1 and of the two pooling layers: 'SAME', or the number of rows and columns on each side."""

    conv1: int | str
    pool1: int | str
    pool2: int | str


CHANNEL_MEANS = (123.68, 116.78, 103.94)  # ImageNet, RGB in [0, 255]
TRAINED = Geometry('SAME', 'SAME', 'SAME')  # the padding of pretraining
FAKE, REAL = 0, 1  # classes of the discriminator

Images = Float[Array | np.ndarray, 'B H W 3'] | tuple[Float[Array, '_ H W 3'], ...]  # or slices of one batch


class Trunk(nn.Module):
    """AlexNet up to conv5.

    Pooling (3x3/2) and local response normalisation follow conv1 and conv2. At full width conv5 is [B, H / 16, W / 16,
    256]; its grid is the grid of the mask. The transfer benchmarks set `geometry` (the padding) and `normalise`; see
    alexnet.py.
    """

    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    kernels: tuple[int, ...] = (11, 5, 3, 3, 3)
    conv1_stride: int = 4
    groups: int = 2
    geometry: Geometry = TRAINED
    normalise: bool = True  # True: conv5 has batch norm and no bias; False: a bias and no batch norm
    products: bool = False  # whether convolutions are computed as matrix products (products.py)
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, images: Images, *, train: bool = False, sizes: Int[Array | np.ndarray, 'B 2'] | None = None
    ) -> tuple[Float[Array, 'B M N C'], dict[str, Float[Array, 'B _ _ _']]]:
        """Returns (conv5 activations, {'conv1': ..., 'conv5': ...}), all after ReLU and before pooling.

        With `sizes`, padding does not change the features: they equal the features of the image without padding, and
        are 0 outside of it.

        Args:
          images: images in [-1, 1], as one array or as a tuple of slices of one batch. The features of the slices are
            concatenated. A gradient with respect to one slice needs no computation for the others up to conv5.
          train: whether conv5 is normalised by the statistics of the batch, which also updates the running averages.
          sizes: heights and widths without padding, of images in the upper left corner of one array; allowed only if
            `geometry` contains numbers.
        """
        slices, features = images if isinstance(images, tuple) else (images,), {}
        slices = [preprocess(x).astype(self.dtype) for x in slices]
        if sizes is not None:
            slices = [layers.zero_padding(x, sizes) for x in slices]
        for n, (width, kernel) in enumerate(zip(self.widths, self.kernels), start=1):
            convolve = layers.GroupedConv(
                width,
                kernel,
                stride=self.conv1_stride if n == 1 else 1,
                groups=self.groups if n in (2, 4, 5) else 1,
                padding=self.geometry.conv1 if n == 1 else 'SAME',
                use_bias=n != 5 or not self.normalise,
                products=self.products,
                dtype=self.dtype,
                name=f'conv{n}',
            )
            slices = [convolve(x) for x in slices]
            if n == 5 and self.normalise:  # joined, because batch norm uses the statistics of the whole batch
                norm5 = layers.BatchNorm(False, self.dtype, self.axis_name, name='norm5')
                slices = [norm5(jnp.concatenate(slices), train=train)]
            slices = [nn.relu(x) for x in slices]
            if sizes is not None:  # zeros do not change the maximum in pooling, because activations are not negative
                if n == 1:
                    sizes = layers.conv_output_size(sizes, kernel, self.conv1_stride, int(self.geometry.conv1))
                slices = [layers.zero_padding(x, sizes) for x in slices]
            features[f'conv{n}'] = jnp.concatenate(slices)
            if n <= 2:
                padding = self.geometry.pool1 if n == 1 else self.geometry.pool2
                slices = [layers.max_pool(x, padding) for x in slices]
                if sizes is not None:
                    sizes = layers.pool_output_size(sizes, int(padding))
                    slices = [layers.zero_padding(x, sizes) for x in slices]
                slices = [layers.local_response_norm(x) for x in slices]
        return features['conv5'], features


class Discriminator(nn.Module):
    """The trunk with a class head (real or fake) and a head that predicts the mask."""

    trunk: Trunk
    hidden: int = 4096
    dropout: float = 0.5
    products: bool = False  # whether fc1 is computed by products.py

    @nn.compact
    def __call__(
        self, images: Images, *, train: bool = False, dropout_keys: Key[Array, ' B'] | None = None
    ) -> tuple[tuple[Float32[Array, 'B 2'], Float32[Array, 'B M N 1']], dict[str, Float[Array, 'B _ _ _']]]:
        """Computes the class logits and the mask logits of images.

        Args:
          images: real and fake images, as one array or as a tuple of slices of one batch (see `Trunk`).
          train: whether conv5 and fc1 are normalised by the statistics of the batch, which also updates the running
            averages.
          dropout_keys: one key for each example; None switches dropout off.

        Returns:
          ((class logits, mask logits), {'conv1': activations, ...}).
        """
        dtype = self.trunk.dtype
        conv5, features = self.trunk(images, train=train)
        mask_logits = nn.Conv(1, (3, 3), kernel_init=layers.glorot_init, dtype=dtype, name='mask')(conv5)
        x = nn.DenseGeneral(
            self.hidden,
            axis=(1, 2, 3),
            use_bias=False,
            kernel_init=_whole_grid_init(conv5.shape[1:], self.hidden),
            dtype=dtype,
            dot_general=products.dot_general if self.products else None,
            name='fc1',
        )(conv5)
        x = nn.relu(layers.BatchNorm(False, dtype, self.trunk.axis_name, name='norm1')(x, train=train))
        if dropout_keys is not None:
            x = layers.dropout(dropout_keys, x, self.dropout)
        logits = nn.Dense(2, kernel_init=layers.glorot_init, dtype=dtype, name='fc2')(x)
        return (logits.astype(jnp.float32), mask_logits.astype(jnp.float32)), features


def _whole_grid_init(grid, hidden):
    """Glorot initialisation with the fans of a convolution over the whole grid, as in the 2018 code."""

    def init(key, shape, dtype):
        return layers.glorot_init(key, (*grid, hidden), dtype).reshape(shape)

    return init


def scale_pixels(images: Shaped[Array | np.ndarray, 'B H W 3']) -> Float32[Array, 'B H W 3']:
    """Maps images in [0, 255], of any dtype, to [-1, 1], the input range of the networks."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def preprocess(images: Float[Array | np.ndarray, 'B H W 3']) -> Float[Array, 'B H W 3']:
    """Maps images in [-1, 1] to the input of AlexNet: [0, 255] minus the channel means."""
    return jnp.asarray(images) * 127.5 + 127.5 - jnp.array(CHANNEL_MEANS, images.dtype).reshape(1, 1, 1, 3)
