"""Exports for downstream use: trained networks, each in a folder of its own.

An export holds any of 'encoder', 'decoder', 'repair', 'trunk' (of the discriminator, up to conv5), 'discriminator' (the
rest of it) and 'head' (of what is made of the trunk: see LOADERS), and config.json, which says what they are. A run
exports its autoencoder, its trunk, and what its transfer has trained.
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
from artifacts_jax import renamed
from artifacts_jax.config import UserError
from artifacts_jax.data.errors import first_line
from artifacts_jax.devices import host, processes
from artifacts_jax.devices.parallel import shape_tree
from artifacts_jax.files import write_atomically
from artifacts_jax.models import architecture
from artifacts_jax.training.checkpoint import silence_logging
from artifacts_jax.training.trees import differences, fingerprint

VERSION = 1
LOADERS = {  # of a head's kind: its protocols, and what loads it
    'classifier': (('linear', 'finetune'), 'load_classifier'),
    'detector': (('detection',), 'load_detector'),
    'segmenter': (('segmentation',), 'load_segmenter'),
}
NETWORKS = ('encoder', 'decoder', 'repair', 'trunk', 'discriminator', 'head')


class ExportError(UserError):
    """An export that is missing, damaged or of another version or architecture."""


def save(
    folder: Path,
    variables: dict,
    config: ConfigDict,
    *,
    parts: Iterable[str] = (),
    head: dict | None = None,
    source: dict | None = None,
) -> None:
    """Writes an export, and reads it back: a folder for each network (Orbax), then `config.json`, which completes it.

    An export of the same is left as it is.

    Args:
      folder: an export that is there is replaced.
      variables: {'params': {network: tree}, 'batch_stats': {network: tree}}. A discriminator's trunk is saved apart.
      config: the configuration that the networks were made from.
      parts: which of them to save, named as above; by default all.
      head: as of architecture.make_network, if there is a head.
      source: of which state it is, {'stage', 'step'}.

    Raises:
      ExportError: what was written cannot be read back.
    """
    folder, trees = Path(folder).absolute(), _parts(variables)
    parts = tuple(parts) or tuple(trees)
    description = {
        'version': VERSION,
        'networks': parts,
        'fingerprints': {part: fingerprint(trees[part]) for part in parts},
        'source': source,
        'head': head,
        'image_size': config.model.image_size,
        'config': config.to_dict(),
    }
    description = configuration.to_json(description)
    if processes.broadcast(_says(folder, description)) and not _damage(folder, parts, description):
        return

    def begin():
        (folder / 'config.json').unlink(missing_ok=True)  # first, so that a mixture of two never looks complete
        for network in set(NETWORKS).difference(parts):
            shutil.rmtree(folder / network, ignore_errors=True)

    def complete():
        write_atomically(folder / 'config.json', json.dumps(description, indent=2) + '\n')

    processes.run_on_first_process(begin, f'write {folder}')
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            for part in parts:
                checkpointer.save(folder / part, trees[part], force=True)
    except (OSError, ValueError) as error:  # a full disk, rights that have gone
        raise ExportError(f'{folder} cannot be written: {str(error).splitlines()[0]}') from error
    if damage := _damage(folder, parts, description):
        raise ExportError(f'what was written cannot be read back: {damage}')
    processes.run_on_first_process(complete, f'write {folder}')


def _says(folder, description):
    """Returns whether an export is there that says the same of itself."""
    try:
        return json.loads((folder / 'config.json').read_text()) == description
    except (OSError, ValueError):
        return False


def _damage(folder, parts, description):
    """Returns what is wrong with the networks of an export for any process, '' for nothing."""
    damage = ''
    try:
        for part in parts:
            load_network(folder, part, description)
    except ExportError as error:
        damage = str(error)
    elsewhere = processes.any_process(bool(damage))
    return damage or ('see another process' if elsewhere else '')


def check_replaceable(folder: Path) -> None:
    """Raises ExportError if something but an export, such as a run's work directory, is at `folder`."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not _is_export(folder):
        raise ExportError(f'{folder} is not empty and not an export: name a new directory')


def _is_export(folder):
    """Returns whether a folder's config.json is that of an export; that of a work directory has no version."""
    try:
        description = json.loads((folder / 'config.json').read_text())
    except (OSError, ValueError):
        return False
    return isinstance(description, dict) and 'version' in description


def load_networks(folder: str | Path, networks: Iterable[str], config: ConfigDict | None = None) -> dict:
    """Returns the variables of some networks of an export, as `save` takes them.

    Args:
      folder: the export.
      networks: which to load; a 'discriminator' is loaded with its trunk.
      config: the configuration of the run that will use them, if they must suit one.

    Raises:
      ExportError: what is missing or differs, by name.
    """
    description = read_description(folder)
    if config is not None:
        _check_architecture(folder, networks, description['config']['model'], config.model)
        if 'trunk' in networks and not make_trunk(description).normalise:
            raise ExportError(
                f'{folder} is of a network that was fine-tuned for {description["head"]["protocol"]}, without batch'
                f' norm: nothing starts from it; give the export that it has started from'
            )
    parts = {*networks, 'trunk'} if 'discriminator' in networks else networks
    restored = {part: load_network(folder, part, description) for part in parts}
    variables = {kind: {part: tree[kind] for part, tree in restored.items()} for kind in ('params', 'batch_stats')}
    if 'discriminator' in networks:
        for tree in variables.values():
            tree['discriminator'] = {**tree['discriminator'], 'trunk': tree['trunk']}
    return {kind: {network: tree[network] for network in networks} for kind, tree in variables.items()}


