"""Operations of an optimiser, written such that XLA on CPU updates arrays in place instead of copying them first.

The values are those of the plain expressions on every device.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def wait_for_readers(gradient: PyTree, readers: Iterable[Float[Array, ''] | float]) -> PyTree:
    """Returns the gradient unchanged, with a data dependency on all other results that read the parameters.

    Without this dependency, XLA copies the parameters before their update, because other operations may read them.

    Args:
      gradient: the gradient of the parameters, a tree of arrays.
      readers: scalar results of the other operations that read the parameters; they may be nan or inf.
    """
    zero = 0 * jnp.nan_to_num(sum(readers))
    return jax.tree.map(lambda g: g + zero, gradient)


def moving_average(average: Float[Array, '*shape'], x: Float[Array, '*shape'], decay: float) -> Float[Array, '*shape']:
    """Returns decay * average + (1 - decay) * x.

    It is written as a sum of two arrays, x + decay * (average - x). In the plain form with decay = 1/2, XLA factors out
    the 1/2. It then recomputes the product wherever the result is used, from a copy of the old average.
    """
    return x + decay * (average - x)
