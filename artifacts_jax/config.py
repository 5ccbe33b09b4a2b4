"""Validates configurations before anything is compiled, and reads and compares their JSON files."""

import difflib
import json
import math
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from artifacts_jax import old_names

SHARED = ('data', 'augment', 'model', 'optim')  # sections that all stages use

_declared, _retired = {}, set()


class UserError(Exception):
    """An error that the user can correct; a command prints its message in one line and exits."""


class ConfigError(UserError, ValueError):
    """A configuration cannot be run; the message gives the key, its value and the accepted values."""


class DifferentConfigError(ConfigError):
    """A work directory has another configuration; `differences` lists the keys and values."""

    def __init__(self, differences: str):
        super().__init__(f'{differences}\nUse another --workdir, or --config.force to continue with the new values.')
        self.differences = differences


def get_value(config: ConfigDict, path: str):
    """Returns the value of a dotted key."""
    for name in path.split('.'):
        config = config[name]
    return config


def flatten(tree: dict, prefix: str = '') -> dict:
    """Returns {dotted key: value} of nested dictionaries."""
    flat = {}
    for name, value in tree.items():
        flat |= flatten(value, f'{prefix}{name}.') if isinstance(value, dict) else {f'{prefix}{name}': value}
    return flat


def declare(keys: dict, retired: Iterable[str] = ()) -> None:
    """Declares the keys of a configuration; configs/default.py calls it.

    Args:
      keys: {dotted key: configs.declarations.Key}.
      retired: keys of earlier versions, which are ignored in their files.
    """
    _declared.update(keys)
    _retired.update(retired)


def get_declarations() -> dict:
    """Returns {dotted key: its declaration}.

    Raises:
      ConfigError: configs/default.py, which declares the keys, has not been imported.
    """
    if not _declared:
        raise ConfigError('no key is declared: create the configuration with get_config of configs/default.py')
    return _declared


def is_free(path: str) -> bool:
    """Returns whether a key can change in an existing work directory, because it does not change what is trained."""
    return path in get_declarations() and get_declarations()[path].free


def check_unknown(arguments: list[str], config: ConfigDict) -> None:
    """Raises ConfigError for an undeclared `--config.KEY` on the command line; the message gives the nearest key."""
    declared = set(flatten(config.to_dict()))
    for argument in arguments:
        key = argument.removeprefix('--').removeprefix('-').split('=')[0].removeprefix('no')
        if not key.startswith('config.'):
            continue
        key = key.removeprefix('config.')
        if key not in declared:
            nearest = difflib.get_close_matches(key, declared, n=1, cutoff=0) or ['']
            raise ConfigError(f'unknown key --config.{key}: the nearest is --config.{nearest[0]}')


def check(config: ConfigDict) -> ConfigDict:
    """Returns the config if it is valid.

    Raises:
      ConfigError: a key is undeclared or missing, a value has the wrong type or is outside its choices or range, or
        values contradict each other, such as grids of different sizes.
    """
    if different := sorted(flatten(config.to_dict()).keys() ^ get_declarations().keys()):
        raise ConfigError(
            f'the configuration and configs/default.py have different keys: {", ".join(different)}; create it with'
            f' get_config of configs/default.py'
        )
    for path, key in get_declarations().items():
        if problem := key.problem(get_value(config, path)):
            raise ConfigError(f'{path}={get_value(config, path)!r}: {problem}')
    if config.optim.use_ema and config.optim.ema_decay == 0:
        raise ConfigError('optim.use_ema=True needs a moving average: set optim.ema_decay, for example to 0.9999')
    layers = len(config.model.encoder_widths)
    if not -1 <= config.artifacts.repair_layers <= layers:
        raise ConfigError(
            f'artifacts.repair_layers={config.artifacts.repair_layers}: the decoder has {layers} layers; expected 0 to'
            f' {layers}, or -1 for all'
        )
    noise_only = {'artifacts.drop_rate': 1, 'artifacts.pixel_weight': 0, 'artifacts.mask_weight': 0}
    different = [
        f'{path}={get_value(config, path)}' for path, value in noise_only.items() if get_value(config, path) != value
    ]
    if config.artifacts.generator == 'gan' and different:
        raise ConfigError(
            f"artifacts.generator='gan' damages no image, so there is no mask and there are no pixels to compare, but"
            f' {", ".join(different)}: use the variant gan, which sets {noise_only}'
        )
    if config.artifacts.history and config.accumulate > 1:
        raise ConfigError(
            f'artifacts.history={config.artifacts.history} needs whole batches, not microbatches: set accumulate=1,'
            f' not {config.accumulate}'
        )
    if config.artifacts.history and config.batch_size % 2:
        raise ConfigError(
            f'batch_size={config.batch_size}: a history replaces half of every batch, so that batch_size must be even'
        )
    if config.artifacts.history < 0 or 2 * config.artifacts.history % config.batch_size:
        half = config.batch_size / 2
        raise ConfigError(
            f'artifacts.history={config.artifacts.history}: must be 0 or a multiple of half the batch size, {half:g}'
        )
    if config.monitor.neighbours > config.monitor.bank:
        raise ConfigError(
            f'monitor.neighbours={config.monitor.neighbours} must not exceed monitor.bank={config.monitor.bank}'
        )
    if len(config.model.widths) != 5 or len(config.model.kernels) != 5:
        raise ConfigError('model.widths and model.kernels must have 5 entries each, for conv1 to conv5')
    for n in (1, 3, 4):
        if any(config.model.widths[i] % config.model.groups for i in (n - 1, n)):
            raise ConfigError(
                f'model.widths={tuple(config.model.widths)}: conv{n + 1} has model.groups={config.model.groups},'
                f' which must divide the channels of conv{n} and conv{n + 1}'
            )
    _check_grid(config)
    return config


