"""SAME 3x3 convolutions by Winograd's minimal filtering: fewer multiplications, all of them in large matrix products.

For a tile of 3x3 outputs, 25 products take the place of 81. The 5x5 inputs of a tile and the kernel are mapped to 25
points, multiplied at each, and mapped back. Channels are summed at the points, so that a point is one product over all
tiles. Source: Lavin and Gray 2016, arXiv 1509.09308; the maps are Toom and Cook's.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

TILE = 3  # side; in float32 the results' relative error is 8e-7, root mean square. Larger tiles lose more
POINTS = (0, 1, -1, 2)  # of polynomials of degree 4, beside infinity


def convolution(x: Float[Array, 'B H W C'], kernel: Float[Array, '3 3 C D']) -> Float[Array, 'B H W D']:
    """Equals `lax.conv_general_dilated`, SAME; TILE divides H and W."""
    return _outputs(jnp.einsum('pnc,pcd->pnd', _input_points(x), _times(KERNEL_TO_POINTS, kernel)), x.shape)


def input_gradient(gradient: Float[Array, 'B H W D'], kernel: Float[Array, '3 3 C D']) -> Float[Array, 'B H W C']:
    """Returns the gradient of x from that of the result."""
    points = _times(KERNEL_TO_POINTS[:, ::-1], kernel)  # as of the kernel turned round
    return _outputs(jnp.einsum('pnd,pcd->pnc', _input_points(gradient), points), gradient.shape)


def kernel_gradient(x: Float[Array, 'B H W C'], gradient: Float[Array, 'B H W D']) -> Float[Array, '3 3 C D']:
    """Returns the gradient of the kernel from that of the result."""
    points = _tile_points(POINTS_TO_OUTPUT.T, gradient)
    products = jnp.einsum('pnc,pnd->pcd', _input_points(x), points)
    return _times(KERNEL_TO_POINTS.T, products).reshape(3, 3, *products.shape[1:])


def _input_points(x):
    """Returns the points of all tiles of x, each with a border of one, [25, tiles, C]."""
    return _tile_points(INPUT_TO_POINTS, jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))


def _tile_points(matrix, x):
    """Returns the points of all tiles of x [B, H, W, C], [25, tiles, C], by a matrix [5, tile's side] on each axis."""
    (*_, height, width, channels), side = x.shape, matrix.shape[1]
    rows = sum(
        matrix[:, n].reshape(-1, 1, 1, 1, 1).astype(x.dtype) * x[None, :, n : height - side + n + 1 : TILE]
        for n in range(side)
    )
    rows = jax.lax.optimization_barrier(rows)  # or XLA would compute them again for every column
    points = [
        sum(float(w) * rows[:, :, :, n : width - side + n + 1 : TILE] for n, w in enumerate(weights) if w)
        for weights in matrix
    ]
    return jnp.stack(points, axis=1).reshape(matrix.shape[0] ** 2, -1, channels)


def _outputs(points, shape):
    """Returns what the points of all tiles, [25, tiles, D], say of images of a shape (B, H, W, ...): [B, H, W, D]."""
    batch, height, width, _ = shape
    tiles = _times(POINTS_TO_OUTPUT, points).reshape(TILE, TILE, batch, height // TILE, width // TILE, -1)
    return tiles.transpose(2, 3, 0, 4, 1, 5).reshape(batch, height, width, -1)


def _times(matrix, x):
    """Returns a matrix [P, N] on both of the leading axes of x, which are N * N entries of [C, D]: [P * P, C, D]."""
    *_, rows, columns = x.shape
    matrix = np.kron(matrix, matrix).astype(x.dtype)
    return (matrix @ x.reshape(matrix.shape[1], -1)).reshape(-1, rows, columns)


def _evaluation(terms):
    """Returns the matrix that evaluates a polynomial of so many terms at the points, infinity last."""
    return np.array([[point**n for n in range(terms)] for point in POINTS] + [[0] * (terms - 1) + [1]], float)


POINTS_TO_OUTPUT, KERNEL_TO_POINTS = _evaluation(TILE).T, _evaluation(3)
INPUT_TO_POINTS = np.linalg.inv(_evaluation(TILE + 2)).T
