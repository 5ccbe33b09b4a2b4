"""What a configuration must satisfy, checked before anything is compiled."""

import difflib
import json
import math
from collections.abc import Iterable
from pathlib import Path

from ml_collections import ConfigDict

from artifacts_jax import renamed

SHARED = ('data', 'augment', 'model', 'optim')  # sections that are no stage's own

_declared, _retired = {}, set()


class UserError(Exception):
    """An error that a person can do something about; a command ends with its message as one line."""


class ConfigError(UserError, ValueError):
    """A configuration that cannot be run; the message names the key, its value and what would do."""


class DifferentConfigError(ConfigError):
    """A work directory that was made with another configuration; `different` says how, without advice."""

    def __init__(self, different: str):
        super().__init__(f'{different}\nUse another --workdir, or --config.force to go on with these values.')
        self.different = different


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
    """Says which keys there are; configs/default.py does.

    Args:
      keys: {dotted key: declaration as of configs/declarations.py}.
      retired: keys that there were; in a file that was written then they are passed over.
    """
    _declared.update(keys)
    _retired.update(retired)


def get_declarations() -> dict:
    """Returns {dotted key: its declaration}.

    Raises:
      ConfigError: configs/default.py, which every configuration is made from, has not been imported.
    """
    if not _declared:
        raise ConfigError('no key is declared: a configuration is made from get_config of configs/default.py')
    return _declared


def is_free(path: str) -> bool:
    """Returns whether a work directory takes other values of a key, which changes what is shown or kept alone."""
    return path in get_declarations() and get_declarations()[path].free


def check_unknown(arguments: list[str], config: ConfigDict) -> None:
    """Raises ConfigError for a command line's `--config.key` that is not declared, naming the nearest that is."""
    known = set(flatten(config.to_dict()))
    for argument in arguments:
        key = argument.removeprefix('--').removeprefix('-').split('=')[0].removeprefix('no')
        if not key.startswith('config.'):
            continue
        key = key.removeprefix('config.')
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0) or ['']
            raise ConfigError(f'unknown key --config.{key}: the nearest is --config.{nearest[0]}')


def check(config: ConfigDict) -> ConfigDict:
    """Returns the config if it can be run.

    Raises:
      ConfigError: a key that is not declared, or is missing; a value of another type, or outside its choices or range;
        or grids that do not fit.
    """
    if different := sorted(flatten(config.to_dict()).keys() ^ get_declarations().keys()):
        raise ConfigError(
            f'the configuration has other keys than configs/default.py, which others are made from:'
            f' {", ".join(different)}'
        )
    for path, key in get_declarations().items():
        if problem := key.problem(get_value(config, path)):
            raise ConfigError(f'{path}={get_value(config, path)!r}: {problem}')
    if config.optim.use_ema and config.optim.ema_decay == 0:
        raise ConfigError('optim.use_ema=True needs a moving average: set optim.ema_decay, such as 0.9999')
    layers = len(config.model.encoder_widths)
    if not -1 <= config.artifacts.repair_layers <= layers:
        raise ConfigError(
            f'artifacts.repair_layers={config.artifacts.repair_layers}: the decoder has {layers} layers; give 0 to'
            f' {layers}, or -1 for all'
        )
    noise_only = {'artifacts.drop_rate': 1, 'artifacts.pixel_weight': 0, 'artifacts.mask_weight': 0}
    different = [
        f'{path}={get_value(config, path)}' for path, value in noise_only.items() if get_value(config, path) != value
    ]
    if config.artifacts.generator == 'gan' and different:
        raise ConfigError(
            f"artifacts.generator='gan' damages no image, so there is no mask and no pixel to compare, but"
            f' {", ".join(different)}: use the variant gan, which sets {noise_only}'
        )
    if config.artifacts.history and config.accumulate > 1:
        raise ConfigError(
            f'artifacts.history={config.artifacts.history} takes whole batches: set accumulate=1, not'
            f' {config.accumulate}'
        )
    if config.artifacts.history and config.batch_size % 2:
        raise ConfigError(f'batch_size={config.batch_size}: a history takes half of every batch, so it must be even')
    if config.artifacts.history < 0 or 2 * config.artifacts.history % config.batch_size:
        half = config.batch_size / 2
        raise ConfigError(
            f'artifacts.history={config.artifacts.history}: must be 0 or a multiple of half the batch, {half:g}'
        )
    if config.monitor.neighbours > config.monitor.bank:
        raise ConfigError(
            f'monitor.neighbours={config.monitor.neighbours} must not exceed monitor.bank={config.monitor.bank}'
        )
    if len(config.model.widths) != 5 or len(config.model.kernels) != 5:
        raise ConfigError('model.widths and model.kernels need 5 entries each, for conv1..conv5')
    for n in (1, 3, 4):
        if any(config.model.widths[i] % config.model.groups for i in (n - 1, n)):
            raise ConfigError(
                f'model.widths={tuple(config.model.widths)}: conv{n + 1} has groups={config.model.groups}, which must'
                f' divide its channels and those before it'
            )
    _check_grid(config)
    return config


