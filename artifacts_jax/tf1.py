"""Imports checkpoints of the authors' TensorFlow 1 code (2018 and 2019) as an export.

python -m artifacts_jax.tf1 --checkpoint=model.ckpt-195249 --out=exports/reference

The state of the optimiser is ignored. With --averaged, the export has the moving averages of the weights instead of the
weights.
"""

import os

from absl import flags
from ml_collections import config_flags

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.devices import host
from artifacts_jax.exchange.tf1 import TensorFlowCheckpointError, convert, import_file, read_checkpoint

__all__ = ['TensorFlowCheckpointError', 'convert', 'import_file', 'read_checkpoint']  # the Python interface


def main():
    """Imports the checkpoint of the command line and prints the result."""
    from artifacts_jax.configs import stl10

    options = flags.FLAGS
    config = configuration.check(options.config or stl10.get_config('reference'))
    checkpoint, out = os.path.expanduser(options.checkpoint), host.folder(options.out, 'out')
    print(import_file(checkpoint, out, config, averaged=options.averaged))


if __name__ == '__main__':  # elsewhere these flags would clash with those of other programs
    config_flags.DEFINE_config_file('config', None, 'architecture; default: configs/stl10.py:reference')
    flags.DEFINE_string('checkpoint', None, 'TensorFlow checkpoint, without .index or .data-00000-of-00001')
    flags.DEFINE_string('out', None, 'directory of the export')
    flags.DEFINE_bool('averaged', False, 'import the moving averages of the weights')
    command.run(main, ['checkpoint', 'out'])
