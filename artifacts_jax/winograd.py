"""SAME 3x3 convolutions by Winograd's minimal filtering: fewer multiplications, all of them in large matrix products.

For a tile of 3x3 outputs, 25 products take the place of 81. The 5x5 inputs of a tile and the kernel are mapped to 25
points, multiplied at each, and mapped back. Channels are summed at the points, so that a point is one product over all
tiles. Source: Lavin and Gray 2016, arXiv 1509.09308; the maps are Toom and Cook's.
"""

import jax.numpy as jnp
import numpy as np

TILE = 3  # side; in float32 the results' relative error is 8e-7, root mean square. Larger tiles lose more
POINTS = (0, 1, -1, 2)  # of polynomials of degree 4, beside infinity


def convolution(x, kernel):
    """Equals `lax.conv_general_dilated`, SAME: [B, H, W, C], [3, 3, C, D] -> [B, H, W, D]; TILE divides H and W."""
    return _outputs(jnp.einsum('pnc,pcd->pnd', _input_points(x), _times(KERNEL_TO_POINTS, kernel)), x.shape)


def input_gradient(gradient, kernel):
    """Returns the gradient of x, [B, H, W, C], from that of the result, [B, H, W, D]."""
    points = _times(KERNEL_TO_POINTS, kernel[::-1, ::-1])
    return _outputs(jnp.einsum('pnd,pcd->pnc', _input_points(gradient), points), gradient.shape)


def kernel_gradient(x, gradient):
    """Returns the gradient of the kernel, [3, 3, C, D], from that of the result, [B, H, W, D]."""
    batch, height, width, channels = gradient.shape
    tiles = gradient.reshape(batch, height // TILE, TILE, width // TILE, TILE, channels).transpose(2, 4, 0, 1, 3, 5)
    points = _times(POINTS_TO_OUTPUT.T, tiles.reshape(TILE**2, -1, channels))
    products = jnp.einsum('pnc,pnd->pcd', _input_points(x), points)
    return _times(KERNEL_TO_POINTS.T, products).reshape(3, 3, -1, channels)


def _input_points(x):
    """Returns the points of all tiles of x, each with a border of one, [25, tiles, C]."""
    _, height, width, channels = x.shape
    x, side = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), range(TILE + 2)
    tiles = jnp.stack([x[:, row : row + height : TILE, col : col + width : TILE] for row in side for col in side])
    return _times(INPUT_TO_POINTS, tiles.reshape(len(tiles), -1, channels))


def _outputs(points, shape):
    """Returns what the points of all tiles, [25, tiles, D], say of images of a shape (B, H, W, ...): [B, H, W, D]."""
    batch, height, width, _ = shape
    tiles = _times(POINTS_TO_OUTPUT, points).reshape(TILE, TILE, batch, height // TILE, width // TILE, -1)
    return tiles.transpose(2, 3, 0, 4, 1, 5).reshape(batch, height, width, -1)


def _times(matrix, x):
    """Returns a matrix [P, N] times the leading axes of x, N entries of [C, D]: [P, C, D]."""
    *_, rows, columns = x.shape
    return (matrix.astype(x.dtype) @ x.reshape(matrix.shape[1], -1)).reshape(-1, rows, columns)


def _evaluation(terms):
    """Returns the matrix that evaluates a polynomial of so many terms at the points, infinity last."""
    return np.array([[point**n for n in range(terms)] for point in POINTS] + [[0] * (terms - 1) + [1]], float)


POINTS_TO_OUTPUT, KERNEL_TO_POINTS, INPUT_TO_POINTS = (  # on both axes of a tile at once
    np.kron(matrix, matrix) for matrix in (_evaluation(TILE).T, _evaluation(3), np.linalg.inv(_evaluation(TILE + 2)).T)
)
