"""The plan that a run prints first (its stages and how long they take), and the commands it suggests at the end."""

import shlex
import shutil
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from artifacts_jax import old_names
from artifacts_jax.startup import CONSOLE
from artifacts_jax.training import checkpoint, report, results

NUM_RATES = 5  # newest logged rates whose median predicts the remaining time
EVALUATIONS = ('probe',)  # stages that are suggested after pretraining without an evaluation


def describe(
    config: ConfigDict, workdir: Path, datasets: Mapping[str, Any], trained: Iterable[Any], evaluated: Iterable[Any]
) -> list[str]:
    """Returns lines about the data and the stages of a run: which are complete, and from which step the others start.

    The remaining time of a stage is estimated only if its metrics already contain a rate.

    Args:
      config: the run's configuration.
      workdir: the run's work directory.
      datasets: {name of a split in config.data: data set}, for the splits that are loaded.
      trained: the stages that train networks, in order.
      evaluated: the evaluation tasks, in order.
    """
    trained, evaluated = list(trained), list(evaluated)
    lines, pending, untimed = [], [], False
    for stage in trained:
        (steps, batch_size), path = (
            stage.get_steps_and_batch_size(config),
            old_names.find_stage_folder(workdir, stage.NAME),
        )
        info = checkpoint.read_info(path / 'checkpoints')
        done = info.step if info and stage.BASE not in pending else 0  # if its base stage changes, the stage restarts
        if done >= steps:
            lines.append(f'{stage.NAME}: complete, {steps:,} steps')
            continue
        pending.append(stage)
        rates = [
            row['train/images_per_second'] for row in report.read_metrics(path / 'metrics.jsonl') if _is_timed(row)
        ]
        untimed |= not rates
        line = f'{stage.NAME}: {steps - done:,} steps{f" from step {done:,}" if done else ""}, {batch_size} images each'
        if rates:
            seconds = (steps - done) * batch_size / statistics.median(rates[-NUM_RATES:])
            line += f', {_duration(seconds)} at its last rate, without evaluation and figures'
        lines.append(line)
    saved_results = results.read(workdir)
    for task in evaluated:
        has_rows = not pending and results.has_rows(saved_results, task.NAME)
        lines.append(f'{task.NAME}: {"has results; outdated ones are evaluated again" if has_rows else "to do"}')
    if untimed:
        lines.append(f'time: each stage prints the minutes left with its metrics, first after {config.log_every} steps')
    names = dict.fromkeys(name for task in (*pending, *evaluated) for name in task.SPLITS)
    if names:
        counts = {config.data[name]: dataset.num_examples for name, dataset in datasets.items()}
        splits = dict.fromkeys(config.data[name] for name in names)
        texts = [f'{counts[split]:,} images of {split}' if split in counts else split for split in splits]
        lines.insert(0, f'data: {config.data.name}: {", ".join(texts)}')
    return lines


def next_steps(config: ConfigDict, workdir: Path) -> list[str]:
    """Returns lines with the commands and the Python call that are useful after a run.

    Args:
      config: the run's configuration; all its stages are complete.
      workdir: the run's work directory.
    """
    pretraining, quoted_workdir = {'autoencoder', 'artifacts'}, shlex.quote(str(workdir))
    lines = []
    if pretraining.issuperset(config.stages):
        stages = EVALUATIONS if 'artifacts' in config.stages else ('artifacts', *EVALUATIONS)
        file = shlex.quote(str(workdir / 'config.json'))
        lines.append(f'next: {_command("train")} --config={file} --workdir={quoted_workdir} --config.stages="{stages}"')
    export = workdir / 'export'
    if 'artifacts' in config.stages and export.is_dir():
        lines.append(f'next: {_command("figures")} --workdir={quoted_workdir}')
        if not pretraining.issuperset(config.stages):
            tables = shlex.quote(f'{workdir}_tables')
            lines.append(
                f'next: {_command("tables")} --pretrained={shlex.quote(str(export))} --workdir={tables} --voc=FOLDER'
            )
        lines.append(f'in Python: artifacts_jax.load_features({str(export)!r})')
    for task, loader in (('voc_detection', 'load_detector'), ('voc_segmentation', 'load_segmenter')):
        exports = sorted(workdir.glob(f'{task}/*/export')) if task in config.stages else []
        for path in exports[:1]:
            options = f'--export={shlex.quote(str(path))} --images=FOLDER --out=predictions'
            lines += [f'next: {_command("predict")} {options}', f'in Python: artifacts_jax.{loader}({str(path)!r})']
    return lines


def _command(name):
    """Returns a shell command that runs a command of the package.

    In a virtual environment in the current directory, it works even if the environment is not activated.
    """
    script = Path(sys.prefix) / 'bin' / CONSOLE
    if script.is_file() and script.is_relative_to(Path.cwd()):
        return f'{shlex.quote(str(script.relative_to(Path.cwd())))} {name}'
    return f'{CONSOLE if shutil.which(CONSOLE) else "python -m artifacts_jax"} {name}'


def _is_timed(row):
    return row.get('train/images_per_second', 0) > 0


def _duration(seconds):
    minutes = seconds / 60
    if minutes < 1:
        return 'less than a minute'
    return f'about {minutes:.0f} minutes' if minutes < 90 else f'about {minutes / 60:.1f} hours'
