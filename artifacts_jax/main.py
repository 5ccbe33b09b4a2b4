"""Runs the stages of a configuration in order, or resumes them: pretraining, then evaluation of the features.

python -m artifacts_jax.main --config=configs/demo.py --workdir=runs/demo
python -m artifacts_jax.main --config=configs/stl10.py --workdir=runs/stl10 --config.artifacts.drop_rate=0.5
artifacts-jax train --config=stl10:no_repair --workdir=runs/no_repair

Set any key of configs/default.py with --config.KEY=VALUE; --config.stages="('probe', 'stl10')" selects stages. The run
writes to the work directory: config.json, {autoencoder,artifacts}/{checkpoints,metrics.jsonl}, tensorboard/, figures/,
export/ (the trained trunk, for artifacts_jax.load_features), stl10/, results.json and results.txt.
"""

import time

from absl import flags
from ml_collections import config_flags

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.devices import host

CONFIG = config_flags.DEFINE_config_file('config', None, 'configuration file or name, such as configs/demo.py or demo')
REPLAY = flags.DEFINE_bool('replay', False, 'repeat the step at which a loss was NaN or infinite, and print its values')
COORDINATOR = flags.DEFINE_string(
    'coordinator', '', 'HOST:PORT of the first of several processes; not needed on SLURM and TPU'
)
PROCESSES = flags.DEFINE_integer('processes', None, 'number of processes, with --coordinator', lower_bound=1)
PROCESS = flags.DEFINE_integer('process', None, 'number of this process, from 0', lower_bound=0)
WORKDIR = flags.DEFINE_string('workdir', None, 'work directory of the run; a run in an existing one is resumed')


def main():
    """Checks the configuration, then runs its stages."""
    from artifacts_jax import outline, pipeline
    from artifacts_jax.devices import processes

    start = time.monotonic()
    config, workdir = configuration.check(CONFIG.value), host.folder(WORKDIR.value, 'workdir')
    processes.join(COORDINATOR.value, PROCESSES.value, PROCESS.value)
    _ = processes.global_devices()
    run = pipeline.replay_nonfinite if REPLAY.value else pipeline.run
    with processes.end_together(expected=(configuration.UserError, OSError)):
        run(config, workdir)
    minutes, peak = (time.monotonic() - start) / 60, host.peak_memory() / 1e9
    print(f'done in {minutes:.1f} minutes, peak host memory {peak:.1f} GB')
    for line in () if REPLAY.value else outline.next_steps(config, workdir):
        print(line)


if __name__ == '__main__':
    command.run(main, ['config', 'workdir'])
