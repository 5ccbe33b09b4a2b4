"""Imports checkpoints of the authors' TensorFlow 1 code (2018 and 2019) as an export.

python -m artifacts_jax.tf1 --checkpoint=model.ckpt-195249 --out=exports/reference

Optimiser slots are ignored; so are the moving averages of the weights, unless --averaged asks for them.
"""

import os

from absl import flags
from ml_collections import config_flags

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.devices import host
from artifacts_jax.exchange.tf1 import TensorFlowCheckpointError, convert, import_file, read_checkpoint

__all__ = ['TensorFlowCheckpointError', 'convert', 'import_file', 'read_checkpoint']  # the same from Python


def main():
    """Imports the checkpoint that the command line names."""
    from artifacts_jax.configs import stl10

    given = flags.FLAGS
    config = configuration.check(given.config or stl10.get_config('reference'))
    checkpoint, out = os.path.expanduser(given.checkpoint), host.folder(given.out, 'out')
    print(import_file(checkpoint, out, config, averaged=given.averaged))


if __name__ == '__main__':  # elsewhere these flags would clash with those of other programs
    config_flags.DEFINE_config_file('config', None, 'architecture, configs/stl10.py:reference by default')
    flags.DEFINE_string('checkpoint', None, 'TensorFlow checkpoint, without .index or .data-00000-of-00001')
    flags.DEFINE_string('out', None, 'directory of the export')
    flags.DEFINE_bool('averaged', False, 'take the moving averages of the weights')
    command.run(main, ['checkpoint', 'out'])
