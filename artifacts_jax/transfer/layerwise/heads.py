"""The classifiers: each feature map is downsampled and normalised; then one linear layer for each learning rate."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from artifacts_jax.transfer.layerwise.presets import GRIDS, LAYERS, MAPS, PRESETS, Preset, Window

EPSILON = 1e-5


class Heads(nn.Module):
    """Linear classifiers of a protocol on each layer: `rates` classifiers on the same features of a layer."""

    preset: str
    classes: int
    rates: int = 1
    axis_name: str | None = None

    @nn.compact
    def __call__(
        self, maps: dict[str, Float[Array, 'B _ _ _']], *, train: bool
    ) -> dict[str, Float32[Array, '{self.rates} B {self.classes}']]:
        """Returns the logits, {layer: [rates, B, classes]}.

        Args:
          maps: feature maps {'conv1': ..., 'conv5': ...}, after ReLU.
          train: whether batch norm uses the batch statistics, and updates the running averages.
        """
        preset, logits = PRESETS[self.preset], {}
        for n, layer in enumerate(LAYERS):
            x = downsample(maps[layer].astype(jnp.float32), preset, n)
            side = x.shape[1]
            if preset.norm != 'none':
                x = Norm(preset.norm_decay, preset.statistics, self.axis_name, name=f'{layer}_norm')(x, train=train)
            x = x[None]
            if preset.norm == 'affine':  # scale and offset for each rate
                shape, spread = (self.rates, x.shape[-1]), (slice(None), None, None, None)
                scale = self.param(f'{layer}_scale', nn.initializers.ones, shape)
                x = x * scale[spread] + self.param(f'{layer}_offset', nn.initializers.zeros, shape)[spread]
            x = x.reshape(*x.shape[:2], -1)
            shape = (self.rates, self.classes, x.shape[-1])  # XLA is fastest on CPU with the inputs on the last axis
            kernel = self.param(f'{layer}_kernel', _kernel_init(preset, side), shape)
            bias = self.param(f'{layer}_bias', _bias_init(preset, x.shape[-1]), (self.rates, self.classes))
            # One product for each rate: on CPU, XLA is ten times slower with a batched product.
            inputs = [x[rate if len(x) > 1 else 0] for rate in range(self.rates)]
            products = [jnp.einsum('bi,ki->bk', *pair) for pair in zip(inputs, kernel)]
            logits[layer] = jnp.stack(products) + bias[:, None]
        return logits


class Norm(nn.Module):
    """Batch norm without scale and offset, with separate statistics for groups of images.

    The groups correspond to the devices of the published training. In the first steps, the running averages are means
    over all batches so far, which is close to Caffe's averages. Later they decay by `decay`.
    """

    decay: float
    statistics: int  # images in a group
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, 'B M N C'], *, train: bool) -> Float[Array, 'B M N C']:
        """Normalises by the running averages; if `train`, by the statistics of each group, whose mean updates them."""
        channels = x.shape[-1]
        mean = self.variable('batch_stats', 'mean', jnp.zeros, channels)
        var = self.variable('batch_stats', 'var', jnp.ones, channels)
        count = self.variable('batch_stats', 'count', jnp.zeros, ())
        if not train:
            return _normalise(x, mean.value[None, None, None], var.value[None, None, None])
        most = max(1, len(x) // self.statistics)
        num_groups = next(n for n in range(most, 0, -1) if len(x) % n == 0)
        grouped = x.reshape(num_groups, -1, *x.shape[1:])
        moments = grouped.mean((1, 2, 3)), jnp.square(grouped).mean((1, 2, 3))
        size = grouped[0].size // channels
        if self.axis_name is not None and self.statistics > len(x):  # a group has images of several devices
            moments = jax.lax.pmean(moments, self.axis_name)
            size *= jax.lax.axis_size(self.axis_name)
        group_mean, group_var = moments[0], jnp.maximum(moments[1] - jnp.square(moments[0]), 0)
        if not self.is_initializing():
            new = group_mean.mean(0), group_var.mean(0) * (size / max(size - 1, 1))
            if self.axis_name is not None:
                new = jax.lax.pmean(new, self.axis_name)
            decay = jnp.minimum(self.decay, count.value / (count.value + 1))
            mean.value = decay * mean.value + (1 - decay) * new[0]
            var.value = decay * var.value + (1 - decay) * new[1]
            count.value += 1
        spread = (slice(None), None, None, None)
        return _normalise(grouped, group_mean[spread], group_var[spread]).reshape(x.shape)


def downsample(x: Float[Array, 'B H W C'], preset: Preset, layer: int) -> Float[Array, 'B M N C']:
    """Returns a downsampled feature map, [B, M, N, C].

    A map of the published size is pooled by the windows of the protocol. A map of another size is pooled by as many
    windows of nearly equal size, which cover it. A map that is not larger than the result is returned unchanged.

    Args:
      x: the feature map.
      preset: the protocol.
      layer: index of the layer, 0 for conv1, ... 4 for conv5.
    """
    grid = GRIDS[layer]
    if max(x.shape[1:3]) <= grid:
        return x
    if preset.pooling == 'resize':
        return _resize_axis(_resize_axis(x, grid, 1), grid, 2)
    if x.shape[1:3] == (MAPS[layer],) * 2:
        return _pool(x, preset.pooling, preset.windows[layer])
    for axis in (1, 2):
        length = x.shape[axis]
        bounds = [(n * length // grid, -(-(n + 1) * length // grid)) for n in range(grid)]
        windows = [jax.lax.slice_in_dim(x, *bound, axis=axis) for bound in bounds]
        reduce = jnp.mean if preset.pooling == 'average' else jnp.max
        x = jnp.concatenate([reduce(window, axis, keepdims=True) for window in windows], axis)
    return x


def _resize_axis(x, size, axis):
    """Resizes one axis bilinearly, without antialiasing.

    The result is that of jax.image.resize, which is slower: it reads all rows for each row of the result, not two.
    """
    centres = (np.arange(size) + 0.5) * (x.shape[axis] / size) - 0.5
    before = np.floor(centres).astype(int)
    spread = [None] * x.ndim
    spread[axis] = slice(None)
    fraction = (centres - before).astype(np.float32)[tuple(spread)]
    near, far = (jnp.take(x, np.clip(rows, 0, x.shape[axis] - 1), axis) for rows in (before, before + 1))
    return near * (1 - fraction) + far * fraction


def _pool(x, kind, window: Window):
    """Returns the mean or maximum of each window. Pooling one axis after the other is faster on CPU with overlap."""
    start, combine = (0.0, jax.lax.add) if kind == 'average' else (-jnp.inf, jax.lax.max)
    for axis in (1, 2):
        size, stride, padding = [1] * 4, [1] * 4, [(0, 0)] * 4
        size[axis], stride[axis], padding[axis] = window.size, window.stride, (window.padding,) * 2
        x = jax.lax.reduce_window(x, start, combine, size, stride, padding)
    return x / window.size**2 if kind == 'average' else x


def _normalise(x, mean, var):
    return (x - mean) * jax.lax.rsqrt(var + EPSILON)


def _kernel_init(preset, side):
    def init(key, shape):
        _, classes, inputs = shape
        if preset.weights == 'zeros':
            return jnp.zeros(shape)
        if preset.weights == 'gaussian':
            kernel = 0.01 * jax.random.normal(key, (classes, inputs))
        else:  # xavier: as for a convolution over the whole map
            squared_bound = 6 / (inputs + classes * side**2) if preset.weights == 'xavier' else 1 / inputs
            kernel = jax.random.uniform(key, (classes, inputs), minval=-1, maxval=1) * math.sqrt(squared_bound)
        return jnp.broadcast_to(kernel, shape)  # all rates start from the same weights

    return init


def _bias_init(preset, inputs):
    def init(key, shape):
        if preset.weights != 'torch':
            return jnp.zeros(shape)
        return jnp.broadcast_to(jax.random.uniform(key, shape[1:], minval=-1, maxval=1) / math.sqrt(inputs), shape)

    return init
