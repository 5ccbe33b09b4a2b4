"""The loss terms. Those on examples are per example or entry, and the caller reduces them."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from artifacts_jax.models import layers


def squared_error(x: Float[Array, 'B H W C'], y: Float[Array, 'B H W C']) -> Float[Array, 'B H W 1']:
    """Returns (x - y)^2 summed over channels."""
    return jnp.square(x - y).sum(axis=-1, keepdims=True)


def class_loss(logits: Float[Array, 'B C'], label: Int[Array, ' B'] | int) -> Float[Array, ' B']:
    """Returns the cross-entropy of logits against labels, or one label for all (REAL or FAKE)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.full(logits.shape[:1], label))


def mask_loss(logits: Float[Array, 'B M N 1'], mask: Float[Array, 'B M N 1']) -> Float[Array, 'B M N 1']:
    """Returns the sigmoid cross-entropy of each entry."""
    return optax.sigmoid_binary_cross_entropy(logits, mask)


def l2(params: dict, *, biases: bool = False) -> Float[Array, ''] | int:
    """Returns 0.5 * |w|^2 over all convolution and fully connected weights, and their biases if asked; 0 of none."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        0.5 * jnp.vdot(x, x) for path, x in leaves if path[-1].key == 'kernel' or (biases and layers.is_bias(path))
    )