def _parts(variables):
    """Returns {folder: its variables}."""
    parts = {
        network: {kind: tree.get(network, {}) for kind, tree in variables.items()} for network in variables['params']
    }
    if 'discriminator' in parts:
        whole = parts['discriminator']
        parts['trunk'] = {kind: tree['trunk'] for kind, tree in whole.items()}
        parts['discriminator'] = {
            kind: {name: layer for name, layer in tree.items() if name != 'trunk'} for kind, tree in whole.items()
        }
    return parts


def read_description(folder: str | Path) -> dict:
    """Returns an export's description.

    Raises:
      ExportError: there is none, or of another version; the message names the exports that are there instead.
    """
    folder = host.folder(folder, 'export').absolute()
    if folder.is_file():
        there = f'give its folder, {folder.parent}' if _is_export(folder.parent) else 'an export is a folder'
        raise ExportError(f'{folder} is a file, not an export: {there}')
    try:
        description = json.loads((folder / 'config.json').read_text())
    except (OSError, ValueError) as error:
        raise ExportError(f'{folder} is not an export: its config.json {_reason(error)}') from error
    if not isinstance(description, dict) or 'version' not in description:
        there = sorted(str(path.parent) for path in folder.glob('**/export/config.json') if _is_export(path.parent))
        advice = (
            f': give {" or ".join(there)}' if there else ', and has none: a stage writes its export when it is done'
        )
        raise ExportError(f'{folder} is a work directory, not an export{advice}')
    if description['version'] != VERSION:
        raise ExportError(f'{folder} has version {description["version"]}, this program reads {VERSION}')
    # Which earlier exports did not say.
    defaults = {'networks': ['trunk'], 'head': None, 'fingerprints': {}}
    return {**defaults, **description, 'config': renamed.rename_keys(description['config'])}


def _reason(error):
    """Returns why config.json cannot be read."""
    return 'is missing' if isinstance(error, FileNotFoundError) else f'cannot be read ({first_line(error)})'


def _check_architecture(folder, networks, theirs, ours):
    """Raises ExportError if the networks were made by other values of config.model than a run's."""
    names = []
    if {'trunk', 'discriminator'} & {*networks}:
        names += ['widths', 'kernels', 'conv1_stride', 'groups']
    if {'encoder', 'decoder', 'repair'} & {*networks}:
        names += ['encoder_widths', 'encoder_kernel', 'upsampling']
    values = {n: [tuple(v) if isinstance(v, list | tuple) else v for v in (theirs.get(n), ours[n])] for n in names}
    different = {n: (there, here) for n, (there, here) in values.items() if there != here}
    if different:
        lines = '\n'.join(f'  model.{n}: {there} there, {here} here' for n, (there, here) in different.items())
        keys = ' '.join(shlex.quote(f'--config.model.{n}={there}') for n, (there, _) in different.items())
        raise ExportError(f'{folder} was made with another architecture:\n{lines}\nTo use it, add {keys}')


def make_network(folder: str | Path, description: dict, kind: str) -> nn.Module:
    """Returns the network of a kind, one of LOADERS, that an export describes; ExportError if it describes none."""
    head = description['head']
    if not head:
        raise ExportError(f'{folder} has no {kind}; it holds: {", ".join(description["networks"])}')
    held = next((name for name, (protocols, _) in LOADERS.items() if head['protocol'] in protocols), None)
    if held is None:
        raise ExportError(f'{folder} has a head for {head["protocol"]!r}, which this program does not know')
    if held != kind:
        raise ExportError(f'{folder} has no {kind}, but a {held}: use artifacts_jax.{LOADERS[held][1]}')
    return architecture.make_network(ConfigDict(description['config']), head)


def make_trunk(description: dict) -> nn.Module:
    """Returns the trunk that an export describes."""
    config, head = ConfigDict(description['config']), description['head']
    return architecture.make_network(config, head).trunk if head else architecture.make_trunk(config)


def _template(part, description):
    """Returns the shapes of a part's variables, as the description has it."""
    config = ConfigDict(description['config'])
    if part in ('trunk', 'head'):
        variables = architecture.network_template(config, description['image_size'], description['head'])
        return {kind: tree.get(part, {}) for kind, tree in variables.items()}
    return _parts(architecture.template(config))[part]


def load_network(folder: str | Path, part: str, description: dict) -> dict:
    """Returns the variables of a part, on one device."""
    folder = host.folder(folder, 'export').absolute()
    if part not in description['networks']:
        raise ExportError(f'{folder} has no {part}; it holds: {", ".join(description["networks"])}')
    if not (folder / part).is_dir():
        raise ExportError(f'{folder} has lost its {part}, which its config.json describes: copy the export anew, whole')
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])  # of several processes, each reads for itself
    target = shape_tree(_template(part, description), device)
    silence_logging()
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            saved = checkpointer.metadata(folder / part).item_metadata
            if saved is None:
                raise ValueError('Orbax finds no arrays in it')
            different = differences(saved.tree, target)
            if not different:
                restored = checkpointer.restore(folder / part, target)
    except Exception as error:
        said = first_line(error)[:200]  # Orbax goes on for a page
        raise ExportError(f'{folder / part} is damaged or incomplete: copy the export anew, whole ({said})') from error
    if different:
        raise ExportError(f'{folder / part} is not what its config.json says:\n  ' + '\n  '.join(different))
    if description['fingerprints'].get(part) not in (None, fingerprint(restored)):
        raise ExportError(f'{folder / part} is damaged, or of another export: it is not what its config.json describes')
    return restored
