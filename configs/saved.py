"""Loads the configuration of an earlier run from the config.json of its work directory or of an export.

    python -m artifacts_jax.main --config=runs/demo/config.json --workdir=runs/again

Variants can follow the path, as for any configuration: `--config=runs/demo/config.json:no_repair`.
"""

from pathlib import Path

from artifacts_jax import config as configuration
from artifacts_jax.configs import default, variants


def get_config(path):
    """Returns the configuration in a JSON file with the variants after the colon, if any."""
    file, json, names = path.rpartition('.json')
    config, missing = configuration.read(Path(file + json), default.get_config())
    if missing:
        print(f'{file}{json} does not have these newer keys, which keep their defaults: {", ".join(missing)}')
    return variants.apply(config, names.removeprefix(':'))
