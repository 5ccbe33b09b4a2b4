"""Converts checkpoints of the authors' TensorFlow 1 code (2018 and 2019) to variables and exports of this project.

The supported checkpoints are those of the autoencoder, of the adversarial training, and of the STL-10 classifier (one
linear layer, or layers of 4096, 4096 and `classes` units). Optimiser slots are ignored. Moving averages of the weights
are ignored, too, unless `averaged` is True.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from artifacts_jax.config import UserError
from artifacts_jax.devices import host
from artifacts_jax.exchange import exports
from artifacts_jax.models import architecture

AVERAGE = '/ExponentialMovingAverage'
IGNORED = re.compile(  # moving averages, optimiser slots, counters, and the variables that debias averages
    rf'.*{AVERAGE}|.*/(Adam|Adam_1|Momentum|biased|local_step)|(.*/)?(global_step|beta[12]_power(_\d+)?)'
)
UNTRAINED_HEADS = re.compile(
    r'discriminator/(drop_pred|fc_1|fc_2)/.*'
)  # untrained heads in the checkpoint of a classifier
WEIGHTS = {'kernel': 'weights', 'bias': 'biases'}
NORM = {'scale': 'gamma', 'bias': 'beta', 'mean': 'moving_mean', 'var': 'moving_variance'}


class TensorFlowCheckpointError(UserError):
    """A checkpoint cannot be read, or its variables do not match the architecture; the message lists all of them."""


def convert(
    variables: Mapping[str, np.ndarray | np.generic], config: ConfigDict, *, averaged: bool = False
) -> tuple[dict, dict]:
    """Converts variables of the authors' code to variables of this project.

    Args:
      variables: {TensorFlow name: array} of all variables of a checkpoint.
      config: the architecture; configs/stl10.py has the one of the authors.
      averaged: convert the moving average of each weight that has one; batch statistics and frozen networks have none.

    Returns:
      ({'params': {network: tree}, 'batch_stats': {network: tree}}, head). The networks are encoder and decoder; or
      encoder, decoder, repair and discriminator; or trunk and head. `head` is the argument of exports.save for a
      classifier, else {}.

    Raises:
      TensorFlowCheckpointError: variables are missing, unknown or of another shape.
    """
    shapes, head = _compute_shapes(variables, config)
    scopes = _map_scopes(len(config.model.encoder_widths), config.model.groups)
    if averaged and not any(name.endswith(AVERAGE) for name in variables):
        raise TensorFlowCheckpointError('the checkpoint has no moving averages: import it without --averaged')
    used, missing, misshapen = set(), [], []

    def take(name, shape):
        """Returns the variable of a TensorFlow name; if there is a problem, records it and returns zeros."""
        used.add(name)
        stored = variables.get(name + AVERAGE if averaged and name + AVERAGE in variables else name)
        if stored is None:
            missing.append(name)
        elif stored.shape != shape:
            misshapen.append(f'{name}: {stored.shape}, not {shape}')
        else:
            return np.asarray(stored, np.float32)
        return np.zeros(shape, np.float32)

    def fill(path, leaf):
        _, *module, kind = (getattr(key, 'key', key) for key in path)
        names = scopes['/'.join(module)]
        leaf_name = (NORM if module[-1].startswith('norm') else WEIGHTS)[kind]
        shape = (*leaf.shape[:-1], leaf.shape[-1] // len(names))
        stored = (
            (1, 1, *shape) if kind == 'kernel' and len(shape) == 2 else shape
        )  # the authors' code has convolutions here
        return np.concatenate([take(f'{name}/{leaf_name}', stored).reshape(shape) for name in names], axis=-1)

    converted = jax.tree_util.tree_map_with_path(fill, shapes)
    unknown = [name for name in variables if name not in used and not _is_ignored(name, head)]
    problems = {'missing': missing, 'unknown': unknown, 'of another shape': misshapen}
    if any(problems.values()):
        lines = [f'{problem}:\n    ' + '\n    '.join(sorted(names)) for problem, names in problems.items() if names]
        if missing and all(name.endswith('/gamma') for name in missing):
            lines.append(
                'The code of June 2018 has no gamma and uses other activations; its checkpoints are not supported.'
            )
        raise TensorFlowCheckpointError('the variables differ from those of the architecture:\n  ' + '\n  '.join(lines))
    return converted, head


def import_file(checkpoint: str | Path, out: Path, config: ConfigDict, *, averaged: bool = False) -> str:
    """Converts a checkpoint file to an export, and returns a one-line summary.

    Args:
      checkpoint: the path of the checkpoint.
      out: the directory of the export; an existing export is replaced.
      config: the architecture, which is stored in the export.
      averaged: convert the moving averages of the weights.

    Raises:
      TensorFlowCheckpointError: the checkpoint cannot be read, or its variables do not match the config.
      ExportError: `out` has other files than an export, or cannot be written.
    """
    exports.check_replaceable(out)  # checked first, because reading the checkpoint takes a while
    variables = read_checkpoint(checkpoint)
    converted, head = convert(variables, config, averaged=averaged)
    exports.save(out, converted, config, head=head or None)
    ignored = sum(_is_ignored(name, head) for name in variables)
    return f'{out}: {", ".join(converted["params"])}; {len(variables) - ignored} variables imported, {ignored} ignored'


def read_checkpoint(checkpoint: str | Path) -> dict[str, np.ndarray | np.generic]:
    """Returns all variables of a TensorFlow checkpoint by name.

    Raises:
      TensorFlowCheckpointError: the checkpoint is missing or damaged, or TensorFlow is not installed.
    """
    try:
        host.hide_accelerators()
        import tensorflow as tf
    except ImportError as error:
        raise TensorFlowCheckpointError(
            f'{checkpoint}: reading TensorFlow checkpoints needs TensorFlow, which is not installed ({error}); install'
            f' it with: {host.TENSORFLOW}'
        ) from error
    if not str(checkpoint):
        raise TensorFlowCheckpointError('--checkpoint is empty: give the path of a TensorFlow checkpoint')
    try:
        reader = tf.train.load_checkpoint(str(checkpoint))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    except (ValueError, RuntimeError, IndexError, tf.errors.OpError) as error:  # IndexError: a file is truncated
        raise TensorFlowCheckpointError(
            f'{checkpoint} cannot be read as a TensorFlow checkpoint ({str(error).splitlines()[0]}); give the path'
            f' without .index or .data-00000-of-00001'
        ) from error


def _is_ignored(name, head):
    return bool(IGNORED.fullmatch(name) or (head and UNTRAINED_HEADS.match(name)))


def _compute_shapes(variables, config):
    """Returns (shapes of the networks of a checkpoint, arguments of its head)."""
    networks_shapes, scopes = architecture.template(config), {name.split('/')[0] for name in variables}
    if 'fully_connected' in scopes:
        linear = 'fully_connected/fc1/weights' in variables
        last = variables.get(f'fully_connected/{"fc1" if linear else "fc3"}/weights', np.zeros(1))
        head = {'protocol': 'linear' if linear else 'finetune', 'classes': last.shape[-1]}
        classifier = architecture.make_classifier(config=config, **head)
        size = config.model.image_size
        return jax.eval_shape(classifier.init, jax.random.key(0), jnp.zeros((1, size, size, 3))), head
    networks = ('encoder', 'decoder')
    if scopes & {'generator', 'discriminator'}:
        networks += ('repair', 'discriminator')
    elif not scopes & {'encoder', 'decoder'}:
        raise TensorFlowCheckpointError(
            f'the checkpoint has none of the scopes encoder, decoder, generator, discriminator and fully_connected; its'
            f' scopes are: {", ".join(sorted(scopes)) or "none"}'
        )
    return {kind: {network: tree[network] for network in networks} for kind, tree in networks_shapes.items()}, {}


def _map_scopes(depth, groups):
    """Returns {path of a module: its TensorFlow scopes}; variables of several scopes are concatenated on the last axis.

    Args:
      depth: the number of layers of the encoder.
      groups: the number of groups of conv2, conv4 and conv5.
    """
    scopes = {}

    def add(ours, *theirs, norm=None):
        scopes[ours] = theirs
        if norm:
            scopes[norm] = tuple(f'{scope}/BatchNorm' for scope in theirs)

    for n in range(depth):
        add(f'encoder/layer{n + 1}/conv', f'encoder/conv_{n}', norm=f'encoder/layer{n + 1}/norm')
        repair, scope = f'repair/layers_{n}', f'generator/repair_{n}'
        add(f'{repair}/conv1/conv', f'{scope}/conv1', norm=f'{repair}/conv1/norm')
        add(f'{repair}/conv2', f'{scope}/conv2')
    numbers = [
        *range(depth - 2),
        depth - 1,
        depth,
    ]  # the authors' numbers skip one: with five layers, deconv_3 is missing
    for n, number in enumerate(numbers, start=1):
        ours, scope = f'decoder/layer{n}', f'decoder/deconv_{number}'
        if n < depth:
            add(f'{ours}/conv', scope, norm=f'{ours}/norm')
        else:
            add(ours, scope)
    for trunk in ('discriminator/trunk', 'trunk'):
        for n in range(1, 6):
            split = [f'discriminator/conv_{n}/conv_{g}' for g in range(groups)]
            layer_scopes = split if n in (2, 4, 5) else [f'discriminator/conv_{n}']
            for g, scope in enumerate(layer_scopes):
                add(f'{trunk}/conv{n}/group{g}', scope)
        scopes[f'{trunk}/norm5'] = tuple(f'{scope}/BatchNorm' for scope in split)
    add('discriminator/mask', 'discriminator/drop_pred')
    add('discriminator/fc1', 'discriminator/fc_1', norm='discriminator/norm1')
    add('discriminator/fc2', 'discriminator/fc_2')
    add('head/fc', 'fully_connected/fc1')
    for n in (1, 2):
        add(f'head/fc{n}', f'fully_connected/fc_{n}', norm=f'head/norm{n}')
    add('head/fc3', 'fully_connected/fc3')
    return scopes
