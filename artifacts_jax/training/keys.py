"""Randomness as a function of (seed, stage, step, example): no key is ever stored or passed on."""

import zlib

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Key

from artifacts_jax.renamed import to_old_name


def stage_key(seed: int, stage: str) -> Key[Array, '']:
    """Returns the typed PRNG key from which everything random in a stage is derived."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(to_old_name(stage).encode()))


def example_keys(
    key: Key[Array, ''], step: Int[ArrayLike, ''], index: Int[Array | np.ndarray, ' B'], purposes: int
) -> tuple[Key[Array, ' B'], ...]:
    """Returns one array of keys for each purpose.

    Each example of the global batch has its own keys, so that neither the mapping nor the number of devices
    changes what is drawn.

    Args:
      key: the stage's key.
      step: updates done so far.
      index: the examples' positions in the global batch.
      purposes: how many independent keys each example needs.
    """
    step_key = jax.random.fold_in(key, step)

    def split(example):
        return jax.random.split(jax.random.fold_in(step_key, example), purposes)

    return tuple(jax.vmap(split, out_axes=1)(index))
