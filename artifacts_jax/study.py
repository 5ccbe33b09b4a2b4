"""Ablation study: runs variants of a configuration with several seeds, then prints and saves a table of results.

python -m artifacts_jax.study --config=configs/study.py --workdir=runs/study
python -m artifacts_jax.study --config=configs/study.py --workdir=runs/study --variants=default,no_repair --seeds=5

configs/variants.py defines the variants. A second call with the same work directory runs only what is missing. Variants
with the same settings of the autoencoder share one. The work directory contains {VARIANT}/seed_{N}/ (one run each),
autoencoder/, results.json and results.txt.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from artifacts_jax import command
from artifacts_jax import config as configuration
from artifacts_jax.configs import variants
from artifacts_jax.devices import host
from artifacts_jax.files import write_atomically

CONFIG = config_flags.DEFINE_config_file('config', None, 'base configuration; each variant changes some of its keys')
WORKDIR = flags.DEFINE_string('workdir', None, 'directory of the study; the study resumes if it exists')
VARIANTS = flags.DEFINE_list('variants', list(variants.VARIANTS), 'variants to run')
SEEDS = flags.DEFINE_integer(
    'seeds', 3, 'number of runs of each variant, with the seeds 0, 1, ...', lower_bound=1, upper_bound=1000
)

RANDOM, DEFAULT = 'random', 'default'
# Prefixes of the keys that do not affect the autoencoder.
KEYS_AFTER_AUTOENCODER = tuple(
    'artifacts. probe. stl10. monitor. data.probe_train optim.use_ema model.widths model.kernels model.conv1_stride'
    ' model.groups model.hidden model.dropout'
    ' retrieval.'.split()  # earlier versions have no such section; without it, digests stay the same
)


def run(config: ConfigDict, workdir: Path, names: list[str], seeds: list[int]) -> list[dict]:
    """Runs every variant with every seed; saves all results in the work directory after each run, and returns them.

    Args:
      config: the base configuration; its seed and stages are ignored.
      workdir: the directory of the study; it is created, or the study is resumed.
      names: names of variants in configs/variants.py.
      seeds: the seeds; each variant runs once per seed, which sets weights, masks, augmentation and the data order.

    Returns:
      [{'variant', 'seed', 'probe': {layer: result of probe.probe}, 'accuracy', 'mask_auc', 'images_per_second',
      'minutes'}]. 'accuracy' is the discriminator's accuracy in %. The variant 'random' (an untrained network) has only
      'probe'. A run that diverged has the reason in 'failed' instead of the numbers.

    Raises:
      ConfigError: a variant is unknown or invalid for this configuration, or the work directory belongs to another
        configuration or to a run.
    """
    if (Path(workdir) / 'config.json').exists():
        raise configuration.ConfigError(
            f'--workdir={workdir}: is the work directory of a run; use another directory for the study'
        )
    if not names:
        raise configuration.ConfigError(f'--variants= is empty; use some of {", ".join(variants.VARIANTS)}')
    settings = {name: configuration.check(variants.apply(_copy(config), name)) for name in names}
    if config.autoencoder.pretrained or config.artifacts.pretrained or config.pretrained:
        raise configuration.ConfigError(
            'the study trains its own networks: remove autoencoder.pretrained, artifacts.pretrained and pretrained'
        )
    for name in names:
        if name != DEFAULT and settings[name] == config:
            print(f'{name} is skipped: it is the same as the base configuration')
            del settings[name]
    import jax

    from artifacts_jax.data.splits import Datasets
    from artifacts_jax.devices.parallel import Devices
    from artifacts_jax.features import probe
    from artifacts_jax.pretraining import artifacts, autoencoder
    from artifacts_jax.training import loop, report, results

    devices = Devices(config.parallel)

    def train_and_probe(config, folder, datasets):
        base = loop.run(autoencoder, config, autoencoder_folder(config, workdir), devices, datasets, None)
        state = loop.run(artifacts, config, folder, devices, datasets, base.get_trained_variables(config.optim.use_ema))
        rows = report.read_metrics(folder / artifacts.NAME / 'metrics.jsonl')
        last = [row for row in rows if 'test/accuracy/real' in row][-1]
        rate = float(np.median([row['train/images_per_second'] for row in rows if 'train/images_per_second' in row]))
        learned = artifacts.select_discriminator(state.get_trained_variables(config.optim.use_ema))
        return {
            'probe': probe.probe(config, devices, datasets, learned),
            'accuracy': 50 * (last['test/accuracy/real'] + last['test/accuracy/fake']),
            'mask_auc': last['test/mask_auc'],
            'images_per_second': rate,
            'minutes': config.artifacts.steps * config.batch_size / rate / 60,
        }

    def probe_untrained(config, datasets):
        variables = loop.make_initial_state(artifacts, config, devices, None).variables
        return {'probe': probe.probe(config, devices, datasets, artifacts.select_discriminator(variables))}

    for seed in seeds:
        datasets = None
        for name in (RANDOM, *settings):
            folder = Path(workdir) / name / f'seed_{seed}'
            path, run_config = folder / 'result.json', _copy(settings.get(name, config))
            run_config.seed = seed
            if configuration.compare(run_config, folder) is not None:
                results.write_config(folder, run_config)
            if not path.exists():
                print(f'{name}, seed {seed}', flush=True)
                datasets = datasets or Datasets(run_config)
                try:
                    result: Any = (
                        probe_untrained(run_config, datasets)
                        if name == RANDOM
                        else train_and_probe(run_config, folder, datasets)
                    )
                except loop.NonFiniteError as error:  # the study continues with the other variants
                    print(f'{name}, seed {seed} failed: {error}')
                    result = {'probe': {}, 'failed': str(error)}
                for line in probe.summary(result['probe']):
                    print(f'{name}, seed {seed}:   {line}', flush=True)
                results.write_json(path, {'variant': name, 'seed': seed, **result})
                jax.clear_caches()  # frees the compiled programs, which no other variant uses
            collected = collect(workdir)
            results.write(workdir, collected)
            results.write_tables(workdir, table(collected))
    return collected


def collect(workdir: Path) -> list[dict]:
    """Returns all results in the directory of a study, sorted by seed, then in the order of configs/variants.py."""
    names = [RANDOM, *variants.VARIANTS]
    paths = [path for name in names for path in (Path(workdir) / name).glob('seed_*/result.json')]
    collected = [json.loads(path.read_text()) for path in paths]
    return sorted(collected, key=lambda result: (result['seed'], names.index(result['variant'])))


def table(collected: list[dict]) -> str:
    """Returns the results of `run` as a Markdown table: means and standard deviations (ddof=1) over the seeds.

    The last column is the difference from the default variant with the same seed, averaged over the layers, and its
    standard error over the seeds.
    """
    from artifacts_jax.training import results

    runs = {}
    for result in collected:
        runs.setdefault(result['variant'], {})[result['seed']] = result
    layers = next(list(result['probe']) for result in collected if result['probe'])

    def accuracy(run, layer):
        return run['probe'][layer]['accuracy'] if run['probe'] else float('nan')

    def mean_accuracy(run):
        return np.mean([accuracy(run, layer) for layer in layers])

    rows = []
    for name, by_seed in runs.items():
        cells = [_format_mean([accuracy(run, layer) for run in by_seed.values()]) for layer in layers]
        for key, digits in (('accuracy', 1), ('mask_auc', 3), ('minutes', 1)):
            cells.append(_format_mean([run[key] for run in by_seed.values() if key in run], digits))
        shared = [seed for seed in by_seed if seed in runs.get(DEFAULT, {})]
        differences = [mean_accuracy(by_seed[s]) - mean_accuracy(runs[DEFAULT][s]) for s in shared]
        cells.append('' if name == DEFAULT else _format_mean(differences, sign='+', error=True))
        rows.append([name, *cells])
    return results.format_table(['variant', *layers, 'discriminator', 'mask AUC', 'minutes', 'vs default'], rows)


def _format_mean(values, digits=2, *, sign='', error=False):
    """Returns 'mean ± standard deviation', or with `error` 'mean ± standard error'; only the mean of one value."""
    if not values or not np.isfinite(values).all():
        return '-'
    text = f'{np.mean(values):{sign}.{digits}f}'
    if len(values) == 1:
        return text
    deviation = np.std(values, ddof=1) / (np.sqrt(len(values)) if error else 1)
    return f'{text} ± {deviation:.{digits}f}'


def _copy(config):
    return config.copy_and_resolve_references()


def autoencoder_folder(config: ConfigDict, workdir: Path) -> Path:
    """Returns the folder of a configuration's autoencoder; configurations with the same autoencoder share it."""
    keys = configuration.flatten(json.loads(config.to_json_best_effort()))
    relevant = {
        k: v for k, v in keys.items() if not k.startswith(KEYS_AFTER_AUTOENCODER) and not configuration.is_free(k)
    }
    digest = hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest()[:8]
    folder = Path(workdir) / 'autoencoder' / f'seed_{config.seed}_{digest}'
    write_atomically(folder / 'config.json', json.dumps(relevant, indent=2) + '\n')
    return folder


def main():
    """Runs the study and prints its table."""
    workdir = host.folder(WORKDIR.value, 'workdir')
    print(table(run(CONFIG.value, workdir, VARIANTS.value, list(range(SEEDS.value)))))


if __name__ == '__main__':
    command.run(main, ['config', 'workdir'])
