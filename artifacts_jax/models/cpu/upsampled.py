"""A convolution of a bilinearly doubled map, as one product at its own resolution: a fast form for CPUs.

Doubling and shifting act on positions, the kernel's taps on channels: they commute.
"""

from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(x: Float[Array, 'B H W C'], kernel: Float[Array, '3 3 C D'], kind: str) -> Float[Array, 'B 2*H 2*W D']:
    """A SAME 3x3 convolution of the bilinearly doubled x.

    Equals `lax.conv_general_dilated(layers.upsample_bilinear(x, kind), kernel)` with a quarter of the multiplications.
    x is multiplied by the 9 taps at its own resolution, one product, and the 9 results are doubled, shifted and added.
    """
    batch, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))  # so that every position has two neighbours, of any weight
    taps = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    y = (padded.reshape(-1, channels) @ taps).reshape(batch, height + 2, width + 2, 3, 3, -1)
    weights = _doubling(height, kind)
    y = sum(
        weights[tap, :, n].T.reshape(1, height, 2, 1, 1, 1).astype(x.dtype) * y[:, n : n + height, None, :, tap]
        for tap, n in _used(weights, (1, 3))
    ).reshape(batch, 2 * height, width + 2, 3, -1)
    weights = _doubling(width, kind)
    return sum(
        weights[tap, :, n].T.reshape(1, 1, width, 2, 1).astype(x.dtype) * y[:, :, n : n + width, None, tap]
        for tap, n in _used(weights, (1, 3))
    ).reshape(batch, 2 * height, 2 * width, -1)


def _upsampled_forward(x, kernel, kind):
    return convolution(x, kernel, kind), (x, kernel)


def _upsampled_backward(kind, residuals, gradient):
    """The adjoint: the gradient is shifted back and halved for each of the 9 taps, then multiplied."""
    x, kernel = residuals
    batch, height, width, channels = x.shape
    gradient = jnp.pad(gradient, ((0, 0), (2, 2), (2, 2), (0, 0)))
    gradient = gradient.reshape(batch, height + 2, 2, width + 2, 2, -1)
    weights = [w.astype(x.dtype) for w in (_halving(height, kind), _halving(width, kind))]

    def halved_rows(tap):
        return sum(
            weights[0][tap, phase, n].reshape(1, height, 1, 1, 1) * gradient[:, n : n + height, phase]
            for phase, n in _used(weights[0][tap], (2,))
        )

    def halved_columns(rows, tap):
        return sum(
            weights[1][tap, phase, n].reshape(1, 1, width, 1) * rows[:, :, n : n + width, phase]
            for phase, n in _used(weights[1][tap], (2,))
        )

    x_gradient, kernel_gradient = 0, []
    for tap in range(3):  # by rows: a loop over one wide array of all 9 taps would divide for every element's index
        rows = halved_rows(tap)
        taps = jnp.stack([halved_columns(rows, column) for column in range(3)], axis=3).reshape(x.size // channels, -1)
        x_gradient += taps @ kernel[tap].swapaxes(1, 2).reshape(-1, channels)
        products = jnp.einsum('nc,nd->cd', x.reshape(-1, channels), taps)
        kernel_gradient.append(products.reshape(channels, 3, -1).swapaxes(0, 1))
    return x_gradient.reshape(x.shape), jnp.stack(kernel_gradient)


convolution.defvjp(_upsampled_forward, _upsampled_backward)


@lru_cache
def _doubling(size, kind):
    """Returns the weights of doubling an axis and shifting it by a tap, [3 taps, 2 phases, 3 neighbours, size].

    Position 2 * i + phase of the result adds weights[tap, phase, n, i] times entry i + n - 1 of each tap's product.
    """
    near_far = {'half_pixel': ((0.75, 0.25), (0.75, 0.25)), 'legacy': ((1.0, 0.0), (0.5, 0.5))}[kind]
    doubled, own = np.zeros((2 * size, size), np.float32), np.arange(size)
    for phase, (near, far) in enumerate(near_far):
        doubled[2 * own + phase, own] += near
        doubled[2 * own + phase, np.clip(own + 2 * phase - 1, 0, size - 1)] += far
    weights = np.zeros((3, 2, 3, size), np.float32)
    for tap in range(3):
        for to in range(
            max(0, 1 - tap), min(2 * size, 2 * size + 1 - tap)
        ):  # outside is the convolution's zero padding
            for of in np.flatnonzero(doubled[to + tap - 1]):
                weights[tap, to % 2, of - to // 2 + 1, to // 2] += doubled[to + tap - 1, of]
    return weights


@lru_cache
def _halving(size, kind):
    """Returns the transpose of `_doubling` in the same form, [3 taps, 2 phases, 3 neighbours, size]."""
    weights = np.zeros((3, 2, 3, size), np.float32)
    for tap, phase, n, to in zip(*np.nonzero(_doubling(size, kind))):
        of = to + n - 1
        weights[tap, phase, to - of + 1, of] = _doubling(size, kind)[tap, phase, n, to]
    return weights


def _used(weights, axes):
    """Returns the (first, last) indices over which some weight is not zero, of weights summed over other axes."""
    return list(zip(*np.nonzero(np.abs(weights).sum(axis=axes))))
