"""What an optimiser computes, written such that XLA on CPU replaces arrays where they lie, and copies none first.

On other devices it changes nothing: the values are those of the plain forms.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


def wait_for_readers(gradient: PyTree, readers: Iterable[Float[Array, ''] | float]) -> PyTree:
    """Returns the gradient of parameters, which is there only when everything else that reads them has been computed.

    XLA copies parameters before their update, unless it knows that all which reads them comes first.

    Args:
      gradient: a tree of arrays.
      readers: results of the other readers; one that is not finite changes nothing.
    """
    nothing = 0 * jnp.nan_to_num(sum(readers))
    return jax.tree.map(lambda g: g + nothing, gradient)


def moving_average(average: Float[Array, '*shape'], x: Float[Array, '*shape'], decay: float) -> Float[Array, '*shape']:
    """Returns decay * average + (1 - decay) * x.

    It is a sum of two arrays: of a plain one, XLA would take decay = 1 - decay = 1/2 out and, for a product of one
    array, compute it again where it is used, from a copy of the old average.
    """
    return x + decay * (average - x)
