"""Measures the training speed of a configuration on this machine, as an absolute rate and relative to peak throughput.

python -m artifacts_jax.benchmark --config=configs/stl10.py --batch=16,64
python -m artifacts_jax.benchmark --config=configs/cifar10.py --data --out=benchmark.json
python -m artifacts_jax.benchmark --config=configs/stl10.py --batch=16 --rounds=3 \\
    --peer="python other.py --stage {stage} --batch {batch}"
python -m artifacts_jax.benchmark --config=configs/stl10.py --stages=data --config.data.name=FOLDER --rounds=5 \\
    --peer="python other_loader.py --folder FOLDER"

Training steps run on synthetic images. Each step is finished before the next one starts.

--data also measures with the training images of the configuration, from memory and streamed. The stage `data` measures
only the input pipeline: how fast images arrive on the devices.

The stages `layerwise`, `voc_classification`, `voc_detection` and `voc_segmentation` measure the training steps of these
tasks; use them with the configurations in configs/transfer/. For `layerwise`, the time of the trunk's forward pass is
also measured; for `voc_detection`, the time of RoI pooling.

--peer is the command of another implementation, which prints a line of JSON with 'images_per_s'. It runs before each
measurement, so that both run under the same conditions. The ratio is the ratio of the medians over the rounds. The peer
gets the environment of this command: if GLIBC_TUNABLES is set, both use these settings of memory allocation; otherwise
each uses its own.
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

DATA = 'data'  # the stage that measures only the input pipeline
TASKS = ('layerwise', 'voc_classification', 'voc_detection', 'voc_segmentation')


def load_stages() -> dict:
    """Returns {name: stage} of all stages with training steps."""
    from artifacts_jax.pretraining import artifacts, autoencoder
    from artifacts_jax.transfer.layerwise import stage as layerwise
    from artifacts_jax.transfer.voc.classification import stage as classification
    from artifacts_jax.transfer.voc.detection import stage as detection
    from artifacts_jax.transfer.voc.segmentation import stage as segmentation

    tasks = (task.BENCHMARK for task in (layerwise, classification, detection, segmentation))
    return {stage.NAME: stage for stage in (autoencoder, artifacts, *tasks)}


def run_peer(template: str, stage_name: str, batch: int) -> float:
    """Runs another implementation and returns its images per second.

    Args:
      template: the value of --peer, a command with {stage} and {batch}.
      stage_name: replaces {stage}.
      batch: replaces {batch}.

    Raises:
      ConfigError: the command is invalid or failed, or its last line is not JSON with 'images_per_s'.
    """
    try:
        command_line = template.format(stage=stage_name, batch=batch)
    except (ValueError, LookupError) as error:
        raise configuration.ConfigError(
            f'--peer={template}: {error}; only {{stage}} and {{batch}} may be in braces'
        ) from error
    run = subprocess.run(
        shlex.split(command_line), capture_output=True, text=True, check=False, env=startup.original_environment()
    )
    try:
        return float(json.loads(run.stdout.splitlines()[-1])['images_per_s'])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        lines = (run.stderr or run.stdout).strip().splitlines()
        last = lines[-1] if lines else 'nothing'
        raise configuration.ConfigError(
            f'--peer: {command_line!r} ended with status {run.returncode} and {last!r}; expected JSON with images_per_s'
            f' in its last line of output'
        ) from error


def table(results: dict) -> str:
    """Returns the results as text: peak throughput of the machine, and a row for each stage and batch size."""
    limits = results['machine']
    lines = [
        f'{limits["device"]} x {results["devices"]}, {results["versions"]}, {results["dtype"]}',
        f'one device: matrix products {_format_si(limits["matmul_flops"])}FLOP/s, convolutions'
        f' {_format_si(limits["convolution_flops"])}FLOP/s, copies {_format_si(limits["copy_bytes"])}B/s',
        '',
    ]
    names = ['stage', 'batch', 'images/s', 'step s (min, max)', 'compile s (cached)', 'FLOP', 'bytes', 'memory',
             'roofline', 'convolutions']  # fmt: skip
    extra = [name for name in ('peer', 'ratio', 'with_data') if any(name in row for row in results['stages'])]
    if results['stages']:
        lines += ['| ' + ' | '.join(names + extra) + ' |', '|---' + '|---:' * (len(names + extra) - 1) + '|']
    for row in results['stages']:
        minimum, median, maximum = row['step_s']
        cells = [
            row['stage'],
            str(row['batch']),
            f'{row["images_per_s"]:.1f}',
            f'{median:.3f} ({minimum:.3f}, {maximum:.3f})',
            f'{row["compile_s"]:.1f} ({row["compile_cached_s"]:.1f})',
            _format_si(row['flops']),
            _format_si(row['bytes']),
            f'{_format_si(row["memory_bytes"])}B',
            f'{100 * row["roofline"]:.0f} %',
            f'{100 * row["convolution_share"]:.0f} %',
        ]
        cells += [{'peer': '{:.1f}', 'ratio': '{:.2f}', 'with_data': '{:.1f}'}[n].format(row[n]) for n in extra]
        lines.append('| ' + ' | '.join(cells) + ' |')
    lines += [
        f"\n{row['stage']}, batch {row['batch']}: the trunk's forward pass alone takes {row['trunk_s']:.3f} s,"
        f' {100 * row["trunk_s"] / row["step_s"][1]:.0f} % of a step; crops, classifiers and update take the rest'
        for row in results['stages']
        if 'trunk_s' in row
    ]
    lines += [
        f'\n{row["stage"]}, batch {row["batch"]}: RoI pooling and its gradient take {row["pooling_s"]:.3f} s,'
        f' {100 * row["pooling_s"] / row["step_s"][1]:.0f} % of a step'
        for row in results['stages']
        if 'pooling_s' in row
    ]
    lines += _describe_scaling(results['stages'])
    data = results.get('pipeline', {})
    for name in ('memory', 'stream', 'peer'):
        if name in data:
            lines.append(f'\ninput pipeline, {name}: {data[name]:,.0f} images/s')
    if 'ratio' in data:
        lines.append(f'\ninput pipeline, ratio of stream to peer: {data["ratio"]:.2f}')
    lines.append(f'\npeak memory of the host: {_format_si(results["host_peak_bytes"])}B')
    return '\n'.join(lines)


def main():
    """Runs the measurements, then prints and saves them."""
    import jax

    from artifacts_jax.devices import parallel
    from artifacts_jax.training import measure

    options = flags.FLAGS
    config = configuration.check(options.config)
    out = options.out if options.out is None else host.folder(options.out, 'out')
    devices, batches = parallel.Devices(config.parallel).devices, _batches(options.batch) or [config.batch_size]
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)  # an error should come before the measurements
    limits = measure.measure_machine(config.dtype)
    results = {
        'machine': limits,
        'devices': len(devices),
        'versions': f'Python {sys.version.split()[0]}, jax {jax.__version__}',
        'dtype': config.dtype,
        'stages': [],
    }
    for name in options.stages:
        for batch in batches if name != DATA else ():
            config.batch_size = batch
            results['stages'].append(_measure_stage(load_stages()[name], config, options, limits))
    if options.data or DATA in options.stages:
        results['pipeline'] = _measure_pipeline(config, options)
    results['host_peak_bytes'] = host.peak_memory()
    print(table(results))
    if out:
        write_atomically(out, json.dumps(results, indent=2) + '\n')


def _batches(sizes):
    """Returns the batch sizes of the command line as integers."""
    if invalid := [size for size in sizes if not size.isdigit() or int(size) < 1]:
        raise configuration.ConfigError(
            f'--batch={",".join(sizes)}: {invalid[0]!r} is not a batch size; use for example 16,64'
        )
    return [int(size) for size in sizes]


def declare_flags() -> None:
    """Declares the flags; not at import, because other commands declare flags with the same names."""
    config_flags.DEFINE_config_file('config', None, 'configuration file, such as configs/stl10.py')
    stages = ['autoencoder', 'artifacts']
    flags.DEFINE_multi_enum('stages', stages, [*stages, DATA, *TASKS], 'stages to measure')
    flags.DEFINE_list('batch', [], "global batch sizes to measure; default: the config's")
    flags.DEFINE_integer('steps', 10, 'steps to time', lower_bound=1)
    flags.DEFINE_integer(
        'rounds', 1, 'number of measurements; the round with the median rate is reported', lower_bound=1
    )
    flags.DEFINE_string('peer', '', 'command of another implementation, with {stage} and {batch}')
    flags.DEFINE_bool('data', False, "also measure with the config's training images")
    flags.DEFINE_string('out', None, 'JSON file to write')


def _measure_stage(stage, config, options, limits):
    from artifacts_jax.training import measure

    sample, batches = stage.sample_batch(config), None
    if options.data and stage.NAME not in TASKS:  # tasks use other data than config.data
        batches = measure.load_train_batches(config)
    rows, peers = [], []
    for _ in range(options.rounds):
        if options.peer:
            peers.append(run_peer(options.peer, stage.NAME, config.batch_size))
        row = measure.measure_stage(stage, config, steps=options.steps, limits=limits, sample=sample, batches=batches)
        components = stage.time_components(config, sample, options.steps) if hasattr(stage, 'time_components') else {}
        rows.append(row | components)
    row = sorted(rows, key=lambda row: row['images_per_s'])[len(rows) // 2]
    row = {'stage': stage.NAME, 'batch': config.batch_size, **row}
    if batches is not None:
        row['with_data'] = statistics.median(row['with_data'] for row in rows)
    if peers:
        row['peer'] = statistics.median(peers)
        row['ratio'] = row['images_per_s'] / row['peer']
        row['rounds'] = [{'peer': p, 'images_per_s': r['images_per_s']} for p, r in zip(peers, rows)]
    return row


def _measure_pipeline(config, options):
    """Returns {'memory', 'stream', 'peer': median images per second over the rounds, 'ratio': stream / peer}."""
    from artifacts_jax.training import measure

    rounds = []
    for _ in range(options.rounds):
        peer_rate = (
            {'peer': run_peer(options.peer, DATA, config.batch_size)} if options.peer and DATA in options.stages else {}
        )
        rounds.append({**peer_rate, **measure.measure_pipeline(config)})
    rates = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    ratio = {'ratio': rates['stream'] / rates['peer']} if 'peer' in rates else {}
    return {**rates, **ratio, 'rounds': rounds}


def _describe_scaling(rows):
    """Returns lines that compare the time and memory of a step at successive batch sizes."""
    lines = []
    for before, row in pairwise(rows):
        if before['stage'] == row['stage']:
            images, time = row['batch'] / before['batch'], row['step_s'][1] / before['step_s'][1]
            memory = f'{_format_si(before["memory_bytes"])}B -> {_format_si(row["memory_bytes"])}B'
            lines.append(
                f'\n{row["stage"]}, from batch size {before["batch"]} to {row["batch"]} ({images:.3g}x images):'
                f' a step takes {time:.2f} times as long; memory {memory}'
            )
    return lines


def _format_si(value):
    for unit in ('', 'k', 'M', 'G', 'T'):
        if value < 1000:
            return f'{value:.3g} {unit}'
        value /= 1000
    return f'{value:.3g} P'


if __name__ == '__main__':
    declare_flags()
    command.run(main, ['config'])
