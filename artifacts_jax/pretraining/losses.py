"""The losses, per example or entry, and the terms of both sides of the game, their means over the batch."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import mean
from artifacts_jax.models import layers
from artifacts_jax.models.discriminator import FAKE, REAL

TINY = 1e-12  # less than any fraction of a batch

Outputs = tuple[Float[Array, 'E 2'], Float[Array, 'E M N 1']]  # the discriminator's logits of classes and of masks


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


def discriminator_terms(
    outputs: Outputs, mask: Float[Array, 'B M N 1'], *, config: ConfigDict, axis_name: str | None
) -> dict[str, Float[Array, '']]:
    """Returns the discriminator's loss terms for its outputs on [real; fake] and the fakes' mask (section 2).

    They are, as the generator's, a device's shares of means over the batch.
    """
    logits, mask_logits = outputs
    real, fake = jnp.split(logits, 2)
    targets = jnp.concatenate([jnp.ones_like(mask), mask])
    mask_error = mean(mask_loss(mask_logits, targets), axis_name)
    class_error = jnp.concatenate([class_loss(real, REAL), class_loss(fake, FAKE)])
    return {
        'loss/discriminator_class': mean(class_error, axis_name),
        'loss/discriminator_mask': config.artifacts.mask_weight * mask_error,
    }


def generator_terms(
    outputs: Outputs,
    fake: Float[Array, 'B H W 3'],
    images: Float[Array, 'B H W 3'],
    mask: Float[Array, 'B M N 1'],
    kept: Float[Array, ''],
    *,
    config: ConfigDict,
    axis_name: str | None,
) -> dict[str, Float[Array, '']]:
    """Returns the generator's loss terms: the class loss with swapped labels, and the mean error over kept pixels.

    `kept` is the fraction of the whole batch's mask entries that are kept, of which this may be a part.
    With `generator_objective='reference'` also the discriminator's terms, which the 2018 code leaves in: on a fake
    the two class losses together are least at a probability of 1/2.
    """
    real_logits, fake_logits = jnp.split(outputs[0], 2)
    # The real half has no path to the generator but through the batch statistics; the 2018 code counts it too.
    class_error = jnp.concatenate([class_loss(real_logits, FAKE), class_loss(fake_logits, REAL)])
    errors = layers.upsample_nearest(mask, images.shape[1:3]) * squared_error(fake, images)
    pixel_error = mean(errors, axis_name) / (images.shape[-1] * jnp.maximum(kept, TINY))
    terms = {
        'loss/generator_class': mean(class_error, axis_name),
        'loss/generator_pixel': config.artifacts.pixel_weight * pixel_error,
    }
    if config.artifacts.generator_objective == 'reference':
        leak = discriminator_terms(outputs, mask, config=config, axis_name=axis_name)
        terms['loss/generator_leak'] = sum(leak.values())
    return terms
