"""Measures how fast a configuration trains on this machine, and how near that is to what the machine can do.

python -m artifacts_jax.benchmark --config=configs/stl10.py --batch=16,64
python -m artifacts_jax.benchmark --config=configs/cifar10.py --data --out=benchmark.json
python -m artifacts_jax.benchmark --config=configs/stl10.py --batch=16 --rounds=3 \\
    --peer="python other.py --stage {stage} --batch {batch}"
python -m artifacts_jax.benchmark --config=configs/stl10.py --stages=data --config.data.name=FOLDER --rounds=5 \\
    --peer="python other_loader.py --folder FOLDER"

Steps run on synthetic images, each waited for. --data adds the config's own training images, from memory and streamed;
the stage `data` is these alone, as fast as they arrive on the devices. The stages `layerwise`, `voc_classification`,
`voc_detection` and `voc_segmentation` are the steps of these tasks, with the configurations in configs/transfer/; of
the first it is measured, too, how much of a step the trunk's forward pass is, and of detection, how much RoI pooling.
--peer runs another implementation before each measurement, a command that prints a line of JSON with 'images_per_s', so
that both see the same machine; the ratio is of the medians over the rounds. It runs in the environment that this
command was given: with GLIBC_TUNABLES set, both have that memory allocation, else each its own.
"""

import json
import shlex
import statistics
import subprocess
import sys
from itertools import pairwise

from absl import flags
from ml_collections import config_flags

from artifacts_jax import command, startup
from artifacts_jax import config as configuration
from artifacts_jax.devices import host
from artifacts_jax.files import write_atomically

DATA = 'data'  # among the stages: the images alone
TASKS = ('layerwise', 'voc_classification', 'voc_detection', 'voc_segmentation')


def stages() -> dict:
    """Returns {name: the stage that is measured}."""
    from artifacts_jax.pretraining import artifacts, autoencoder
    from artifacts_jax.transfer.layerwise import stage as layerwise
    from artifacts_jax.transfer.voc.classification import stage as classification
    from artifacts_jax.transfer.voc.detection import stage as detection
    from artifacts_jax.transfer.voc.segmentation import stage as segmentation

    tasks = (each.BENCHMARK for each in (layerwise, classification, detection, segmentation))
    return {stage.NAME: stage for stage in (autoencoder, artifacts, *tasks)}


def peer(template: str, stage_name: str, batch: int) -> float:
    """Returns the images per second that another implementation prints as JSON.

    Raises:
      ConfigError: it failed, or printed something else.
    """
    try:
        line = template.format(stage=stage_name, batch=batch)
    except (ValueError, LookupError) as error:
        raise configuration.ConfigError(
            f'--peer={template}: {error}; braces are for {{stage}} and {{batch}}'
        ) from error
    run = subprocess.run(
        shlex.split(line), capture_output=True, text=True, check=False, env=startup.given_environment()
    )
    try:
        return float(json.loads(run.stdout.splitlines()[-1])['images_per_s'])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        said = (run.stderr or run.stdout).strip().splitlines()
        last = said[-1] if said else 'nothing'
        raise configuration.ConfigError(
            f'--peer: {line!r} ended with status {run.returncode} and {last!r}; its last line should be JSON with'
            f' images_per_s'
        ) from error


def table(results: dict) -> str:
    """Returns the results as text: what the machine can do, and a row for each stage and batch size."""
    limits = results['machine']
    lines = [
        f'{limits["device"]} x {results["devices"]}, {results["versions"]}, {results["dtype"]}',
        f'one device: matrix products {_si(limits["matmul_flops"])}FLOP/s, convolutions'
        f' {_si(limits["convolution_flops"])}FLOP/s, copies {_si(limits["copy_bytes"])}B/s',
        '',
    ]
    names = ['stage', 'batch', 'images/s', 'step s (least, most)', 'compile s (cached)', 'FLOP', 'bytes', 'memory',
             'roofline', 'convolutions']  # fmt: skip
    extra = [name for name in ('peer', 'ratio', 'with_data') if any(name in row for row in results['stages'])]
    if results['stages']:
        lines += ['| ' + ' | '.join(names + extra) + ' |', '|---' + '|---:' * (len(names + extra) - 1) + '|']
    for row in results['stages']:
        least, median, most = row['step_s']
        cells = [
            row['stage'],
            str(row['batch']),
            f'{row["images_per_s"]:.1f}',
            f'{median:.3f} ({least:.3f}, {most:.3f})',
            f'{row["compile_s"]:.1f} ({row["compile_cached_s"]:.1f})',
            _si(row['flops']),
            _si(row['bytes']),
            f'{_si(row["memory_bytes"])}B',
            f'{100 * row["roofline"]:.0f} %',
            f'{100 * row["convolution_share"]:.0f} %',
        ]
        cells += [{'peer': '{:.1f}', 'ratio': '{:.2f}', 'with_data': '{:.1f}'}[n].format(row[n]) for n in extra]
        lines.append('| ' + ' | '.join(cells) + ' |')
    lines += [
        f"\n{row['stage']}, batch {row['batch']}: the trunk's forward pass alone takes {row['trunk_s']:.3f} s,"
        f' {100 * row["trunk_s"] / row["step_s"][1]:.0f} % of a step; crops, classifiers and their update the rest'
        for row in results['stages']
        if 'trunk_s' in row
    ]
    lines += [
        f'\n{row["stage"]}, batch {row["batch"]}: pooling of regions and its gradient take {row["pooling_s"]:.3f} s,'
        f' {100 * row["pooling_s"] / row["step_s"][1]:.0f} % of a step'
        for row in results['stages']
        if 'pooling_s' in row
    ]
    lines += _growth(results['stages'])
    data = results.get('pipeline', {})
    for name in ('memory', 'stream', 'peer'):
        if name in data:
            lines.append(f'\ndata alone, {name}: {data[name]:,.0f} images/s')
    if 'ratio' in data:
        lines.append(f'\ndata alone, stream beside peer: {data["ratio"]:.2f}')
    lines.append(f'\npeak memory of the host: {_si(results["host_peak_bytes"])}B')
    return '\n'.join(lines)


