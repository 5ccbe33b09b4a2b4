"""The layers of the networks: convolutions with batch norm, grouped convolutions, pooling, resampling and damage.

Source of all constants: the paper (arXiv 1806.05024) and the authors' 2019 code.
"""

from typing import TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32, Int, Key

from artifacts_jax.models.cpu import products, upsampled

# The autoencoder and the repair network are initialised as the 2018 code does it (slim's variance scaling),
# the discriminator with Glorot's uniform distribution.
he_init = nn.initializers.variance_scaling(2.0, 'fan_avg', 'truncated_normal')
glorot_init = nn.initializers.glorot_uniform()


def is_bias(path: tuple) -> bool:
    """Returns whether a tree path is the bias of a layer; False for the offset of batch norm, also named bias."""
    return path[-1].key == 'bias' and not path[-2].key.startswith('norm')


@jax.custom_vjp
def leaky_relu(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
    """Leaky ReLU with slope 0.2. The 2018 code mixes slopes 0.1, 0.2 and ReLU; its fix of 2019 uses 0.2 everywhere.

    The gradient uses the sign of the output. With the sign of x, XLA would recompute x from the layers below.
    """
    return nn.leaky_relu(x, 0.2)


def _leaky_relu_forward(x):
    y = leaky_relu(x)
    return y, y


def _leaky_relu_backward(y, gradient):
    return (jnp.where(y >= 0, gradient, 0.2 * gradient),)


leaky_relu.defvjp(_leaky_relu_forward, _leaky_relu_backward)


class BatchNorm(nn.Module):
    """Batch normalisation with epsilon 1e-3 and decay 0.975 over the global batch of all devices.

    The running variance averages the unbiased batch variance, n / (n - 1) times the variance, as in TensorFlow and
    PyTorch; the one of Flax is biased. `axis_name` is the axis of the devices under pmap. Under jit over a mesh, the
    batch is one array, so its statistics are already global.
    """

    use_scale: bool = True
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, '*B C'], *, train: bool) -> Float[Array, '*B C']:
        """Normalises x by the running averages. With `train`, uses the batch statistics and updates the averages."""
        channels, axes = x.shape[-1], tuple(range(x.ndim - 1))
        mean = self.variable('batch_stats', 'mean', jnp.zeros, channels)
        var = self.variable('batch_stats', 'var', jnp.ones, channels)
        offset = self.param('bias', nn.initializers.zeros, (channels,))
        scale = self.param('scale', nn.initializers.ones, (channels,)) if self.use_scale else 1.0
        x = x.astype(jnp.float32)
        if train:
            moments = x.mean(axes), jnp.square(x).mean(axes)
            count = x.size // channels
            if self.axis_name is not None:
                moments = jax.lax.pmean(moments, self.axis_name)
                count *= jax.lax.axis_size(self.axis_name)
            batch_mean, batch_var = moments[0], jnp.maximum(moments[1] - jnp.square(moments[0]), 0)
            if not self.is_initializing():
                mean.value = 0.975 * mean.value + 0.025 * batch_mean
                var.value = 0.975 * var.value + 0.025 * batch_var * (count / max(count - 1, 1))
        else:
            batch_mean, batch_var = mean.value, var.value
        factor = norm_factor(batch_var) * scale
        broadcast_shape = (1,) * len(axes) + (channels,)
        shift = offset - batch_mean * factor  # x * factor + shift needs one pass over x, and one over its gradient
        return (x * factor.reshape(broadcast_shape) + shift.reshape(broadcast_shape)).astype(self.dtype)


def norm_factor(var: Float[Array, ' C']) -> Float[Array, ' C']:
    """Returns 1 / sqrt(var + epsilon), the factor of batch normalisation without its learned scale."""
    return jax.lax.rsqrt(var + 1e-3)


