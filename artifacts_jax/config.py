"""What a configuration must satisfy, checked before anything is compiled."""

import difflib
import json
import math
import sys
from pathlib import Path

from ml_collections import ConfigDict

_declared = {}


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names the key, its value and what would do."""


def get(config: ConfigDict, path: str):
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


def declare(keys: dict) -> None:
    """Says which keys there are, {dotted key: declaration as of configs/declarations.py}; configs/default.py does."""
    _declared.update(keys)


def declared() -> dict:
    """Returns {dotted key: its declaration}.

    Raises:
      ConfigError: configs/default.py, which every configuration is made from, has not been imported.
    """
    if not _declared:
        raise ConfigError('no key is declared: a configuration is made from get_config of configs/default.py')
    return _declared


def is_free(path: str) -> bool:
    """Returns whether a work directory takes other values of a key, which changes what is shown or kept alone."""
    return path in declared() and declared()[path].free


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
      ConfigError: a value outside its choices or range, or grids that do not fit.
    """
    for path, key in declared().items():
        if problem := key.problem(get(config, path)):
            raise ConfigError(f'{path}={get(config, path)!r}: {problem}')
    if config.optim.use_ema and config.optim.ema_decay == 0:
        raise ConfigError('optim.use_ema=True needs a moving average: set optim.ema_decay, such as 0.9999')
    layers = len(config.model.encoder_widths)
    if not -1 <= config.artifacts.repair_layers <= layers:
        raise ConfigError(
            f'artifacts.repair_layers={config.artifacts.repair_layers}: the decoder has {layers} layers; give 0 to'
            f' {layers}, or -1 for all'
        )
    noise_only = {'artifacts.drop_rate': 1, 'artifacts.pixel_weight': 0, 'artifacts.mask_weight': 0}
    different = [f'{path}={get(config, path)}' for path, value in noise_only.items() if get(config, path) != value]
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
    if config.transfer.num_folds < 2:
        raise ConfigError(f'transfer.num_folds={config.transfer.num_folds}: a deviation needs two folds or more')
    if not config.probe.penalties or config.artifacts.filter_size < 0:
        raise ConfigError('probe.penalties needs an entry, and artifacts.filter_size must be 0 or more')
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


def settle(config: ConfigDict, workdir: Path, *, force: bool = False) -> None:
    """Writes config.json into a new work directory, or compares it with the one that is there.

    With `force` other values are taken over, and printed.

    Raises:
      ConfigError: the work directory was made with other values; the message lists them.
    """
    path = Path(workdir) / 'config.json'
    current = json.loads(config.to_json_best_effort())
    if path.exists():
        try:
            before, now = flatten(json.loads(path.read_text())), flatten(current)
        except (ValueError, AttributeError) as error:
            raise ConfigError(
                f'{path} cannot be read: {error}; delete it, if you are sure that the run had this configuration'
            ) from error
        changed = [k for k in sorted(before | now) if before.get(k) != now.get(k) and not is_free(k)]
        if changed:
            lines = '\n'.join(f'  {k}: {before.get(k)} there, {now.get(k)} now' for k in changed)
            different = f'{workdir} was made with another configuration:\n{lines}'
            if not force:
                raise ConfigError(f'{different}\nUse another --workdir, or --config.force to go on with these values.')
            print(f'warning: {different}\nIt goes on with the values of now.', file=sys.stderr)
        else:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix('.tmp')  # a run killed here should leave no half of a file
    temporary.write_text(json.dumps(current, indent=2) + '\n')
    temporary.replace(path)


def load(workdir: Path, defaults: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Returns (the configuration of a work directory, the keys that it was made too early to have).

    Args:
      workdir: has a config.json.
      defaults: a configuration with every key; those that the work directory lacks keep these values.

    Raises:
      ConfigError: there is no run, its config.json cannot be read, or it has keys that are not declared.
    """
    path, config = Path(workdir) / 'config.json', ConfigDict(defaults.to_dict())
    known = flatten(config.to_dict())
    try:
        saved = flatten(json.loads(path.read_text()))
        if unknown := sorted(saved.keys() - known.keys()):
            raise ConfigError(f'{path} has keys that configs/default.py does not declare: {", ".join(unknown)}')
        # JSON has lists for tuples.
        config.update_from_flattened_dict({k: tuple(v) if isinstance(v, list) else v for k, v in saved.items()})
    except FileNotFoundError as error:
        raise ConfigError(f'no run in {workdir}: there is no {path}') from error
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ConfigError(f'{path} cannot be read: {error}') from error
    return check(config.lock()), sorted(known.keys() - saved.keys())
