"""The discriminator, AlexNet: a trunk up to conv5, whose features are transferred, and two heads on it.

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
    """What stands around the images of conv1 and of the two poolings: 'SAME', or rows and columns on each side."""

    conv1: int | str
    pool1: int | str
    pool2: int | str


CHANNEL_MEANS = (123.68, 116.78, 103.94)  # of ImageNet, RGB in [0, 255]
TRAINED = Geometry('SAME', 'SAME', 'SAME')
FAKE, REAL = 0, 1  # classes of the discriminator

Images = Float[Array | np.ndarray, 'B H W 3'] | tuple[Float[Array, '_ H W 3'], ...]  # or parts of one batch


class Trunk(nn.Module):
    """AlexNet up to conv5, the part whose features are transferred.

    Pooling (3x3/2) and local response normalisation follow conv1 and conv2. At full size conv5 is [B, H / 16, W / 16,
    256]: the grid of the mask. `geometry` and `normalise` are for transfer; see alexnet.py.
    """

    widths: tuple[int, ...] = (96, 256, 384, 384, 256)
    kernels: tuple[int, ...] = (11, 5, 3, 3, 3)
    conv1_stride: int = 4
    groups: int = 2
    geometry: Geometry = TRAINED
    normalise: bool = True  # conv5 has batch norm and no bias; False: a bias, and no batch norm
    products: bool = False  # whether to convolve by products.py
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, images: Images, *, train: bool = False, sizes: Int[Array | np.ndarray, 'B 2'] | None = None
    ) -> tuple[Float[Array, 'B M N C'], dict[str, Float[Array, 'B _ _ _']]]:
        """Returns (conv5 activations, {'conv1': ..., 'conv5': ...}), all after ReLU and before pooling.

        With `sizes` an image alone counts, whatever its padding: activations are those that it has
        without one, and 0 beyond.

        Args:
          images: in [-1, 1], one array or a tuple of parts of one batch: the features are of the whole, and a gradient
            with respect to one part costs nothing for the others up to conv5.
          train: normalise conv5 by the batch and update its running averages.
          sizes: heights and widths of images in the upper left corners of one array, if `geometry` has numbers.
        """
        parts, features = images if isinstance(images, tuple) else (images,), {}
        parts = [preprocess(x).astype(self.dtype) for x in parts]
        if sizes is not None:
            parts = [layers.zero_padding(x, sizes) for x in parts]
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
            parts = [convolve(x) for x in parts]
            if n == 5 and self.normalise:  # whose statistics are the whole batch's
                norm5 = layers.BatchNorm(False, self.dtype, self.axis_name, name='norm5')
                parts = [norm5(jnp.concatenate(parts), train=train)]
            parts = [nn.relu(x) for x in parts]
            if sizes is not None:  # 0 is as good as nothing to a maximum of what is not negative
                if n == 1:
                    sizes = layers.conv_output_size(sizes, kernel, self.conv1_stride, int(self.geometry.conv1))
                parts = [layers.zero_padding(x, sizes) for x in parts]
            features[f'conv{n}'] = jnp.concatenate(parts)
            if n <= 2:
                padding = self.geometry.pool1 if n == 1 else self.geometry.pool2
                parts = [layers.max_pool(x, padding) for x in parts]
                if sizes is not None:
                    sizes = layers.pool_output_size(sizes, int(padding))
                    parts = [layers.zero_padding(x, sizes) for x in parts]
                parts = [layers.local_response_norm(x) for x in parts]
        return features['conv5'], features


class Discriminator(nn.Module):
    """The trunk with a class head (real or repaired) and a head that predicts the mask."""

    trunk: Trunk
    hidden: int = 4096
    dropout: float = 0.5
    products: bool = False  # whether to multiply by products.py

    @nn.compact
    def __call__(
        self, images: Images, *, train: bool = False, dropout_keys: Key[Array, ' B'] | None = None
    ) -> tuple[tuple[Float32[Array, 'B 2'], Float32[Array, 'B M N 1']], dict[str, Float[Array, 'B _ _ _']]]:
        """Judges images.

        Args:
          images: real and repaired images, one array or a tuple of parts (see `Trunk`).
          train: normalise conv5 and the fully connected layer by the batch, and update the running averages.
          dropout_keys: one for each example; None switches dropout off.

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
    """Glorot's distribution with the fans of a convolution over the whole grid, as which the 2018 code makes fc1."""

    def init(key, shape, dtype):
        return layers.glorot_init(key, (*grid, hidden), dtype).reshape(shape)

    return init


def scale_pixels(images: Shaped[Array | np.ndarray, 'B H W 3']) -> Float32[Array, 'B H W 3']:
    """Maps images in [0, 255], of any type, to [-1, 1], as networks take them."""
    return jnp.asarray(images, jnp.float32) / 127.5 - 1


def preprocess(images: Float[Array | np.ndarray, 'B H W 3']) -> Float[Array, 'B H W 3']:
    """Maps images in [-1, 1] to AlexNet's input: [0, 255] minus the channel means."""
    return jnp.asarray(images) * 127.5 + 127.5 - jnp.array(CHANNEL_MEANS, images.dtype).reshape(1, 1, 1, 3)
