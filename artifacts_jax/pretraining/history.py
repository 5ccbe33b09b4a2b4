"""A bounded buffer of earlier fakes, from which half of the discriminator's are drawn (Shrivastava et al., CVPR 2017).

Of every batch the fakes of examples with an even index enter the buffer, in place of the oldest; the discriminator
sees earlier ones instead of those with an odd index. All devices hold the same buffer.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Key
from ml_collections import ConfigDict

from artifacts_jax.devices.parallel import gather
from artifacts_jax.models import architecture


class History(flax.struct.PyTreeNode):
    """The buffer: earlier fakes and their masks, filled from the front."""

    images: Any  # [N, H, W, 3] float32 in [-1, 1]
    masks: Any  # [N, M, N, 1] float32


def empty(config: ConfigDict) -> History | None:
    """Returns a buffer of `config.artifacts.history` places, None for 0."""
    places, size = config.artifacts.history, config.model.image_size
    if places == 0:
        return None
    return History(jnp.zeros((places, size, size, 3)), jnp.zeros((places, *architecture.mask_grid(config), 1)))


def recall(
    history: History | None,
    entered: Int[ArrayLike, ''],
    keys: Key[Array, ' B'] | None,
    index: Int[Array, ' B'] | None,
    fakes: Float[Array, 'B H W 3'],
    masks: Float[Array, 'B M N 1'],
) -> tuple[Float[Array, 'B H W 3'], Float[Array, 'B M N 1']]:
    """Replaces the fakes of odd index, and their masks, by earlier ones.

    Args:
      history: the buffer; None replaces nothing, and needs neither keys nor index.
      entered: how many fakes have ever entered the buffer.
      keys: choose the places.
      index: the examples' positions in the global batch.
      fakes: the fakes; no gradient flows to those that are replaced.
      masks: their masks.

    Returns:
      (fakes, masks).
    """
    if history is None:
        return fakes, masks
    filled = jnp.minimum(entered, len(history.images))
    places = jax.vmap(lambda key: jax.random.randint(key, (), 0, jnp.maximum(filled, 1)))(keys)
    earlier = ((index % 2 == 1) & (filled > 0)).reshape(-1, 1, 1, 1)
    return jnp.where(earlier, history.images[places], fakes), jnp.where(earlier, history.masks[places], masks)


def remember(
    history: History | None,
    entered: Int[ArrayLike, ''],
    fakes: Float[Array, 'B H W 3'] | None,
    masks: Float[Array, 'B M N 1'],
    *,
    axis_name: str | None = None,
) -> History | None:
    """Returns the buffer with the fakes of even index in place of the oldest; arguments as of `recall`."""
    if history is None:
        return None
    fakes, masks = (gather(x, axis_name)[::2] for x in (fakes, masks))
    places = (entered + jnp.arange(len(fakes))) % len(history.images)
    return History(history.images.at[places].set(fakes), history.masks.at[places].set(masks))
