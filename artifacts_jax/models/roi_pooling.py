"""Max pooling of regions of interest: whatever their size, each becomes a grid of as many bins.

A region's edges, in pixels, are scaled to cells of the features and rounded, halves away from zero; both cells belong
to it, and it has at least one. Bin p of P spans, of its L cells, those from floor(p L / P) up to ceil((p + 1) L / P),
so that bins may share cells. What is outside the features is left out, and a bin without cells is 0. Caffe computes the
bins' edges in floats, which for sizes such as 6, sums of two powers of two, comes to the same.

Source: caffe-fast-rcnn, src/caffe/layers/roi_pooling_layer.cpp.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32

SIZE = 6  # bins in a row
SCALE = 1 / 16  # cells to a pixel
WIDTHS = (1, 2, 4)  # of windows, cells
FARTHEST = 2**20  # cell: an edge that is farther away counts as there


def pool(
    features: Float[Array, 'B H W C'],
    boxes: Float[Array, 'B N 4'],
    valid: Bool[Array, 'B N'],
    *,
    size: int = SIZE,
    scale: float = SCALE,
) -> Float[Array, 'B N {size} {size} C']:
    """Returns the largest value in each bin. Its gradient goes to the first cell, row by row, that has it.

    Boxes get no gradient. The time grows with the cells of the largest bin that lies in the features.

    Args:
      features: whose cell 0 is centred at pixel 0.
      boxes: regions of each image, as of boxes.py, in pixels of the image that the features are of.
      valid: False for what pads the boxes, whose bins are 0.
      size: bins in a row, and in a column.
      scale: cells to a pixel.
    """
    limits = features.shape[2], features.shape[1]
    cells = _rounded(boxes * scale)
    columns, rows = (_edges(cells[..., n], cells[..., n + 2], valid, size, limits[n]) for n in (0, 1))
    return _pooled(features, columns, rows)


def _rounded(x):
    whole = jnp.trunc(x)
    away = jnp.where(jnp.abs(x - whole) >= 0.5, jnp.sign(x), 0.0)  # the difference is exact, which x + 0.5 is not
    return jnp.clip(whole + away, -FARTHEST, FARTHEST).astype(jnp.int32)


def _edges(first: Int32[Array, 'B N'], last: Int32[Array, 'B N'], valid, size, limit):
    """Returns the first cell of each bin along an axis and the one after its last, [B, N, size] each."""
    length = jnp.maximum(last - first + 1, 1)[..., None]
    bins = jnp.arange(size)[None, None]
    start, end = (bins * length) // size, -(-(bins + 1) * length // size)
    start, end = (jnp.clip(first[..., None] + edge, 0, limit) for edge in (start, end))
    return start, jnp.where(valid[..., None], end, start)


@jax.custom_vjp
def _pooled(features, columns, rows):
    # All boxes at once look at a cell of each of their bins, and then at the next one; windows of several columns make
    # that fewer. A table for windows of any size would take longer to make than it saves.
    size, length = features.shape[1] * features.shape[2], columns[1] - columns[0]
    level = sum((length >= width).astype(jnp.int32) for width in WIDTHS[1:])
    tables = [features]
    for width in WIDTHS[:-1]:
        # No window is looked at that wraps around.
        tables.append(jnp.maximum(tables[-1], jnp.roll(tables[-1], -width, axis=2)))
    count, cells = _steps(features.shape, columns, rows, jnp.array(WIDTHS)[level])
    look = _looked_at(jnp.stack(tables, axis=1))

    def step(k, best):
        return jnp.maximum(best, look(level[:, :, None] * size + cells(k)))

    lowest = jnp.full((*_empty(columns, rows).shape[:-1], features.shape[-1]), -jnp.inf, features.dtype)
    return jnp.where(_empty(columns, rows), 0, jax.lax.fori_loop(0, count, step, lowest))


def _forward(features, columns, rows):
    best = _pooled(features, columns, rows)
    return best, (features, columns, rows, best)


def _backward(saved, gradient):
    features, columns, rows, best = saved
    shape, size = features.shape[1:], features.shape[1] * features.shape[2]
    count, cells = _steps(features.shape, columns, rows, 1)
    look = _looked_at(features)

    # On CPU, to keep the value and its cell in one loop takes several times as long.
    def step(k, first):
        cell = cells(k)
        return jnp.minimum(first, jnp.where(look(cell) == best, cell[..., None], size))

    cell = jax.lax.fori_loop(0, count, step, jnp.full(best.shape, size, jnp.int32))
    cell = jnp.where(_empty(columns, rows), size, cell)
    place = cell * shape[-1] + jnp.arange(shape[-1]).reshape(1, 1, 1, 1, -1)
    dtype = jnp.promote_types(gradient.dtype, jnp.float32)

    def scatter(place, gradient):
        zeros = jnp.zeros(size * shape[-1], dtype)
        return zeros.at[place.reshape(-1)].add(gradient.reshape(-1).astype(dtype), mode='drop').reshape(shape)

    return jax.vmap(scatter)(place, gradient).astype(features.dtype), None, None


_pooled.defvjp(_forward, _backward)


def _steps(shape, columns, rows, width):
    """Returns how many steps it takes to look at all cells of all bins, and cells(k) [B, N, size, size], row by row."""
    (left, right), (top, bottom) = columns, rows
    across = (-(-(right - left) // width)).max(initial=0)
    down = (bottom - top).max(initial=0)

    def cells(k):
        # A bin that has no more cells looks at its last one again, and an empty one at any.
        y = jnp.clip(jnp.minimum(top + k // across, bottom - 1), 0, shape[1] - 1)
        x = jnp.clip(jnp.minimum(left + k % across * width, right - width), 0, shape[2] - 1)
        # XLA would otherwise compute it anew for each channel.
        return jax.lax.optimization_barrier(y[..., :, None] * shape[2] + x[..., None, :])

    return across * down, cells


def _looked_at(features):
    """Returns look(cells [B, ...]), which gives their features; an image's own, so that it stays on its device."""
    flat = features.reshape(len(features), -1, features.shape[-1])
    each = jax.vmap(lambda image, cells: image.at[cells].get(mode='promise_in_bounds'))
    return lambda cells: each(flat, cells)


def _empty(columns, rows):
    (left, right), (top, bottom) = columns, rows
    return ((bottom <= top)[..., :, None] | (right <= left)[..., None, :])[..., None]
