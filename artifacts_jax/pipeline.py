"""A run: the config's stages in order, each from where it stopped, in one work directory.

There are two kinds of stages, each with a protocol. Those of TRAINED learn: modules with NAME, BASE, SHOWN, check,
plan, init_state, train_step, evaluator and illustrator, which training/loop.py runs. EVALUATIONS find out what the
learned features are good for: modules with

    NAME                                                   in config.stages, and the name of its section of the config
    check(config, devices)                                 raises ConfigError for what this machine cannot do
    run(config, workdir, devices, datasets, networks)      does what results.json does not have yet; returns all of it
    table(results)                                         that as text

where `networks` are {'random', 'learned'}, functions that return the variables of a discriminator.
"""

import contextlib
from pathlib import Path

import jax
from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax.data import splits
from artifacts_jax.devices import host, processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.exchange import exports
from artifacts_jax.features import probe
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import checkpoint, loop, replay, results
from artifacts_jax.transfer import stl10

TRAINED = (autoencoder, artifacts)
EVALUATIONS = (probe, stl10)
EXPORTS = {autoencoder: ('autoencoder/export', autoencoder.NETWORKS), artifacts: ('export', ('trunk',))}
EXPECTED_ERRORS = (
    configuration.ConfigError,
    checkpoint.CheckpointError,
    splits.DataError,
    exports.ExportError,
    loop.NonFiniteError,
)


class Datasets(dict):
    """{'train', 'probe_train', 'test'}: the config's splits, each opened when it is first asked for."""

    def __init__(self, config: ConfigDict):
        super().__init__()
        self._config = config

    def __missing__(self, name):
        config = self._config
        split = config.data[name]
        for other, dataset in self.items():  # splits that are the same data are held once
            if config.data[other] == split:
                self[name] = dataset
                return dataset
        self[name] = splits.load(
            config.data,
            split,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return self[name]


def run(config: ConfigDict, workdir: Path) -> dict:
    """Runs the config's stages and returns the results, {} if no evaluation is among them.

    Args:
      config: a checked configuration.
      workdir: is made, or resumed if it was made with the same configuration.

    Raises:
      one of EXPECTED_ERRORS, with a message for the user.
    """
    devices, datasets, done = Devices(config.parallel), Datasets(config), {}
    for task in (*TRAINED, *EVALUATIONS):  # before the work directory keeps the configuration
        if task.NAME in config.stages and not config[task.NAME].get('pretrained'):
            task.check(config, devices)
    for stage in TRAINED:
        if config[stage.NAME].pretrained:
            done[stage] = _import(stage, config[stage.NAME].pretrained, config, devices)
    if not (Path(workdir) / 'config.json').exists():
        _ = datasets['train']  # data that is not there should not leave a work directory behind
    with _at_work(config, Path(workdir), force=config.force):
        return _stages(config, Path(workdir), devices, datasets, done)


def replay_nonfinite(config: ConfigDict, workdir: Path) -> dict:
    """Runs the step again at which the work directory's run stopped for a loss that was not finite (replay.py).

    Raises:
      one of EXPECTED_ERRORS, with a message for the user.
    """
    found = [(stage, path) for stage in TRAINED for path in replay.saved(stage, workdir)]
    if not found:
        raise configuration.ConfigError(f'nothing to replay: no step in {workdir} had a loss that was not finite')
    (stage, path), devices = max(found, key=lambda step: step[1].stat().st_mtime), Devices(config.parallel)
    with _at_work(config, Path(workdir)):
        base = None
        if stage.BASE and config[stage.BASE.NAME].pretrained:
            base = _import(stage.BASE, config[stage.BASE.NAME].pretrained, config, devices)
        elif stage.BASE:
            base = loop.finished(stage.BASE, config, workdir, devices).learned(config.optim.use_ema)
        return replay.run(path, stage, config, workdir, devices, Datasets(config), base)


@contextlib.contextmanager
def _at_work(config, workdir, *, force=False):
    """Keeps a work directory to this run, of one process or several, and to its configuration."""
    with contextlib.ExitStack() as stack:

        def begin():
            stack.enter_context(host.alone(workdir))
            configuration.settle(config, workdir, force=force)

        processes.led(begin, f'take {workdir}')
        processes.check_shared(workdir)
        yield
        processes.wait('the end')  # of what the first process writes


def _stages(config, workdir, devices, datasets, done):
    """Runs the stages; `done` has the variables of those that are imported, {stage: variables}."""

    def learned(stage):
        """The variables of a stage that is done, in this call or an earlier one, or imported."""
        if stage not in done:
            done[stage] = loop.finished(stage, config, workdir, devices).learned(config.optim.use_ema)
        return done[stage]

    print(f'{workdir}: {", ".join(config.stages)} on {len(devices.devices)} x {jax.devices()[0].device_kind}')
    for stage in TRAINED:
        if stage in done:
            print(f'{stage.NAME}: taken from {config[stage.NAME].pretrained}')
        elif stage.NAME in config.stages and not (stage is autoencoder and artifacts in done):
            base = stage.BASE and learned(stage.BASE)
            state = loop.run(stage, config, workdir, devices, datasets, base)
            done[stage] = state.learned(config.optim.use_ema)
            print(f'{stage.NAME}: all {stage.plan(config)[0]:,} steps are done')
            name, parts = EXPORTS[stage]
            folder = workdir / name
            if not processes.agreed((folder / 'config.json').exists()):
                exports.save(folder, done[stage], config, parts=parts)
            print(f'{folder}: the learned {" and ".join(parts)}, for artifacts_jax.load_features')
    networks = {
        'random': lambda: artifacts.discriminator(loop.initial(artifacts, config, devices, None).variables),
        'learned': lambda: artifacts.discriminator(learned(artifacts)),
    }
    found = {}
    for task in EVALUATIONS:
        if task.NAME in config.stages:
            found = task.run(config, workdir, devices, datasets, networks)
            tables = '\n'.join(each.table(found) for each in EVALUATIONS if each.NAME in found)
            results.write_tables(workdir, tables)
            print(f'\n{task.table(found)}\n{task.NAME}: done; tables are in {workdir / results.TABLES}, all numbers in')
            print(f'{workdir / results.NUMBERS}, figures in {workdir}/figures')
    return found


def _import(stage, folder, config, devices):
    """Returns from an export what later stages need of a stage's variables."""
    if stage is autoencoder:
        variables = exports.load(folder, autoencoder.NETWORKS, config)
    else:
        variables = {kind: {'discriminator': tree} for kind, tree in exports.load(folder, ('trunk',), config).items()}
    return jax.device_put(variables, devices.replicated)
