"""What Fast R-CNN minimises: a cross-entropy over classes, and how far boxes of foreground are from their objects."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int32


def class_loss(
    scores: Float[Array, 'B R K'], labels: Int32[Array, 'B R'], mask: Bool[Array, 'B R']
) -> Float[Array, '']:
    """Returns the sum over regions of the cross-entropy.

    Args:
      scores: of background, which is 0, and of the classes.
      labels: the class of each region.
      mask: False for what pads the regions.
    """
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, labels)
    return jnp.where(mask, losses, 0.0).sum()


def box_loss(
    moves: Float[Array, 'B R K 4'], targets: Float[Array, 'B R 4'], labels: Int32[Array, 'B R']
) -> Float[Array, '']:
    """Returns the sum over foreground, and over the four numbers of a box, of the smooth L1 distance.

    It is half the square of distances below 1, and the distance less a half beyond. Only the moves of a region's own
    class count. Source: caffe-fast-rcnn, src/caffe/layers/smooth_L1_loss_layer.cpp.

    Args:
      moves: for each class, normalised; those of background, which is 0, are not used.
      targets: normalised.
      labels: the class of each region; 0 for background, and for what pads the regions.
    """
    own = jnp.take_along_axis(moves, labels[..., None, None], axis=2)[:, :, 0]
    losses = optax.huber_loss(own, targets, delta=1.0).sum(axis=-1)
    return jnp.where(labels > 0, losses, 0.0).sum()