class ConvNorm(nn.Module):
    """A SAME convolution (without bias), followed by batch norm and leaky ReLU. `stride` divides the resolution.

    With `upsampling`, a kind of `upsample_bilinear`, the resolution of x is doubled first. With `products`,
    convolutions are computed as matrix products (products.py).
    """

    features: int
    kernel: int = 3
    stride: int = 1
    upsampling: str = ''
    constant: int = 0  # number of last channels of x that need no gradient
    products: bool = False
    dtype: DTypeLike = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, 'B H W C'], *, train: bool) -> Float[Array, 'B _ _ {self.features}']:
        """Returns the activations. With `train`, batch norm uses the batch statistics and updates its averages."""
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            use_bias=False,
            kernel_init=he_init,
            dtype=self.dtype,
            conv_general_dilated=self._convolution,
            name='conv',
        )(x)
        x = BatchNorm(dtype=self.dtype, axis_name=self.axis_name, name='norm')(x, train=train)
        return leaky_relu(x)

    def _convolution(self, x, kernel, *arguments, **options):
        if self.products and self.upsampling and self.kernel == 3:
            return upsampled.convolution(x, kernel, self.upsampling)
        if self.upsampling:
            x = upsample_bilinear(x, self.upsampling)
        if self.products:
            return products.convolve(x, kernel, *arguments, constant=self.constant, **options)
        return jax.lax.conv_general_dilated(x, kernel, *arguments, **options)


class GroupedConv(nn.Module):
    """A grouped convolution, computed as one convolution for each group. `stride` divides the resolution.

    The result equals `feature_group_count=groups`, which is 4 to 15 times slower in XLA on CPU.
    """

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    padding: int | str = 'SAME'  # or the number of rows and columns on each side
    use_bias: bool = True
    products: bool = False  # whether convolutions are computed as matrix products (products.py)
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, 'B H W C']) -> Float[Array, 'B _ _ {self.features}']:
        """Returns the convolution of x, without activation function."""
        outputs = [
            nn.Conv(
                self.features // self.groups,
                (self.kernel, self.kernel),
                self.stride,
                padding=self.padding,
                use_bias=self.use_bias,
                kernel_init=glorot_init,
                bias_init=nn.initializers.constant(0.1),
                dtype=self.dtype,
                conv_general_dilated=products.convolve if self.products else None,
                name=f'group{n}',
            )(group)
            for n, group in enumerate(jnp.split(x, self.groups, axis=-1))
        ]
        return jnp.concatenate(outputs, axis=-1)


def local_response_norm(
    x: Float[Array, '*B C'], *, radius: int = 2, alpha: float = 2e-5, beta: float = 0.75
) -> Float[Array, '*B C']:
    """Local response normalisation: x / (1 + alpha * sum of squares over 2 * radius + 1 channels) ** beta."""
    channels = x.shape[-1]
    squares = jnp.pad(jnp.square(x), ((0, 0),) * (x.ndim - 1) + ((radius, radius),))
    total = sum(squares[..., n : n + channels] for n in range(2 * radius + 1))
    return x * (1 + alpha * total) ** -beta