def main():
    """Measures what the flags ask for, and prints and saves it."""
    import jax

    from artifacts_jax.devices import parallel
    from artifacts_jax.training import measure

    given = flags.FLAGS
    config, out = configuration.check(given.config), given.out if given.out is None else host.folder(given.out, 'out')
    devices, batches = parallel.Devices(config.parallel).devices, _batches(given.batch) or [config.batch_size]
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)  # now, not after all the work
    limits = measure.measure_machine(config.dtype)
    results = {
        'machine': limits,
        'devices': len(devices),
        'versions': f'Python {sys.version.split()[0]}, jax {jax.__version__}',
        'dtype': config.dtype,
        'stages': [],
    }
    for name in given.stages:
        for batch in batches if name != DATA else ():
            config.batch_size = batch
            results['stages'].append(_measure(stages()[name], config, given, limits))
    if given.data or DATA in given.stages:
        results['pipeline'] = _pipeline(config, given)
    results['host_peak_bytes'] = host.peak_memory()
    print(table(results))
    if out:
        write_atomically(out, json.dumps(results, indent=2) + '\n')


def _batches(sizes):
    """Returns the batch sizes of the command line."""
    if wrong := [size for size in sizes if not size.isdigit() or int(size) < 1]:
        raise configuration.ConfigError(f'--batch={",".join(sizes)}: {wrong[0]!r} is no batch size, such as 16,64')
    return [int(size) for size in sizes]


def declare_flags() -> None:
    """Declares the command's flags; elsewhere they would clash with those of other programs."""
    config_flags.DEFINE_config_file('config', None, 'configuration file, such as configs/stl10.py')
    stages = ['autoencoder', 'artifacts']
    flags.DEFINE_multi_enum('stages', stages, [*stages, DATA, *TASKS], 'stages to measure')
    flags.DEFINE_list('batch', [], "global batch sizes to measure; by default the config's")
    flags.DEFINE_integer('steps', 10, 'steps to time', lower_bound=1)
    flags.DEFINE_integer('rounds', 1, 'how often to measure; the round of the median counts', lower_bound=1)
    flags.DEFINE_string('peer', '', 'command of another implementation, with {stage} and {batch}')
    flags.DEFINE_bool('data', False, "measure with the config's training images, too")
    flags.DEFINE_string('out', None, 'JSON file to write')


def _measure(stage, config, given, limits):
    from artifacts_jax.training import measure

    sample, batches = stage.sample_batch(config), None
    if given.data and stage.NAME not in TASKS:  # which read data of their own
        batches = measure.load_train_batches(config)
    rows, peers = [], []
    for _ in range(given.rounds):
        if given.peer:
            peers.append(peer(given.peer, stage.NAME, config.batch_size))
        row = measure.measure_stage(stage, config, steps=given.steps, limits=limits, sample=sample, batches=batches)
        parts = stage.time_components(config, sample, given.steps) if hasattr(stage, 'time_components') else {}
        rows.append(row | parts)
    row = sorted(rows, key=lambda row: row['images_per_s'])[len(rows) // 2]
    row = {'stage': stage.NAME, 'batch': config.batch_size, **row}
    if batches is not None:
        row['with_data'] = statistics.median(row['with_data'] for row in rows)
    if peers:
        row['peer'] = statistics.median(peers)
        row['ratio'] = row['images_per_s'] / row['peer']
        row['rounds'] = [{'peer': p, 'images_per_s': r['images_per_s']} for p, r in zip(peers, rows)]
    return row


def _pipeline(config, given):
    """Returns {'memory', 'stream', 'peer': images per second, the medians over rounds; 'ratio': of stream and peer}."""
    from artifacts_jax.training import measure

    rounds = []
    for _ in range(given.rounds):
        beside = {'peer': peer(given.peer, DATA, config.batch_size)} if given.peer and DATA in given.stages else {}
        rounds.append({**beside, **measure.measure_pipeline(config)})
    rates = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    ratio = {'ratio': rates['stream'] / rates['peer']} if 'peer' in rates else {}
    return {**rates, **ratio, 'rounds': rounds}


def _growth(rows):
    """Returns lines that say how a stage's cost grows from one batch size to the next."""
    lines = []
    for before, row in pairwise(rows):
        if before['stage'] == row['stage']:
            images, time = row['batch'] / before['batch'], row['step_s'][1] / before['step_s'][1]
            lines.append(
                f'\n{row["stage"]}, from {before["batch"]} to {row["batch"]}, {images:.3g} times the images: a step'
                f' takes {time:.2f} times as long, in {_si(before["memory_bytes"])}B and {_si(row["memory_bytes"])}B'
            )
    return lines


def _si(value):
    for unit in ('', 'k', 'M', 'G', 'T'):
        if value < 1000:
            return f'{value:.3g} {unit}'
        value /= 1000
    return f'{value:.3g} P'


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['config'])
