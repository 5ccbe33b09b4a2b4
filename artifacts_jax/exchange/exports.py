"""Exports for downstream use: trained networks, each in its own folder.

An export has config.json, which describes it, and any of 'encoder', 'decoder', 'repair', 'trunk' (the discriminator up
to conv5), 'discriminator' (the rest of it) and 'head' (a network on top of the trunk, see LOADERS). A run
exports its autoencoder, its trunk, and the networks that its transfer tasks have trained.
"""

import json
import shlex
import shutil
from collections.abc import Iterable
from pathlib import Path

import flax.linen as nn
import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax import old_names
from artifacts_jax.config import UserError
from artifacts_jax.data.errors import first_line
from artifacts_jax.devices import host, processes
from artifacts_jax.devices.parallel import shape_tree
from artifacts_jax.files import write_atomically
from artifacts_jax.models import architecture
from artifacts_jax.training.checkpoint import silence_logging
from artifacts_jax.training.trees import compute_fingerprint, find_differences

VERSION = 1
LOADERS = {  # {kind of head: (its protocols, the function that loads it)}
    'classifier': (('linear', 'finetune'), 'load_classifier'),
    'detector': (('detection',), 'load_detector'),
    'segmenter': (('segmentation',), 'load_segmenter'),
}
NETWORKS = ('encoder', 'decoder', 'repair', 'trunk', 'discriminator', 'head')


class ExportError(UserError):
    """An export is missing or damaged, has another version or architecture, or cannot be written."""


def save(
    folder: Path,
    variables: dict,
    config: ConfigDict,
    *,
    networks: Iterable[str] = (),
    head: dict | None = None,
    source: dict | None = None,
) -> None:
    """Writes an export, and reads it back: a folder for each network (Orbax), and last `config.json`.

    An export with the same description and undamaged networks is not written again.

    Args:
      folder: the folder of the export; an existing export is replaced.
      variables: {'params': {network: tree}, 'batch_stats': {network: tree}}. The trunk of a discriminator is saved in
        its own folder.
      config: the configuration that the networks were trained with.
      networks: the networks to save, by the names above; by default all.
      head: the arguments of architecture.make_network, if there is a head.
      source: the state that is exported, {'stage', 'step'}.

    Raises:
      ExportError: the export cannot be written, or cannot be read back.
    """
    folder, trees = Path(folder).absolute(), _split_trunk(variables)
    networks = tuple(networks) or tuple(trees)
    description = {
        'version': VERSION,
        'networks': networks,
        'fingerprints': {network: compute_fingerprint(trees[network]) for network in networks},
        'source': source,
        'head': head,
        'image_size': config.model.image_size,
        'config': config.to_dict(),
    }
    description = configuration.to_json(description)
    if processes.broadcast(_has_description(folder, description)) and not _find_damage(folder, networks, description):
        return

    def begin():
        (folder / 'config.json').unlink(missing_ok=True)  # first, so that a mixture of two exports never looks complete
        for network in set(NETWORKS).difference(networks):
            shutil.rmtree(folder / network, ignore_errors=True)

    def complete():
        write_atomically(folder / 'config.json', json.dumps(description, indent=2) + '\n')

    processes.run_on_first_process(begin, f'write {folder}')
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            for network in networks:
                checkpointer.save(folder / network, trees[network], force=True)
    except (OSError, ValueError) as error:  # such as a full disk, or missing permissions
        raise ExportError(f'{folder} cannot be written: {str(error).splitlines()[0]}') from error
    if damage := _find_damage(folder, networks, description):
        raise ExportError(f'the export was written but cannot be read back: {damage}')
    processes.run_on_first_process(complete, f'write {folder}')


def _has_description(folder, description):
    """Returns whether a folder has an export with this description."""
    try:
        return json.loads((folder / 'config.json').read_text()) == description
    except (OSError, ValueError):
        return False


