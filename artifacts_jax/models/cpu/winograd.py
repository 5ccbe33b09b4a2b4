"""SAME 3x3 convolutions by Winograd's minimal filtering: fewer multiplications, all of them in large matrix products.

A tile of 3x3 outputs needs 25 multiplications instead of 81. The 5x5 inputs of a tile and the kernel are transformed to
25 points and multiplied point by point; the products are transformed back. Channels are summed at the points, so each
point is one matrix product over all tiles. Source: Lavin and Gray 2016, arXiv 1509.09308; the transforms are those of
Toom and Cook.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TILE = 3  # side; the relative RMS error in float32 is 8e-7. Larger tiles are less accurate
POINTS = (0, 1, -1, 2)  # evaluation points of polynomials of degree 4, in addition to infinity


def convolution(x: Float[Array, 'B H W C'], kernel: Float[Array, '3 3 C D']) -> Float[Array, 'B H W D']:
    """Computes a SAME convolution; equals `lax.conv_general_dilated`. TILE must divide H and W."""
    return _outputs(jnp.einsum('pnc,pcd->pnd', _input_points(x), _transform(KERNEL_TO_POINTS, kernel)), x.shape)


def input_gradient(gradient: Float[Array, 'B H W D'], kernel: Float[Array, '3 3 C D']) -> Float[Array, 'B H W C']:
    """Returns the gradient with respect to x; `gradient` is that of the output."""
    points = _transform(KERNEL_TO_POINTS[:, ::-1], kernel)  # of the kernel rotated by 180 degrees
    return _outputs(jnp.einsum('pnd,pcd->pnc', _input_points(gradient), points), gradient.shape)


def kernel_gradient(x: Float[Array, 'B H W C'], gradient: Float[Array, 'B H W D']) -> Float[Array, '3 3 C D']:
    """Returns the gradient with respect to the kernel; `gradient` is that of the output."""
    points = _tile_points(POINTS_TO_OUTPUT.T, gradient)
    products = jnp.einsum('pnc,pnd->pcd', _input_points(x), points)
    return _transform(KERNEL_TO_POINTS.T, products).reshape(3, 3, *products.shape[1:])


def _input_points(x):
    """Returns the points of all tiles of x, including a border of one position, [25, tiles, C]."""
    return _tile_points(INPUT_TO_POINTS, jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _tile_points(matrix, x):
    """Returns the points of all tiles of x, [25, tiles, C]; a matrix [5, side of the tile] transforms each axis."""
    (*_, height, width, channels), side = x.shape, matrix.shape[1]
    rows = sum(
        matrix[:, n].reshape(-1, 1, 1, 1, 1).astype(x.dtype) * x[None, :, n : height - side + n + 1 : TILE]
        for n in range(side)
    )
    rows = jax.lax.optimization_barrier(rows)  # without it, XLA would compute the rows again for every column
    points = [
        sum(float(w) * rows[:, :, :, n : width - side + n + 1 : TILE] for n, w in enumerate(weights) if w)
        for weights in matrix
    ]
    return jnp.stack(points, axis=1).reshape(matrix.shape[0] ** 2, -1, channels)


def _outputs(points, shape):
    """Transforms the points of all tiles, [25, tiles, D], back to [B, H, W, D]; `shape` is (B, H, W, ...)."""
    batch, height, width, _ = shape
    tiles = _transform(POINTS_TO_OUTPUT, points).reshape(TILE, TILE, batch, height // TILE, width // TILE, -1)
    return tiles.transpose(2, 3, 0, 4, 1, 5).reshape(batch, height, width, -1)


def _transform(matrix, x):
    """Applies a matrix [P, N] to both leading axes of x, N * N entries of [C, D]; returns [P * P, C, D]."""
    *_, rows, columns = x.shape
    matrix = np.kron(matrix, matrix).astype(x.dtype)
    return (matrix @ x.reshape(matrix.shape[1], -1)).reshape(-1, rows, columns)


def _evaluation(terms):
    """Returns the matrix that evaluates a polynomial with this number of terms at the points, infinity last."""
    return np.array([[point**n for n in range(terms)] for point in POINTS] + [[0] * (terms - 1) + [1]], float)


POINTS_TO_OUTPUT, KERNEL_TO_POINTS = _evaluation(TILE).T, _evaluation(3)
INPUT_TO_POINTS = np.linalg.inv(_evaluation(TILE + 2)).T
