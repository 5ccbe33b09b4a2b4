"""Bilinear upsampling followed by a convolution, computed as one matrix product at the low resolution, for CPUs.

Upsampling and shifting act on positions. The taps of the kernel act on channels. Therefore their order can be swapped.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: Float[Array, 'B H W C'], kernel: Float[Array, '3 3 C D'], kind: str) -> Float[Array, 'B 2*H 2*W D']:
    """Computes a SAME 3x3 convolution of the bilinearly upsampled x.

    Equals `lax.conv_general_dilated(layers.upsample_bilinear(x, kind), kernel)` with a quarter of the multiplications:
    one matrix product multiplies x by the 9 taps at the low resolution. The 9 results are upsampled, shifted and added.
    """
    batch, height, width, channels = x.shape
    padded = jnp.pad(
        x, ((0, 0), (1, 1), (1, 1), (0, 0))
    )  # so that every position has two neighbours; their weight may be 0
    taps = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    y = (padded.reshape(-1, channels) @ taps).reshape(batch, height + 2, width + 2, 3, 3, -1)
    weights = _upsampling_weights(height, kind)
    y = sum(
        weights[tap, :, n].T.reshape(1, height, 2, 1, 1, 1).astype(x.dtype) * y[:, n : n + height, None, :, tap]
        for tap, n in _nonzero_indices(weights, (1, 3))
    ).reshape(batch, 2 * height, width + 2, 3, -1)
    weights = _upsampling_weights(width, kind)
    return sum(
        weights[tap, :, n].T.reshape(1, 1, width, 2, 1).astype(x.dtype) * y[:, :, n : n + width, None, tap]
        for tap, n in _nonzero_indices(weights, (1, 3))
    ).reshape(batch, 2 * height, 2 * width, -1)


def _upsampled_forward(x, kernel, kind):
    return convolution(x, kernel, kind), (x, kernel)


def _upsampled_backward(kind, residuals, gradient):
    """Computes the adjoint: for each of the 9 taps, shifts and downsamples the gradient, then multiplies it."""
    x, kernel = residuals
    batch, height, width, channels = x.shape
    gradient = jnp.pad(gradient, ((0, 0), (2, 2), (2, 2), (0, 0)))
    gradient = gradient.reshape(batch, height + 2, 2, width + 2, 2, -1)
    weights = [w.astype(x.dtype) for w in (_downsampling_weights(height, kind), _downsampling_weights(width, kind))]

    def downsample_rows(tap):
        return sum(
            weights[0][tap, phase, n].reshape(1, height, 1, 1, 1) * gradient[:, n : n + height, phase]
            for phase, n in _nonzero_indices(weights[0][tap], (2,))
        )

    def downsample_columns(rows, tap):
        return sum(
            weights[1][tap, phase, n].reshape(1, 1, width, 1) * rows[:, :, n : n + width, phase]
            for phase, n in _nonzero_indices(weights[1][tap], (2,))
        )

    x_gradient, kernel_gradient = 0, []
    for tap in range(
        3
    ):  # row by row: a loop over one array of all 9 taps would need an integer division for each element
        rows = downsample_rows(tap)
        taps = jnp.stack([downsample_columns(rows, column) for column in range(3)], axis=3).reshape(
            x.size // channels, -1
        )
        x_gradient += taps @ kernel[tap].swapaxes(1, 2).reshape(-1, channels)
        products = jnp.einsum('nc,nd->cd', x.reshape(-1, channels), taps)
        kernel_gradient.append(products.reshape(channels, 3, -1).swapaxes(0, 1))
    return x_gradient.reshape(x.shape), jnp.stack(kernel_gradient)


convolution.defvjp(_upsampled_forward, _upsampled_backward)


@lru_cache
def _upsampling_weights(size, kind):
    """Returns the weights of upsampling an axis by 2 and shifting it by a tap, [3 taps, 2 phases, 3 neighbours, size].

    Position 2 * i + phase of the result is the sum of weights[tap, phase, n, i] * (entry i + n - 1 of a tap's product).
    """
    near_far = {'half_pixel': ((0.75, 0.25), (0.75, 0.25)), 'legacy': ((1.0, 0.0), (0.5, 0.5))}[kind]
    matrix, index = np.zeros((2 * size, size), np.float32), np.arange(size)
    for phase, (near, far) in enumerate(near_far):
        matrix[2 * index + phase, index] += near
        matrix[2 * index + phase, np.clip(index + 2 * phase - 1, 0, size - 1)] += far
    weights = np.zeros((3, 2, 3, size), np.float32)
    for tap in range(3):
        # Positions outside of this range are the zero padding of the convolution.
        for target in range(max(0, 1 - tap), min(2 * size, 2 * size + 1 - tap)):
            for source in np.flatnonzero(matrix[target + tap - 1]):
                weights[tap, target % 2, source - target // 2 + 1, target // 2] += matrix[target + tap - 1, source]
    return weights


@lru_cache
def _downsampling_weights(size, kind):
    """Returns the transpose of `_upsampling_weights` with the same shape, [3 taps, 2 phases, 3 neighbours, size]."""
    weights = np.zeros((3, 2, 3, size), np.float32)
    for tap, phase, n, target in zip(*np.nonzero(_upsampling_weights(size, kind))):
        source = target + n - 1
        weights[tap, phase, target - source + 1, source] = _upsampling_weights(size, kind)[tap, phase, n, target]
    return weights


def _nonzero_indices(weights, axes):
    """Returns the index tuples for which the absolute weights, summed over `axes`, are not zero."""
    return list(zip(*np.nonzero(np.abs(weights).sum(axis=axes))))