def _find_damage(folder, networks, description):
    """Returns the error of reading the networks of an export, '' if every process can read them."""
    damage = ''
    try:
        for network in networks:
            load_network(folder, network, description)
    except ExportError as error:
        damage = str(error)
    is_damaged = processes.any_process(bool(damage))
    return damage or ('see the error of another process' if is_damaged else '')


def check_replaceable(folder: Path) -> None:
    """Raises ExportError if `folder` has anything but an export, such as the work directory of a run."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _is_export(folder):
        raise ExportError(f'{folder} is not empty and not an export: give a new directory')


def _is_export(folder):
    """Returns whether a folder's config.json belongs to an export; the one of a work directory has no version."""
    try:
        description = json.loads((folder / 'config.json').read_text())
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and 'version' in description


def load_networks(folder: str | Path, networks: Iterable[str], config: ConfigDict | None = None) -> dict:
    """Returns the variables of some networks of an export, in the form that `save` takes.

    Args:
      folder: the export.
      networks: the names of the networks; a 'discriminator' is loaded with its trunk.
      config: the configuration of the run that will use them, to compare the architectures; None does not compare.

    Raises:
      ExportError: a network is missing, damaged or of another architecture; the message names it.
    """
    description = read_description(folder)
    if config is not None:
        _check_architecture(folder, networks, description['config']['model'], config.model)
        if 'trunk' in networks and not make_trunk(description).normalise:
            raise ExportError(
                f'{folder} has a trunk without batch norm, fine-tuned for {description["head"]["protocol"]}: a run'
                f' cannot start from it; give the export that the fine-tuning started from'
            )
    folders = {*networks, 'trunk'} if 'discriminator' in networks else networks
    loaded = {network: load_network(folder, network, description) for network in folders}
    variables = {kind: {name: tree[kind] for name, tree in loaded.items()} for kind in ('params', 'batch_stats')}
    if 'discriminator' in networks:
        for tree in variables.values():
            tree['discriminator'] = {**tree['discriminator'], 'trunk': tree['trunk']}
    return {kind: {network: tree[network] for network in networks} for kind, tree in variables.items()}


def _split_trunk(variables):
    """Returns {network: its variables}, with the trunk separate from the rest of the discriminator."""
    networks = {
        network: {kind: tree.get(network, {}) for kind, tree in variables.items()} for network in variables['params']
    }
    if 'discriminator' in networks:
        discriminator = networks['discriminator']
        networks['trunk'] = {kind: tree['trunk'] for kind, tree in discriminator.items()}
        networks['discriminator'] = {
            kind: {name: layer for name, layer in tree.items() if name != 'trunk'}
            for kind, tree in discriminator.items()
        }
    return networks


def read_description(folder: str | Path) -> dict:
    """Returns the description of an export, the content of its config.json.

    Raises:
      ExportError: the folder is not an export, or has another version; the message names exports in its subfolders.
    """
    folder = host.folder(folder, 'export').absolute()
    if folder.is_file():
        advice = f'give its folder, {folder.parent}' if _is_export(folder.parent) else 'an export is a folder'
        raise ExportError(f'{folder} is a file, not an export: {advice}')
    try:
        description = json.loads((folder / 'config.json').read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f'{folder} is not an export: its config.json {_explain(error)}') from error
    if not isinstance(description, dict) or 'version' not in description:
        exports = sorted(str(path.parent) for path in folder.glob('**/export/config.json') if _is_export(path.parent))
        advice = (
            f': give {" or ".join(exports)}' if exports else ', and has none: each stage writes its export at its end'
        )
        raise ExportError(f'{folder} is a work directory, not an export{advice}')
    if description['version'] != VERSION:
        raise ExportError(f'{folder} has version {description["version"]}; this program reads version {VERSION}')
    # Earlier versions did not write these keys.
    defaults = {'networks': ['trunk'], 'head': None, 'fingerprints': {}}
    return {**defaults, **description, 'config': old_names.rename_keys(description['config'])}


def _explain(error):
    """Returns why config.json cannot be read, as the end of a sentence."""
    return 'is missing' if isinstance(error, FileNotFoundError) else f'cannot be read ({first_line(error)})'


