"""The configuration of a run, from the config.json of its work directory or of an export.

    python -m artifacts_jax.main --config=runs/demo/config.json --workdir=runs/again

Variants may follow it, as they may any configuration: `--config=runs/demo/config.json:no_repair`.
"""

from pathlib import Path

from artifacts_jax import config as configuration
from artifacts_jax.configs import default, variants


def get_config(path):
    """Returns the configuration in a JSON file, with the variants that a colon and their names ask for."""
    file, json, names = path.rpartition('.json')
    config, newer = configuration.read(Path(file + json), default.get_config())
    if newer:
        print(f'{file}{json} is older than these keys, which have their defaults: {", ".join(newer)}')
    return variants.apply(config, names.removeprefix(':'))
