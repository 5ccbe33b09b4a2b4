"""The method's building blocks: resampling, normalised and grouped convolutions, and the damage of features.

Shapes are NHWC. Source of every constant: the paper (arXiv 1806.05024) and the authors' 2019 code.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

# The autoencoder and the repair network are initialised as the 2018 code does it (slim's variance scaling),
# the discriminator with Glorot's uniform distribution.
he_init = nn.initializers.variance_scaling(2.0, 'fan_avg', 'truncated_normal')
glorot_init = nn.initializers.glorot_uniform()


def is_bias(path) -> bool:
    """Whether a parameter's tree path is a layer's bias; Flax calls the offset of batch norm so, too."""
    return path[-1].key == 'bias' and not path[-2].key.startswith('norm')


def leaky_relu(x):
    """Leaky rectifier of slope 0.2; the 2018 code mixes 0.1, 0.2 and ReLU, its 2019 fix uses 0.2 throughout."""
    return nn.leaky_relu(x, 0.2)


def batch_norm(x, *, train, name, dtype, axis_name, use_scale=True):
    """Batch normalisation with epsilon 1e-3 and decay 0.975, over the global batch of all devices.

    Call it inside a compact method. `axis_name` names the devices under pmap; under jit over a mesh the batch
    is one array and its statistics are global already.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=0.975,
        epsilon=1e-3,
        use_scale=use_scale,
        axis_name=axis_name,
        dtype=dtype,
        name=name,
    )(x)


class ConvNorm(nn.Module):
    """SAME convolution without bias, batch norm, leaky ReLU: [B, H, W, C] -> [B, H / stride, W / stride, features]."""

    features: int
    kernel: int = 3
    stride: int = 1
    dtype: jnp.dtype = jnp.float32
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, *, train):
        """Returns the activations; `train` normalises by the batch and updates the running averages."""
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            self.stride,
            use_bias=False,
            kernel_init=he_init,
            dtype=self.dtype,
            name='conv',
        )(x)
        return leaky_relu(batch_norm(x, train=train, name='norm', dtype=self.dtype, axis_name=self.axis_name))


class GroupedConv(nn.Module):
    """SAME convolution in groups, as one convolution a group: [B, H, W, C] -> [B, H / stride, W / stride, features].

    Equal to `feature_group_count=groups`, which XLA runs 4 to 15 times slower on CPU.
    """

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1
    use_bias: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x):
        """Returns the convolution of x, before any activation."""
        outputs = [
            nn.Conv(
                self.features // self.groups,
                (self.kernel, self.kernel),
                self.stride,
                use_bias=self.use_bias,
                kernel_init=glorot_init,
                bias_init=nn.initializers.constant(0.1),
                dtype=self.dtype,
                name=f'group{n}',
            )(part)
            for n, part in enumerate(jnp.split(x, self.groups, axis=-1))
        ]
        return jnp.concatenate(outputs, axis=-1)


def local_response_norm(x, *, radius=2, alpha=2e-5, beta=0.75):
    """AlexNet's normalisation: x / (1 + alpha * SUM of squares over 2 * radius + 1 channels) ** beta."""
    channels = x.shape[-1]
    squares = jnp.pad(jnp.square(x), ((0, 0),) * (x.ndim - 1) + ((radius, radius),))
    total = sum(squares[..., n : n + channels] for n in range(2 * radius + 1))
    return x * (1 + alpha * total) ** -beta


def max_pool(x):
    """Maximum over 3x3 windows with stride 2, SAME: [B, H, W, C] -> [B, ceil(H / 2), ceil(W / 2), C].

    Equal to `nn.max_pool`, as maxima of neighbouring rows and then columns: XLA's gradient of a window's maximum is
    12 times slower on CPU. The gradient of a tie is shared; after a ReLU that is nearly always one of zeros.
    """
    lowest = jnp.array(-jnp.inf, x.dtype)
    for axis in (1, 2):
        padding = [(0, 0, 0)] * x.ndim
        if x.shape[axis] % 2:  # SAME then begins one row before the image
            padding[axis] = (1, 0, 0)
            x = jax.lax.pad(x, lowest, padding)
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = (jax.lax.index_in_dim(pairs, n, axis + 1, keepdims=False) for n in (0, 1))
        padding[axis] = (-1, 1, 0)
        x = jnp.maximum(jnp.maximum(even, odd), jax.lax.pad(even, lowest, padding))
    return x


def upsample_bilinear(x):
    """Doubles the resolution with half-pixel bilinear interpolation: [B, H, W, C] -> [B, 2H, 2W, C].

    Equal to `jax.image.resize`, written as weighted neighbours because that is 7 times faster on CPU.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        first = jax.lax.slice_in_dim(x, 0, 1, axis=axis)
        last = jax.lax.slice_in_dim(x, size - 1, size, axis=axis)
        before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, size - 1, axis=axis)], axis)
        after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, size, axis=axis), last], axis)
        pairs = jnp.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pairs.reshape(*x.shape[:axis], 2 * size, *x.shape[axis + 1 :])
    return x


def upsample_nearest(mask, size):
    """Repeats the entries of a mask: [B, M, N, 1] -> [B, size[0], size[1], 1], multiples of M and N."""
    rows, columns = size[0] // mask.shape[1], size[1] // mask.shape[2]
    return jnp.repeat(jnp.repeat(mask, rows, axis=1), columns, axis=2)


def spatial_mask(keys, shape, drop_rate):
    """Draws Omega: [B, M, N, 1] float32, each entry 0 (dropped) with probability drop_rate, else 1 (kept).

    Args:
      keys: [B] PRNG keys, one for each example.
      shape: (M, N), the encoder's grid.
      drop_rate: theta in [0, 1].
    """
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - drop_rate, (*shape, 1)))(keys)
    return keep.astype(jnp.float32)


def uniform_filter(phi, size):
    """Means over size x size neighbours inside the grid [B, M, N, C]; size 0 averages the whole grid."""
    if size == 0:
        return jnp.broadcast_to(phi.mean(axis=(1, 2), keepdims=True), phi.shape)
    return nn.avg_pool(phi, (size, size), (1, 1), 'SAME', count_include_pad=False)


def damage(phi, mask, filter_size):
    """Replaces dropped entries by their neighbours' mean: mask * phi + (1 - mask) * (u conv phi), [B, M, N, C]."""
    mask = mask.astype(phi.dtype)
    return mask * phi + (1 - mask) * uniform_filter(phi, filter_size)


def dropout(keys, x, rate):
    """Drops features [B, D] at `rate` and rescales the rest, with a key for each example."""
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0).astype(x.dtype)
