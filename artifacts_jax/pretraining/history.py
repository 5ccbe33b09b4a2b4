"""History buffer: a bounded buffer of earlier fakes for the discriminator's update (Shrivastava et al., CVPR 2017).

After each step, the fakes with an even index in the global batch replace the oldest entries of the buffer. In each
update of the discriminator, random entries of the buffer replace the fakes with an odd index. All devices hold the same
buffer.
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
    """The buffer: earlier fakes and their masks, filled from index 0."""

    images: Any  # [N, H, W, 3] float32 in [-1, 1]
    masks: Any  # [N, M, N, 1] float32


def create(config: ConfigDict) -> History | None:
    """Returns an empty buffer with `config.artifacts.history` entries, None for 0."""
    capacity, size = config.artifacts.history, config.model.image_size
    if capacity == 0:
        return None
    return History(jnp.zeros((capacity, size, size, 3)), jnp.zeros((capacity, *architecture.mask_grid(config), 1)))


def sample(
    history: History | None,
    num_added: Int[ArrayLike, ''],
    keys: Key[Array, ' B'] | None,
    index: Int[Array, ' B'] | None,
    fakes: Float[Array, 'B H W 3'],
    masks: Float[Array, 'B M N 1'],
) -> tuple[Float[Array, 'B H W 3'], Float[Array, 'B M N 1']]:
    """Returns (fakes, masks) of a batch, in which random entries of the buffer replace those with an odd index.

    Args:
      history: the buffer; None replaces nothing, and needs neither keys nor index.
      num_added: the number of fakes added to the buffer so far.
      keys: PRNG keys that choose the entries.
      index: the examples' positions in the global batch.
      fakes: the current fakes; the replaced ones get no gradient.
      masks: their masks.
    """
    if history is None:
        return fakes, masks
    num_filled = jnp.minimum(num_added, len(history.images))
    slots = jax.vmap(lambda key: jax.random.randint(key, (), 0, jnp.maximum(num_filled, 1)))(keys)
    is_replaced = ((index % 2 == 1) & (num_filled > 0)).reshape(-1, 1, 1, 1)  # type: ignore[operator]
    return jnp.where(is_replaced, history.images[slots], fakes), jnp.where(is_replaced, history.masks[slots], masks)


def add(
    history: History | None,
    num_added: Int[ArrayLike, ''],
    fakes: Float[Array, 'B H W 3'] | None,
    masks: Float[Array, 'B M N 1'],
    *,
    axis_name: str | None = None,
) -> History | None:
    """Returns the buffer after the fakes with an even index replaced the oldest entries; arguments as in `sample`."""
    if history is None:
        return None
    fakes, masks = (gather(x, axis_name)[::2] for x in (fakes, masks))  # type: ignore[arg-type]  # None without history
    slots = (num_added + jnp.arange(len(fakes))) % len(history.images)
    return History(history.images.at[slots].set(fakes), history.masks.at[slots].set(masks))
