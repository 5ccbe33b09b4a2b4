"""What segmentation minimises."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float32, UInt8

from artifacts_jax.transfer.voc.records import VOID


def of_images(
    scores: Float32[Array, 'B H W K'], labels: UInt8[Array, 'B H W']
) -> tuple[Float32[Array, ' B'], Float32[Array, ' B']]:
    """Returns (the cross-entropy, the part of pixels that score highest for their class), the mean over each image.

    Args:
      scores: before softmax.
      labels: in [0, K), or VOID, which does not count. Of an image of nothing else both are 0.
    """
    there = labels != VOID
    labels = jnp.where(there, labels, 0).astype(jnp.int32)
    entropy = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    return _mean(entropy, there), _mean((scores.argmax(-1) == labels).astype(jnp.float32), there)


def _mean(values: Float32[Array, 'B H W'], there: Bool[Array, 'B H W']) -> Float32[Array, ' B']:
    return jnp.where(there, values, 0.0).sum((1, 2)) / jnp.maximum(there.sum((1, 2)), 1)