def _check_architecture(folder, networks, theirs, ours):
    """Raises ExportError if values of config.model that determine the networks differ between export and run."""
    names = []
    if {'trunk', 'discriminator'} & {*networks}:
        names += ['widths', 'kernels', 'conv1_stride', 'groups']
    if {'encoder', 'decoder', 'repair'} & {*networks}:
        names += ['encoder_widths', 'encoder_kernel', 'upsampling']
    values = {n: [tuple(v) if isinstance(v, list | tuple) else v for v in (theirs.get(n), ours[n])] for n in names}
    different = {n: (exported, current) for n, (exported, current) in values.items() if exported != current}
    if different:
        lines = '\n'.join(
            f'  model.{n}: {exported} in the export, {current} here' for n, (exported, current) in different.items()
        )
        keys = ' '.join(shlex.quote(f'--config.model.{n}={exported}') for n, (exported, _) in different.items())
        raise ExportError(f'{folder} has another architecture:\n{lines}\nTo use it, add {keys}')


def make_network(folder: str | Path, description: dict, kind: str) -> nn.Module:
    """Returns the module for a kind of head, a key of LOADERS; raises ExportError if the export has no such head."""
    head = description['head']
    if not head:
        raise ExportError(f'{folder} has no {kind}; its networks are: {", ".join(description["networks"])}')
    exported = next((name for name, (protocols, _) in LOADERS.items() if head['protocol'] in protocols), None)
    if exported is None:
        raise ExportError(f'{folder} has a head for {head["protocol"]!r}, which this version does not support')
    if exported != kind:
        raise ExportError(f'{folder} has no {kind}, but a {exported}: use artifacts_jax.{LOADERS[exported][1]}')
    return architecture.make_network(ConfigDict(description['config']), head)


def make_trunk(description: dict) -> nn.Module:
    """Returns the trunk module of an export."""
    config, head = ConfigDict(description['config']), description['head']
    return architecture.make_network(config, head).trunk if head else architecture.make_trunk(config)


def _compute_shapes(network, description):
    """Returns the shapes of a network's variables."""
    config = ConfigDict(description['config'])
    if network in ('trunk', 'head'):
        variables = architecture.network_template(config, description['image_size'], description['head'])
        return {kind: tree.get(network, {}) for kind, tree in variables.items()}
    return _split_trunk(architecture.template(config))[network]


def load_network(folder: str | Path, network: str, description: dict) -> dict:
    """Returns the variables of one network of an export, {'params': tree, 'batch_stats': tree}, on one device.

    Args:
      folder: the export.
      network: the name of the network.
      description: as `read_description` returns it.

    Raises:
      ExportError: the network is missing or damaged, or differs from the description.
    """
    folder = host.folder(folder, 'export').absolute()
    if network not in description['networks']:
        raise ExportError(f'{folder} has no {network}; its networks are: {", ".join(description["networks"])}')
    if not (folder / network).is_dir():
        raise ExportError(f'{folder / network} is missing, but config.json describes it: copy the whole export again')
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # each process reads its own copy
    target = shape_tree(_compute_shapes(network, description), device)
    silence_logging()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(folder / network).item_metadata
            if saved is None:
                raise ValueError('Orbax finds no arrays in it')
            different = find_differences(saved.tree, target)
            if not different:
                restored = checkpointer.restore(folder / network, target)
    except Exception as error:
        reason = first_line(error)[:200]  # messages of Orbax can be a page long
        raise ExportError(
            f'{folder / network} is damaged or incomplete: copy the whole export again ({reason})'
        ) from error
    if different:
        raise ExportError(f'{folder / network} differs from its config.json:\n  ' + '\n  '.join(different))
    if description['fingerprints'].get(network) not in (None, compute_fingerprint(restored)):
        raise ExportError(
            f'{folder / network} is damaged or belongs to another export: its fingerprint differs from config.json'
        )
    return restored
