"""Losses per example or mask entry, and the loss terms of discriminator and generator: means over the batch."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import mean
from artifacts_jax.models import layers
from artifacts_jax.models.discriminator import FAKE, REAL

TINY = 1e-12  # avoids division by 0; smaller than any fraction of a batch

Outputs = tuple[Float[Array, 'E 2'], Float[Array, 'E M N 1']]  # the discriminator's class logits and mask logits


def squared_error(x: Float[Array, 'B H W C'], y: Float[Array, 'B H W C']) -> Float[Array, 'B H W 1']:
    """Returns (x - y)^2 summed over channels."""
    return jnp.square(x - y).sum(axis=-1, keepdims=True)


def class_loss(logits: Float[Array, 'B C'], label: Int[Array, ' B'] | int) -> Float[Array, ' B']:
    """Returns the cross-entropy of each example; `label` is one class per example, or one class for all examples."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.full(logits.shape[:1], label))


def mask_loss(logits: Float[Array, 'B M N 1'], mask: Float[Array, 'B M N 1']) -> Float[Array, 'B M N 1']:
    """Returns the sigmoid cross-entropy of each mask entry (1 kept, 0 dropped)."""
    return optax.sigmoid_binary_cross_entropy(logits, mask)


def l2(params: dict, *, biases: bool = False) -> Float[Array, ''] | int:
    """Returns 0.5 * |w|^2 over all convolution and dense weights, with `biases` also over biases; 0 without weights."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return sum(
        0.5 * jnp.vdot(x, x) for path, x in leaves if path[-1].key == 'kernel' or (biases and layers.is_bias(path))
    )


def discriminator_terms(
    outputs: Outputs, mask: Float[Array, 'B M N 1'], *, config: ConfigDict, axis_name: str | None
) -> dict[str, Float[Array, '']]:
    """Returns the discriminator's loss terms for its outputs on [real; fake] and the fakes' mask (section 2).

    Each term is this device's summand of a mean over the global batch, as in `generator_terms`.
    """
    logits, mask_logits = outputs
    real, fake = jnp.split(logits, 2)
    targets = jnp.concatenate([jnp.ones_like(mask), mask])
    mask_error = mean(mask_loss(mask_logits, targets), axis_name)
    class_errors = jnp.concatenate([class_loss(real, REAL), class_loss(fake, FAKE)])
    return {
        'loss/discriminator_class': mean(class_errors, axis_name),
        'loss/discriminator_mask': config.artifacts.mask_weight * mask_error,
    }


def generator_terms(
    outputs: Outputs,
    fake: Float[Array, 'B H W 3'],
    images: Float[Array, 'B H W 3'],
    mask: Float[Array, 'B M N 1'],
    kept_fraction: Float[Array, ''],
    *,
    config: ConfigDict,
    axis_name: str | None,
) -> dict[str, Float[Array, '']]:
    """Returns the generator's loss terms: class loss with swapped labels, mean squared error over kept pixels.

    With `generator_objective='reference'` there is also the discriminator's loss, as in the 2018 code. The sum of the
    two class losses of a fake is minimal at a probability of 1/2.

    Args:
      outputs: the discriminator's outputs on [real; fake].
      fake: the fakes, in [-1, 1].
      images: the images that the fakes are made from, in [-1, 1].
      mask: the fakes' mask, 1 kept, 0 dropped.
      kept_fraction: the fraction of kept mask entries in the global batch; `mask` can be one microbatch of it.
      config: the run's configuration.
      axis_name: the devices' axis under pmap.
    """
    real_logits, fake_logits = jnp.split(outputs[0], 2)
    # The real examples reach the generator only through the batch statistics; the 2018 code includes them too.
    class_errors = jnp.concatenate([class_loss(real_logits, FAKE), class_loss(fake_logits, REAL)])
    errors = layers.upsample_nearest(mask, images.shape[1:3]) * squared_error(fake, images)
    pixel_error = mean(errors, axis_name) / (images.shape[-1] * jnp.maximum(kept_fraction, TINY))
    terms = {
        'loss/generator_class': mean(class_errors, axis_name),
        'loss/generator_pixel': config.artifacts.pixel_weight * pixel_error,
    }
    if config.artifacts.generator_objective == 'reference':
        discriminator_loss = discriminator_terms(outputs, mask, config=config, axis_name=axis_name)
        terms['loss/generator_leak'] = sum(discriminator_loss.values())
    return terms
