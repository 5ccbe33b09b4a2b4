"""Imports checkpoints of the authors' TensorFlow 1 code (2018 and 2019) as an export.

python -m artifacts_jax.tf1 --checkpoint=model.ckpt-195249 --out=exports/reference

Optimiser slots are ignored; so are the moving averages of the weights, unless --averaged asks for them.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.exchange.exports import ExportError
from artifacts_jax.exchange.tf1 import TensorFlowCheckpointError, convert, import_file, read

__all__ = ['TensorFlowCheckpointError', 'convert', 'import_file', 'read']  # the same from Python


def main():
    """Imports the checkpoint that the command line names."""
    from configs import stl10

    given = flags.FLAGS
    try:
        config = configuration.check(given.config or stl10.get_config('reference'))
        print(import_file(given.checkpoint, Path(given.out), config, averaged=given.averaged))
    except (configuration.ConfigError, ExportError, TensorFlowCheckpointError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':  # elsewhere these flags would clash with those of other programs
    config_flags.DEFINE_config_file('config', None, 'architecture, configs/stl10.py:reference by default')
    flags.DEFINE_string('checkpoint', None, 'TensorFlow checkpoint, without .index or .data-00000-of-00001')
    flags.DEFINE_string('out', None, 'directory of the export')
    flags.DEFINE_bool('averaged', False, 'take the moving averages of the weights')
    command.run(main, ['checkpoint', 'out'])