def _check_grid(config):
    size, depth, stride = config.model.image_size, len(config.model.encoder_widths), config.model.conv1_stride
    if _fits(size, depth, stride):
        return
    sizes = sorted((n for n in range(8, 1025) if _fits(n, depth, stride)), key=lambda n: abs(n - size))[:4]
    advice = f'sizes that fit: {", ".join(map(str, sorted(sizes)))}' if sizes else (
        f'no size fits: the encoder divides by {2 ** (depth - 1)} and the discriminator by {4 * stride};'
        f' change model.encoder_widths or model.conv1_stride'
    )  # fmt: skip
    raise ConfigError(
        f'model.image_size={size}: the mask grid (the encoder halves {depth - 1} times) and the discriminator'
        f' grid (stride {stride} and two poolings) must be the same and whole; {advice}'
    )


def _fits(size, depth, stride):
    grid = size
    for step in (stride, 2, 2):
        grid = math.ceil(grid / step)
    return size % 2 ** (depth - 1) == 0 and size // 2 ** (depth - 1) == grid


def compare(config: ConfigDict, workdir: Path, *, force: bool = False) -> str | None:
    """Returns how a work directory's configuration differs, None if it does not, '' if it has none.

    Keys that were not declared when it was made count as their defaults.

    Raises:
      DifferentConfigError: it has another one, which is not to be forced.
      ConfigError: its own cannot be read.
    """
    path = Path(workdir) / 'config.json'
    if not path.exists():
        return ''
    try:
        before = _current(json.loads(path.read_text()))
    except (ValueError, AttributeError) as error:
        raise ConfigError(
            f'{path} cannot be read: {error}; delete it, if you are sure that the run had this configuration'
        ) from error
    before = {**to_json({name: key.default for name, key in get_declarations().items()}), **before}
    now = to_json(flatten(config.to_dict()))
    changed = [k for k in sorted(before | now) if before.get(k) != now.get(k) and not is_free(k)]
    if not changed:
        return None
    lines = '\n'.join(f'  {k}: {before.get(k)} there, {now.get(k)} now' for k in changed)
    different = f'{workdir} was made with another configuration:\n{lines}'
    if not force:
        raise DifferentConfigError(different)
    return different


def select_settings(values: dict, section: str) -> dict:
    """Returns those of {dotted key: value} that decide what a stage makes: its own section's, and what all share."""

    def decides(key):
        group, dot, _ = key.rpartition('.')
        return not is_free(key) and key != 'eval_examples' and (not dot or group in (*SHARED, section))

    return {key: value for key, value in values.items() if decides(key)}


def to_json(values: dict) -> dict:
    """Returns values as a JSON file has them, lists for tuples."""
    return json.loads(json.dumps(values))


def read(path: Path, defaults: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Returns (the configuration in a config.json, locked, the keys that it was made too early to have).

    Args:
      path: the file, of a work directory or an export.
      defaults: a configuration with every key; those that the file lacks keep these values.

    Raises:
      ConfigError: there is no such file, it cannot be read, or it has keys that are not declared.
    """
    known = flatten(defaults.to_dict())
    try:
        saved = json.loads(Path(path).read_text())
        saved = _current(saved.get('config', saved))  # an export's says more
        if unknown := sorted(saved.keys() - known.keys()):
            raise ConfigError(f'{path} has keys that configs/default.py does not declare: {", ".join(unknown)}')
        config = overlay(defaults, saved)
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ConfigError(f'{path} cannot be read: {error}') from error
    return config, sorted(known.keys() - saved.keys())


def _current(saved):
    """Returns {dotted key: value} of what a file has, without keys that there are no more."""
    return {key: value for key, value in flatten(renamed.rename_keys(saved)).items() if key not in _retired}


def overlay(config: ConfigDict, saved: dict) -> ConfigDict:
    """Returns a copy of the config, locked, with the values that JSON has of {dotted key: value}: lists for tuples."""
    copy = type(config)(config.to_dict())
    copy.update_from_flattened_dict({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
    return copy.lock()


def load(workdir: Path, defaults: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Returns what `read` does of a work directory's config.json, which is checked.

    Raises:
      ConfigError: there is no run, or its configuration cannot be read or run.
    """
    path = Path(workdir) / 'config.json'
    if not path.exists():
        raise ConfigError(f'no run in {workdir}: there is no {path}')
    config, newer = read(path, defaults)
    return check(config), newer
