"""Random keys as a function of (seed, stage, step, example); no key is stored in checkpoints."""

import zlib

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Int, Key

from artifacts_jax.old_names import to_old_name


def stage_key(seed: int, stage: str) -> Key[Array, '']:
    """Returns the typed PRNG key of a stage, from which all its random numbers are derived."""
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(to_old_name(stage).encode()))


def example_keys(
    key: Key[Array, ''], step: Int[ArrayLike, ''], index: Int[Array | np.ndarray, ' B'], purposes: int
) -> tuple[Key[Array, ' B'], ...]:
    """Returns one array of PRNG keys for each purpose.

    Each example of the global batch has its own keys. Random numbers therefore do not depend on the number of devices,
    nor on how examples are distributed over them.

    Args:
      key: the stage's key.
      step: the number of completed updates.
      index: the examples' positions in the global batch.
      purposes: the number of independent keys per example.
    """
    step_key = jax.random.fold_in(key, step)

    def split(example):
        return jax.random.split(jax.random.fold_in(step_key, example), purposes)

    return tuple(jax.vmap(split, out_axes=1)(index))