def max_pool(x: Float[Array, 'B H W C'], padding: int | str = 'SAME') -> Float[Array, 'B _ _ C']:
    """Max pooling over 3x3 windows with stride 2.

    It is computed as maxima of neighbouring rows and then of columns, because XLA's gradient of max pooling is 12 times
    slower on CPU. If several entries have the maximum, they share its gradient. After a ReLU, nearly all such ties are
    ties of zeros.

    Args:
      x: activations.
      padding: 'SAME' as in `nn.max_pool`: the output has half the size, rounded up. Or the number of rows and columns
        on each side, as in Caffe: the last window can extend beyond the padded array, but starts inside it.
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    for axis in (1, 2):
        size = x.shape[axis]
        before, windows = (
            (size % 2, (size + 1) // 2) if isinstance(padding, str) else (padding, pool_output_size(size, padding))
        )
        edges = [(0, 0, 0)] * x.ndim
        edges[axis] = (before, (size + before) % 2, 0)
        if any(edges[axis]):
            x = jax.lax.pad(x, lowest, edges)
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = (jax.lax.index_in_dim(pairs, n, axis + 1, keepdims=False) for n in (0, 1))
        edges[axis] = (-1, 1, 0)
        x = jnp.maximum(jnp.maximum(even, odd), jax.lax.pad(even, lowest, edges))
        if x.shape[axis] > windows:
            x = jax.lax.slice_in_dim(x, 0, windows, axis=axis)
    return x


Length = TypeVar('Length', int, Int[Array | np.ndarray, '*B'])


def pool_output_size(size: Length, padding: int) -> Length:
    """Returns the output size of Caffe's 3x3 pooling with stride 2 along an axis: rounded up."""
    windows = -(-(size + 2 * padding - 3) // 2) + 1
    return windows - (padding > 0 and 2 * (windows - 1) >= size + padding)


def conv_output_size(size: Length, kernel: int, stride: int, padding: int) -> Length:
    """Returns the output size of a convolution along an axis: rounded down."""
    return (size + 2 * padding - kernel) // stride + 1


def zero_padding(x: Float[Array, 'B M N C'], sizes: Int[Array | np.ndarray, 'B 2']) -> Float[Array, 'B M N C']:
    """Sets the padding of x to zero; `sizes` are the numbers of rows and columns of each example without padding."""
    rows, columns = (jnp.arange(x.shape[axis])[None] < sizes[:, axis - 1, None] for axis in (1, 2))
    return jnp.where((rows[:, :, None] & columns[:, None])[..., None], x, jnp.zeros((), x.dtype))


def upsample_bilinear(x: Float[Array, 'B H W C'], kind: str = 'half_pixel') -> Float[Array, 'B 2*H 2*W C']:
    """Doubles the resolution by bilinear interpolation.

    Args:
      x: activations.
      kind: 'half_pixel' equals `jax.image.resize`; it is computed as a weighted sum of neighbours, which is 7 times
        faster on CPU. 'legacy' is the resize of TensorFlow 1: each entry is followed by its mean with the next entry,
        and the last entry is repeated.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
        after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
        if kind == 'legacy':
            pairs = x, 0.5 * (x + after)
        else:
            first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
            before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
            pairs = 0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after
        x = jnp.stack(pairs, axis + 1).reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def upsample_nearest(
    mask: Float[Array | np.ndarray, 'B M N 1'], size: tuple[int, ...]
) -> Float[Array, 'B {size[0]} {size[1]} 1']:
    """Repeats the entries of a mask up to a (height, width), which must be multiples of M and N."""
    rows, columns = size[0] // mask.shape[1], size[1] // mask.shape[2]
    return jnp.repeat(jnp.repeat(mask, rows, axis=1), columns, axis=2)


def spatial_mask(
    keys: Key[Array, ' B'], shape: tuple[int, int], drop_rate: float
) -> Float32[Array, 'B {shape[0]} {shape[1]} 1']:
    """Samples the mask Omega: each entry is 0 (dropped) with probability drop_rate, else 1 (kept).

    Args:
      keys: one key for each example.
      shape: (M, N), the size of the encoder's feature grid.
      drop_rate: theta, in [0, 1].
    """
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - drop_rate, (*shape, 1)))(keys)
    return keep.astype(jnp.float32)


def uniform_filter(phi: Float[Array, 'B M N C'], size: int) -> Float[Array, 'B M N C']:
    """Returns the means over size x size neighbours inside the grid; size 0 averages over the whole grid."""
    if size == 0:
        return jnp.broadcast_to(phi.mean(axis=(1, 2), keepdims=True), phi.shape)
    return nn.avg_pool(phi, (size, size), (1, 1), 'SAME', count_include_pad=False)


def damage(
    phi: Float[Array, 'B M N C'], mask: Float[Array | np.ndarray, 'B M N 1'], filter_size: int
) -> Float[Array, 'B M N C']:
    """Replaces dropped entries by the mean of their neighbours: mask * phi + (1 - mask) * (u conv phi)."""
    mask = jnp.asarray(mask, phi.dtype)
    return mask * phi + (1 - mask) * uniform_filter(phi, filter_size)


def dropout(keys: Key[Array, ' B'], x: Float[Array, 'B D'], rate: float) -> Float[Array, 'B D']:
    """Sets features to zero with probability `rate` and rescales the others; takes one key for each example."""
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)
