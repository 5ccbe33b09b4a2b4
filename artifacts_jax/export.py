"""Exports for downstream use: the discriminator's trunk alone, and the function that reads it back."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from artifacts_jax import models
from artifacts_jax.checkpoint import differences

VERSION = 1


class ExportError(Exception):
    """An export that is missing, damaged or of another version or architecture."""


def save(folder: Path, variables: dict, config: ConfigDict) -> None:
    """Writes an export: `trunk/` (Orbax: parameters and batch statistics), then `config.json`, which completes it.

    Args:
      folder: is replaced if it exists.
      variables: the discriminator's {'params': ..., 'batch_stats': ...}.
      config: the run's configuration.
    """
    folder = Path(folder).absolute()
    trunk = {kind: tree['trunk'] for kind, tree in variables.items()}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / 'trunk', trunk, force=True)
    description = {
        'version': VERSION,
        'image_size': config.model.image_size,
        'config': json.loads(config.to_json_best_effort()),
    }
    (folder / 'config.json').write_text(json.dumps(description, indent=2) + '\n')


def load_variables(folder: Path) -> tuple[models.Trunk, dict, int]:
    """Returns (trunk, its variables, image size) of an export.

    Raises:
      ExportError: what is missing or differs, by name.
    """
    folder = Path(folder).absolute()
    try:
        description = json.loads((folder / 'config.json').read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ExportError(f'{folder} is not an export: its config.json cannot be read ({error})') from error
    if description.get('version') != VERSION:
        raise ExportError(f'{folder} has version {description.get("version")}, this program reads {VERSION}')
    trunk, size = models.make_trunk(ConfigDict(description['config'])), description['image_size']
    target = jax.eval_shape(trunk.init, jax.random.key(0), jnp.zeros((1, size, size, 3)))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=device), target)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(folder / 'trunk').item_metadata
            different = differences(saved.tree, target)
            if not different:
                variables = checkpointer.restore(folder / 'trunk', target)
    except Exception as error:
        raise ExportError(f'{folder / "trunk"} cannot be read: {error}') from error
    if different:
        raise ExportError(f'{folder / "trunk"} is not what its config.json says:\n  ' + '\n  '.join(different))
    return trunk, variables, size


def load_features(folder: str | Path) -> Callable:
    """Loads frozen features for downstream use.

    Args:
      folder: an export, such as WORKDIR/export.

    Returns:
      A jitted function from images [B, H, W, 3], uint8 or floating point in [-1, 1], to {'conv1': ..., 'conv5': ...},
      each [B, h, w, C] float32, after ReLU. H and W may differ from the training images'.

    Raises:
      ExportError: what is missing or differs, by name.
    """
    trunk, variables, _ = load_variables(folder)

    @jax.jit
    def apply(variables, images):
        if images.dtype == jnp.uint8:
            images = images.astype(jnp.float32) / 127.5 - 1
        return {name: x.astype(jnp.float32) for name, x in trunk.apply(variables, images)[1].items()}

    def features(images):
        return apply(variables, images)

    return features
