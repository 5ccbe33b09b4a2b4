"""Faster convolutions for CPUs: they and their gradients are computed as products of large matrices.

Each function equals the XLA function that its docstring names; tests compare both. On CPU, XLA's matrix products reach
twice the FLOP/s of its convolutions, and some functions here need fewer FLOPs. `config.convolutions` selects this
module (see architecture.py).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from artifacts_jax.models.cpu import winograd

FEW = 4  # up to this number of channels, XLA's convolutions are slow
BLOCK = 4  # columns in a block of _blocked_convolution
MICROBATCH = 16  # examples


@jax.custom_vjp
def matmul(x: Float[Array, 'N C'], kernel: Float[Array, 'C D']) -> Float[Array, 'N D']:
    """Returns x @ kernel.

    The gradient of the kernel has the memory layout of the kernel. The gradient of `jnp.matmul` is transposed in
    memory, which makes the optimiser 5 times slower.
    """
    return x @ kernel


def _matmul_forward(x, kernel):
    return matmul(x, kernel), (x, kernel)


def _matmul_backward(residuals, gradient):
    # The barriers keep transposes out of the products. Otherwise XLA would swap the operands or use a slower library.
    x, kernel = residuals
    if len(x) < len(kernel):  # then the transposed product is faster
        x_gradient = _barrier(jnp.einsum('nd,cd->cn', gradient, kernel)).T
    else:
        x_gradient = jnp.einsum('nd,cd->nc', gradient, kernel)
    return x_gradient, _barrier(x.T) @ gradient


_barrier = jax.lax.optimization_barrier

matmul.defvjp(_matmul_forward, _matmul_backward)


def dot_general(
    x: Float[Array, 'B ...'],
    kernel: Float[Array, '... D'],
    dimension_numbers: tuple,
    precision: jax.lax.PrecisionLike = None,
    **options,
) -> Float[Array, 'B D']:
    """Contracts all axes of x except the first with a kernel, like `lax.dot_general`; for `nn.DenseGeneral`."""
    del precision, options
    ((x_axes, kernel_axes), (x_batch, kernel_batch)) = dimension_numbers
    if x_batch or kernel_batch or x_axes != tuple(range(1, x.ndim)) or kernel_axes != tuple(range(kernel.ndim - 1)):
        expected = 'all axes of x except the first, and all axes of the kernel except the last'
        raise ValueError(f'dimension_numbers={dimension_numbers}: expected {expected}')
    return matmul(x.reshape(len(x), -1), kernel.reshape(-1, kernel.shape[-1]))


def convolve(
    x: Float[Array, 'B H W C'],
    kernel: Float[Array, 'k k C D'],
    strides: Sequence[int],
    padding: str | Sequence,
    *,
    constant: int = 0,
    **options,
) -> Float[Array, 'B _ _ D']:
    """Computes the convolution of `nn.Conv` by the fastest method for its shape; `constant` as in `convolution`."""
    size, stride = len(kernel), strides[0]
    if size > stride > 1:
        return strided_convolution(x, kernel, stride, padding)
    if padding == 'SAME' and size == stride:
        return patch_convolution(x, kernel)
    if padding == 'SAME' and stride == 1:
        return convolution(x, kernel, constant)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolution(
    x: Float[Array, 'B H W C'], kernel: Float[Array, 'k k C D'], constant: int = 0
) -> Float[Array, 'B H W D']:
    """Computes a SAME convolution; equals `lax.conv_general_dilated`.

    The last `constant` channels of x, such as a mask, get a gradient of zero. Without them, the number of channels of
    the other gradients is a multiple of the vector width.
    """
    if _by_winograd(x, kernel):
        return winograd.convolution(x, kernel)
    if kernel.shape[-1] <= FEW and x.shape[1] % 2 == x.shape[2] % 2 == 0:
        return _paired_convolution(x, kernel)
    if kernel.shape[2] <= FEW and x.shape[2] % BLOCK == 0:
        return _blocked_convolution(x, kernel)
    return _plain_convolution(x, kernel)


def _convolution_forward(x, kernel, constant):
    return convolution(x, kernel, constant), (x, kernel)


def _convolution_backward(constant, residuals, gradient):
    x, kernel = residuals
    trained = kernel[:, :, : kernel.shape[2] - constant]
    if _by_winograd(x, kernel):
        x_gradient = winograd.input_gradient(gradient, trained)
        kernel_gradient = winograd.kernel_gradient(x, gradient)
    else:
        if kernel.shape[-1] <= FEW and len(kernel) % 2:
            x_gradient = convolution(gradient, trained[::-1, ::-1].swapaxes(2, 3))
        else:
            (x_gradient,) = jax.vjp(lambda x: _plain_convolution(x, trained), x[..., : trained.shape[2]])[1](gradient)
        kernel_gradient = _plain_kernel_gradient(x, kernel, gradient)
    return jnp.pad(x_gradient, ((0, 0),) * 3 + ((0, constant),)), kernel_gradient


convolution.defvjp(_convolution_forward, _convolution_backward)


def _by_winograd(x, kernel):
    """Returns whether winograd.py supports a convolution and is faster. It is slower for few channels."""
    tiled = x.shape[1] % winograd.TILE == x.shape[2] % winograd.TILE == 0
    return kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= 64 and tiled


def _plain_convolution(x, kernel, stride=1, padding='SAME'):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=numbers)


def _plain_kernel_gradient(x, kernel, gradient):
    """Returns the gradient of the kernel of `_plain_convolution`, as a sum over microbatches.

    XLA transposes x such that the examples are the last axis. A large batch then exceeds the cache, because XLA reads
    one memory location for each example at the same time.
    """
    count = -(-len(x) // MICROBATCH)  # microbatch n has every count-th example, so that each device has a share of it
    vjps = [jax.vjp(partial(_plain_convolution, x[n::count]), kernel)[1] for n in range(count)]
    return sum(vjp(gradient[n::count])[0] for n, vjp in enumerate(vjps))


def _paired_convolution(x, kernel):
    """Computes a SAME convolution with few output channels as one with stride 2 and 4 times as many (2x2 positions)."""
    (size, _, _, channels), (batch, height, width, _) = kernel.shape, x.shape
    kernels = [
        jnp.pad(kernel, ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0))) for row in (0, 1) for column in (0, 1)
    ]
    padding = ((size - 1) // 2, size // 2)
    y = _plain_convolution(x, jnp.concatenate(kernels, axis=-1), 2, (padding, padding))
    y = y.reshape(batch, height // 2, width // 2, 2, 2, channels).swapaxes(2, 3)
    return y.reshape(batch, height, width, channels)


def _blocked_convolution(x, kernel):
    """Computes a SAME convolution with few input channels: the channels of BLOCK columns are stacked."""
    (size, _, channels, width), (batch, height, columns, _) = kernel.shape, x.shape
    before, blocks = (size - 1) // 2, -(-(BLOCK + size - 1) // BLOCK)  # number of input blocks for one output block
    x = jnp.pad(x, ((0, 0), (before, size // 2), (before, (blocks - 1) * BLOCK - before), (0, 0)))
    x = x.reshape(batch, height + size - 1, -1, BLOCK * channels)
    kernels = [jnp.pad(kernel, ((0, 0), (n, blocks * BLOCK - size - n), (0, 0), (0, 0))) for n in range(BLOCK)]
    kernel = jnp.stack(kernels, axis=3).reshape(size, blocks, BLOCK * channels, BLOCK * width)
    return _plain_convolution(x, kernel, padding='VALID').reshape(batch, height, columns, width)


@jax.custom_vjp
def patch_convolution(x: Float[Array, 'B H W C'], kernel: Float[Array, 'k k C D']) -> Float[Array, 'B H//k W//k D']:
    """Computes a convolution whose stride equals its kernel size.

    Equals `lax.conv_general_dilated` with strides (k, k); k must divide H and W. Only the gradients are faster: they
    are computed as gradients of a matrix product of the patches.
    """
    return _plain_convolution(x, kernel, len(kernel), 'VALID')


def _patch_product(x, kernel):
    size, (batch, height, width, channels) = len(kernel), x.shape
    patches = x.reshape(batch, height // size, size, width // size, size, channels).swapaxes(2, 3)
    y = matmul(patches.reshape(-1, size * size * channels), kernel.reshape(-1, kernel.shape[-1]))
    return y.reshape(batch, height // size, width // size, -1)


def _patch_forward(x, kernel):
    return patch_convolution(x, kernel), (x, kernel)


def _patch_backward(residuals, gradient):
    return jax.vjp(_patch_product, *residuals)[1](gradient)


patch_convolution.defvjp(_patch_forward, _patch_backward)


def strided_convolution(
    x: Float[Array, 'B H W C'], kernel: Float[Array, 'k k C D'], stride: int, padding: str | Sequence = 'SAME'
) -> Float[Array, 'B _ _ D']:
    """Computes a convolution with a stride; `padding` is 'SAME' or ((above, below), (left, right)).

    Equals `lax.conv_general_dilated`; k must be at least the stride. Blocks of stride x stride positions become
    channels of a convolution with stride 1. XLA's gradient of a strided convolution of 3 channels is 10 times slower.
    """
    size, (batch, *_, channels) = len(kernel), x.shape
    blocks = -(-size // stride)  # blocks that the kernel covers, after padding it with zeros at its end
    if isinstance(padding, str):
        outputs = [-(-length // stride) for length in x.shape[1:3]]
        before = [max((n - 1) * stride + size - length, 0) // 2 for n, length in zip(outputs, x.shape[1:3])]
    else:
        outputs = [(length + sum(sides) - size) // stride + 1 for length, sides in zip(x.shape[1:3], padding)]
        before = [sides[0] for sides in padding]
    after = [(n + blocks - 1) * stride - length - b for n, length, b in zip(outputs, x.shape[1:3], before)]
    edges: list = [
        (0, 0, 0),
        *((b, a, 0) for b, a in zip(before, after)),
        (0, 0, 0),
    ]  # negative for rows that no window covers
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
    x = x.reshape(batch, x.shape[1] // stride, stride, x.shape[2] // stride, stride, channels).swapaxes(2, 3)
    kernel = jnp.pad(kernel, ((0, blocks * stride - size),) * 2 + ((0, 0),) * 2)
    kernel = kernel.reshape(blocks, stride, blocks, stride, channels, -1).swapaxes(1, 2)
    kernel = kernel.reshape(blocks, blocks, -1, kernel.shape[-1])
    return _plain_convolution(x.reshape(*x.shape[:3], -1), kernel, padding='VALID')