def _check_grid(config):
    size, depth, stride = config.model.image_size, len(config.model.encoder_widths), config.model.conv1_stride
    if _has_equal_grids(size, depth, stride):
        return
    sizes = sorted((n for n in range(8, 1025) if _has_equal_grids(n, depth, stride)), key=lambda n: abs(n - size))[:4]
    advice = f'sizes that work: {", ".join(map(str, sorted(sizes)))}' if sizes else (
        f'no size works: the encoder divides by {2 ** (depth - 1)} and the discriminator by {4 * stride};'
        f' change model.encoder_widths or model.conv1_stride'
    )  # fmt: skip
    raise ConfigError(
        f'model.image_size={size}: the grid of the mask (the encoder halves the size {depth - 1} times) and the grid of'
        f' the discriminator (stride {stride} and two poolings) must have the same whole size; {advice}'
    )


def _has_equal_grids(size, depth, stride):
    grid = size
    for step in (stride, 2, 2):
        grid = math.ceil(grid / step)
    return size % 2 ** (depth - 1) == 0 and size // 2 ** (depth - 1) == grid


def compare(config: ConfigDict, workdir: Path, *, force: bool = False) -> str | None:
    """Returns the differences from a work directory's configuration; None if there are none, '' without config.json.

    Keys that the work directory's version did not declare have their defaults.

    Raises:
      DifferentConfigError: the configurations differ, and `force` is False.
      ConfigError: the work directory's config.json cannot be read.
    """
    path = Path(workdir) / 'config.json'
    if not path.exists():
        return ''
    try:
        before = _current(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f'{path} cannot be read: {error}; delete it if you are sure that the run had the current configuration'
        ) from error
    before = {**to_json({name: key.default for name, key in get_declarations().items()}), **before}
    now = to_json(flatten(config.to_dict()))
    changed = [k for k in sorted(before | now) if before.get(k) != now.get(k) and not is_free(k)]
    if not changed:
        return None
    lines = '\n'.join(f'  {k}: {before.get(k)} in {path.name}, {now.get(k)} now' for k in changed)
    differences = f'{workdir} was created with another configuration:\n{lines}'
    if not force:
        raise DifferentConfigError(differences)
    return differences


def select_settings(values: dict, section: str) -> dict:
    """Returns the {dotted key: value} that affect the result of a stage: its own section and the shared keys."""

    def is_relevant(key):
        group, dot, _ = key.rpartition('.')
        return not is_free(key) and key != 'eval_examples' and (not dot or group in (*SHARED, section))

    return {key: value for key, value in values.items() if is_relevant(key)}


def to_json(values: dict) -> dict:
    """Returns values as they are read back from JSON: tuples become lists."""
    return json.loads(json.dumps(values))


def read(path: Path, defaults: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Returns (the configuration in a config.json, locked; the keys that the file does not have).

    Args:
      path: the config.json of a work directory or an export.
      defaults: a configuration with every key; missing keys keep these values.

    Raises:
      ConfigError: the file does not exist, cannot be read, or has undeclared keys.
    """
    declared = flatten(defaults.to_dict())
    try:
        saved = json.loads(Path(path).read_text())
        saved = _current(saved.get('config', saved))  # the file of an export has further entries
        if unknown := sorted(saved.keys() - declared.keys()):
            raise ConfigError(f'{path} has keys that configs/default.py does not declare: {", ".join(unknown)}')
        config = overlay(defaults, saved)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ConfigError(f'{path} cannot be read: {error}') from error
    return config, sorted(declared.keys() - saved.keys())


def _current(saved):
    """Returns {dotted key: value} of a file, with current names and without retired keys."""
    return {key: value for key, value in flatten(old_names.rename_keys(saved)).items() if key not in _retired}


def overlay(config: ConfigDict, saved: dict) -> ConfigDict:
    """Returns a locked copy of the config with values read from JSON, {dotted key: value}; lists become tuples."""
    copy = type(config)(config.to_dict())
    copy.update_from_flattened_dict({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
    return copy.lock()


def load(workdir: Path, defaults: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Returns (the validated configuration of a work directory, the keys that its config.json does not have).

    Raises:
      ConfigError: the directory has no config.json, or the configuration cannot be read or is invalid.
    """
    path = Path(workdir) / 'config.json'
    if not path.exists():
        raise ConfigError(f'{workdir} is not a work directory: {path} does not exist')
    config, missing = read(path, defaults)
    return check(config), missing
