"""RoI max pooling: each region of interest, of any size, becomes a grid with a fixed number of bins.

The corners of a region are scaled from pixels to positions ("cells") of the feature map and rounded, halves away from
zero. Both corner cells belong to the region, so it has at least one cell. If a region has L cells along an axis, bin p
of P covers the cells from floor(p L / P) to ceil((p + 1) L / P) - 1; neighbouring bins can share cells. Cells outside
the feature map are ignored. A bin without cells is 0. Caffe computes the bin edges in floats; for sizes such as 6, sums
of two powers of two, the result is the same.

Source: caffe-fast-rcnn, src/caffe/layers/roi_pooling_layer.cpp.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

SIZE = 6  # bins along an axis
SCALE = 1 / 16  # cells per pixel
WIDTHS = (1, 2, 4)  # widths of windows, in cells
MAX_CELL = 2**20  # cell indices are clipped to this magnitude


def pool(
    features: Float[Array, 'B H W C'],
    boxes: Float[Array, 'B N 4'],
    valid: Bool[Array, 'B N'],
    *,
    size: int = SIZE,
    scale: float = SCALE,
) -> Float[Array, 'B N {size} {size} C']:
    """Returns the maximum of each bin. Its gradient goes to the first cell with this value, in row-major order.

    Boxes get no gradient. The run time grows with the number of cells of the largest bin inside the feature map.

    Args:
      features: feature maps; cell 0 is centred at pixel 0.
      boxes: regions of each image, in the format of boxes.py, in pixels of the image.
      valid: False for padding of the boxes; its bins are 0.
      size: bins along both axes.
      scale: cells per pixel.
    """
    limits = features.shape[2], features.shape[1]
    cells = _round_half_away(boxes * scale)
    columns, rows = (_edges(cells[..., n], cells[..., n + 2], valid, size, limits[n]) for n in (0, 1))
    return _pool(features, columns, rows)


def _round_half_away(x):
    whole = jnp.trunc(x)
    away = jnp.where(jnp.abs(x - whole) >= 0.5, jnp.sign(x), 0.0)  # the difference is exact, which x + 0.5 is not
    return jnp.clip(whole + away, -MAX_CELL, MAX_CELL).astype(jnp.int32)


def _edges(first: Int32[Array, 'B N'], last: Int32[Array, 'B N'], valid, size, limit):
    """Returns (first cell, last cell + 1) of each bin along an axis, [B, N, size] each."""
    length = jnp.maximum(last - first + 1, 1)[..., None]
    bins = jnp.arange(size)[None, None]
    start, end = (bins * length) // size, -(-(bins + 1) * length // size)
    start, end = (jnp.clip(first[..., None] + edge, 0, limit) for edge in (start, end))
    return start, jnp.where(valid[..., None], end, start)


@jax.custom_vjp
def _pool(features, columns, rows):
    # Each iteration reads one cell of every bin of every box. Tables of maxima over windows of 2 and 4 columns reduce
    # the number of iterations. Tables for all window sizes would take longer to compute than they save.
    size, length = features.shape[1] * features.shape[2], columns[1] - columns[0]
    level = sum((length >= width).astype(jnp.int32) for width in WIDTHS[1:])
    tables = [features]
    for width in WIDTHS[:-1]:
        # jnp.roll wraps around, but the windows that wrap around are never read.
        tables.append(jnp.maximum(tables[-1], jnp.roll(tables[-1], -width, axis=2)))
    count, cells = _iterations(features.shape, columns, rows, jnp.array(WIDTHS)[level])
    read_cells = _make_reader(jnp.stack(tables, axis=1))

    def step(k, best):
        return jnp.maximum(best, read_cells(level[:, :, None] * size + cells(k)))

    lowest = jnp.full((*_is_empty(columns, rows).shape[:-1], features.shape[-1]), -jnp.inf, features.dtype)
    return jnp.where(_is_empty(columns, rows), 0, jax.lax.fori_loop(0, count, step, lowest))


def _forward(features, columns, rows):
    best = _pool(features, columns, rows)
    return best, (features, columns, rows, best)


def _backward(saved, gradient):
    features, columns, rows, best = saved
    shape, size = features.shape[1:], features.shape[1] * features.shape[2]
    count, cells = _iterations(features.shape, columns, rows, 1)
    read_cells = _make_reader(features)

    # A second loop finds the cells: on CPU, one loop over both the value and its cell takes several times as long.
    def step(k, first):
        cell = cells(k)
        return jnp.minimum(first, jnp.where(read_cells(cell) == best, cell[..., None], size))

    cell = jax.lax.fori_loop(0, count, step, jnp.full(best.shape, size, jnp.int32))
    cell = jnp.where(_is_empty(columns, rows), size, cell)
    index = cell * shape[-1] + jnp.arange(shape[-1]).reshape(1, 1, 1, 1, -1)
    dtype = jnp.promote_types(gradient.dtype, jnp.float32)

    def scatter(index, gradient):
        zeros = jnp.zeros(size * shape[-1], dtype)
        return zeros.at[index.reshape(-1)].add(gradient.reshape(-1).astype(dtype), mode='drop').reshape(shape)

    return jax.vmap(scatter)(index, gradient).astype(features.dtype), None, None


_pool.defvjp(_forward, _backward)


def _iterations(shape, columns, rows, width):
    """Returns (iterations that read all cells of all bins, function k -> cells of iteration k, [B, N, size, size])."""
    (left, right), (top, bottom) = columns, rows
    across = (-(-(right - left) // width)).max(initial=0)
    down = (bottom - top).max(initial=0)

    def cells(k):
        # A bin without further cells reads its last cell again. An empty bin reads any cell; its result is ignored.
        y = jnp.clip(jnp.minimum(top + k // across, bottom - 1), 0, shape[1] - 1)
        x = jnp.clip(jnp.minimum(left + k % across * width, right - width), 0, shape[2] - 1)
        # Without the barrier, XLA would compute the indices again for each channel.
        return jax.lax.optimization_barrier(y[..., :, None] * shape[2] + x[..., None, :])

    return across * down, cells


def _make_reader(features):
    """Returns a function that reads the features at cells [B, ...]; each image reads only its own, on its device."""
    flat = features.reshape(len(features), -1, features.shape[-1])
    read_each = jax.vmap(lambda image, cells: image.at[cells].get(mode='promise_in_bounds'))
    return lambda cells: read_each(flat, cells)


def _is_empty(columns, rows):
    (left, right), (top, bottom) = columns, rows
    return ((bottom <= top)[..., :, None] | (right <= left)[..., None, :])[..., None]
