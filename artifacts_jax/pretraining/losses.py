"""The loss terms. Those on examples are per example or entry, and the caller reduces them."""

import jax
import jax.numpy as jnp
import optax

from artifacts_jax.models import layers


def squared_error(x, y):
    """Returns (x - y)^2 summed over channels: [B, H, W, 3] twice -> [B, H, W, 1]."""
    return jnp.square(x - y).sum(axis=-1, keepdims=True)


def class_loss(logits, label):
    """Returns the cross-entropy [B] of logits [B, C] against labels [B], or one for all (REAL or FAKE)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.full(logits.shape[:1], label))


def mask_loss(logits, mask):
    """Returns the sigmoid cross-entropy of each entry: mask logits and mask [B, M, N, 1] -> [B, M, N, 1]."""
    return optax.sigmoid_binary_cross_entropy(logits, mask)


def l2(params, *, biases=False):
    """Returns 0.5 * |w|^2 over all convolution and fully connected weights, and their biases if asked."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        0.5 * jnp.vdot(x, x) for path, x in leaves if path[-1].key == 'kernel' or (biases and layers.is_bias(path))
    )
