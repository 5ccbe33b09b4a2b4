"""Fast forms for CPUs: convolutions as products of large matrices, with gradients that are such products too.

Each equals a plain form, named in its docstring, against which it is tested. XLA multiplies large matrices on CPU at
twice the rate of its convolutions, and some of these forms need fewer operations. `architecture` picks them by
`config.convolutions`.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from artifacts_jax.models.cpu import winograd

FEW = 4  # channels, for which XLA's convolutions are slow
BLOCK = 4  # columns
PART = 16  # examples


@jax.custom_vjp
def matmul(x: Float[Array, 'N C'], kernel: Float[Array, 'C D']) -> Float[Array, 'N D']:
    """Returns x @ kernel.

    The gradient of the kernel comes out in the kernel's own layout. That of `jnp.matmul` comes out transposed, and an
    optimiser that reads it so runs 5 times slower.
    """
    return x @ kernel


def _matmul_forward(x, kernel):
    return matmul(x, kernel), (x, kernel)


def _matmul_backward(residuals, gradient):
    # Were a transpose part of a product, XLA would turn that round, or not give it to its fastest library.
    x, kernel = residuals
    if len(x) < len(kernel):  # then this is the faster way round
        x_gradient = _kept(jnp.einsum('nd,cd->cn', gradient, kernel)).T
    else:
        x_gradient = jnp.einsum('nd,cd->nc', gradient, kernel)
    return x_gradient, _kept(x.T) @ gradient


_kept = jax.lax.optimization_barrier

matmul.defvjp(_matmul_forward, _matmul_backward)


def dot_general(
    x: Float[Array, 'B ...'],
    kernel: Float[Array, '... D'],
    dimension_numbers: tuple,
    precision: jax.lax.PrecisionLike = None,
    **options,
) -> Float[Array, 'B D']:
    """Multiplies all axes of x but the first with a kernel, as `lax.dot_general`; for `nn.DenseGeneral`."""
    del precision, options
    ((x_axes, kernel_axes), (x_batch, kernel_batch)) = dimension_numbers
    if x_batch or kernel_batch or x_axes != tuple(range(1, x.ndim)) or kernel_axes != tuple(range(kernel.ndim - 1)):
        raise ValueError(f'{dimension_numbers}: expected all axes of x but the first, and of the kernel but the last')
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
    """The convolution of `nn.Conv` by the form that is fastest for its shape; see `convolution`."""
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
    """A SAME convolution.

    Equals `lax.conv_general_dilated`. The last `constant` channels of x, such as a mask, get a gradient of zero; that
    of the others then has a number of channels that vectors divide.
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
    variable = kernel[:, :, : kernel.shape[2] - constant]
    if _by_winograd(x, kernel):
        x_gradient = winograd.input_gradient(gradient, variable)
        kernel_gradient = winograd.kernel_gradient(x, gradient)
    else:
        if kernel.shape[-1] <= FEW and len(kernel) % 2:
            x_gradient = convolution(gradient, variable[::-1, ::-1].swapaxes(2, 3))
        else:
            (x_gradient,) = jax.vjp(lambda x: _plain_convolution(x, variable), x[..., : variable.shape[2]])[1](gradient)
        kernel_gradient = _plain_kernel_gradient(x, kernel, gradient)
    return jnp.pad(x_gradient, ((0, 0),) * 3 + ((0, constant),)), kernel_gradient


convolution.defvjp(_convolution_forward, _convolution_backward)


def _by_winograd(x, kernel):
    """Returns whether winograd.py can do a convolution, and faster: with fewer channels, its maps cost too much."""
    tiled = x.shape[1] % winograd.TILE == x.shape[2] % winograd.TILE == 0
    return kernel.shape[:2] == (3, 3) and min(kernel.shape[2:]) >= 64 and tiled


def _plain_convolution(x, kernel, stride=1, padding='SAME'):
    numbers = ('NHWC', 'HWIO', 'NHWC')
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=numbers)


def _plain_kernel_gradient(x, kernel, gradient):
    """Returns the gradient of `_plain_convolution`'s kernel, as a sum over parts of the batch.

    XLA transposes x such that examples come last. It reads as many places in memory at once, too many for a cache.
    """
    parts = -(-len(x) // PART)  # of every part-th example, so that each device has some of every part
    pulls = [jax.vjp(partial(_plain_convolution, x[n::parts]), kernel)[1] for n in range(parts)]
    return sum(pull(gradient[n::parts])[0] for n, pull in enumerate(pulls))


def _paired_convolution(x, kernel):
    """A SAME convolution to few channels, such as colours: 2x2 outputs are the channels of one, with stride 2."""
    (size, _, _, channels), (batch, height, width, _) = kernel.shape, x.shape
    kernels = [
        jnp.pad(kernel, ((row, 1 - row), (column, 1 - column), (0, 0), (0, 0))) for row in (0, 1) for column in (0, 1)
    ]
    padding = ((size - 1) // 2, size // 2)
    y = _plain_convolution(x, jnp.concatenate(kernels, axis=-1), 2, (padding, padding))
    y = y.reshape(batch, height // 2, width // 2, 2, 2, channels).swapaxes(2, 3)
    return y.reshape(batch, height, width, channels)


def _blocked_convolution(x, kernel):
    """A SAME convolution of few channels, such as colours: those of BLOCK columns are the channels of one."""
    (size, _, channels, width), (batch, height, columns, _) = kernel.shape, x.shape
    before, blocks = (size - 1) // 2, -(-(BLOCK + size - 1) // BLOCK)  # of which a block of results depends
    x = jnp.pad(x, ((0, 0), (before, size // 2), (before, (blocks - 1) * BLOCK - before), (0, 0)))
    x = x.reshape(batch, height + size - 1, -1, BLOCK * channels)
    kernels = [jnp.pad(kernel, ((0, 0), (n, blocks * BLOCK - size - n), (0, 0), (0, 0))) for n in range(BLOCK)]
    kernel = jnp.stack(kernels, axis=3).reshape(size, blocks, BLOCK * channels, BLOCK * width)
    return _plain_convolution(x, kernel, padding='VALID').reshape(batch, height, columns, width)


@jax.custom_vjp
def patch_convolution(x: Float[Array, 'B H W C'], kernel: Float[Array, 'k k C D']) -> Float[Array, 'B H//k W//k D']:
    """A convolution whose stride is its kernel's size.

    Equals `lax.conv_general_dilated` with strides (k, k); k divides H and W. Only its gradients are faster: as those of
    a product of the patches.
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
    """A convolution with a stride; `padding` is 'SAME' or ((above, below), (left, right)).

    Equals `lax.conv_general_dilated`, as a convolution of blocks of stride x stride positions, which are its channels:
    three of colour are too few for XLA, whose gradient of a strided convolution is 10 times slower. Here k >= stride.
    """
    size, (batch, *_, channels) = len(kernel), x.shape
    blocks = -(-size // stride)  # in the kernel, which gets zeros at its end
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
    ]  # of rows that no window sees, negative
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
    x = x.reshape(batch, x.shape[1] // stride, stride, x.shape[2] // stride, stride, channels).swapaxes(2, 3)
    kernel = jnp.pad(kernel, ((0, blocks * stride - size),) * 2 + ((0, 0),) * 2)
    kernel = kernel.reshape(blocks, stride, blocks, stride, channels, -1).swapaxes(1, 2)
    kernel = kernel.reshape(blocks, blocks, -1, kernel.shape[-1])
    return _plain_convolution(x.reshape(*x.shape[:3], -1), kernel, padding='VALID')
