"""What a person sees of a run: a progress bar or plain lines, metrics on disk, curves, and the results table."""

import collections
import contextlib
import io
import json
import sys
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from artifacts_jax.data import source
from artifacts_jax.devices import host, processes
from artifacts_jax.drawing import plots


class Report:
    """Writes the metrics of one stage and shows its progress; use it as a context.

    metrics.jsonl has one line for each logged step and each evaluation: 'step', then 'train/NAME' or 'test/NAME'.
    TensorBoard gets the same through clu.

    Args:
      workdir: the run's work directory.
      stage: the stage's name.
      start: steps done before; later lines of an earlier attempt are dropped.
      steps: the stage's steps in all.
      batch_size: images in a global batch.
      log_every: steps between lines of metrics.
    """

    def __init__(self, workdir: Path, stage: str, start: int, *, steps: int, batch_size: int, log_every: int):
        self.stage, self.figures = stage, workdir / 'figures'
        self._path = workdir / stage / 'metrics.jsonl'
        self._tensorboard, self._log_every = workdir / 'tensorboard' / stage, log_every
        self._steps, self._start, self._batch_size = steps, start, batch_size
        self._shown, self._paused, self._spent = (time.monotonic(), start), 0.0, collections.Counter()
        self._progress = _progress() if sys.stdout.isatty() else None

    def __enter__(self):
        from clu import metric_writers  # imports TensorFlow, which takes seconds

        source.hide_accelerators()
        kept = [row for row in read(self._path) if self._start and row['step'] <= self._start]
        host.write_whole(self._path, ''.join(json.dumps(row) + '\n' for row in kept))
        self._file = self._path.open('a', buffering=1)
        self._writer = metric_writers.SummaryWriter(str(self._tensorboard))
        if self._progress:
            self._progress.start()
            self._bar = self._progress.add_task(self.stage, total=self._steps, completed=self._start, rate='')
        self.say(f'{self.stage}: {self._steps - self._start:,} of {self._steps:,} steps to do')
        self._entered = time.monotonic()
        self._shown = (self._entered, self._start)
        return self

    def __exit__(self, kind, error, traceback):
        if self._progress:
            self._progress.stop()
        try:
            self._file.close()
            self._writer.close()
        except Exception:  # TensorFlow's, too: on a full disk
            if error is None:
                raise  # else the error that came first says more
        seconds = time.monotonic() - self._entered
        shares = ', '.join(f'{100 * spent / seconds:.1f} % {what}' for what, spent in self._spent.items())
        self.say(f'{self.stage}: {seconds:.0f} seconds' + (f', of them {shares}' if shares else ''))

    def say(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def train(self, step: int, values: dict) -> None:
        """Takes the metrics of a training step; every `log_every` steps they are written."""
        if self._progress:
            self._progress.update(self._bar, completed=step)
        if step % self._log_every and step != self._steps:
            return
        now, (then, before) = time.monotonic(), self._shown
        seconds = now - then - self._paused
        rate = (step - before) * self._batch_size / max(seconds, 1e-9)
        self._shown, self._paused = (now, step), 0.0
        left = (self._steps - step) * self._batch_size / rate
        values = {name: float(value) for name, value in values.items()}
        self._write(step, 'train', {**values, 'images_per_second': rate})
        losses = '  '.join(f'{n.removeprefix("loss/")} {v:.4f}' for n, v in values.items() if n.startswith('loss/'))
        line = f'{self.stage} {step:,}/{self._steps:,}  {losses}  {rate:.1f} images/s'
        if self._progress:
            self._progress.update(self._bar, rate=f'{rate:.0f} images/s')
            self._progress.console.print(line, highlight=False)
        else:
            self.say(f'{line}  {left / 60:.1f} min left')

    def test(self, step: int, values: dict) -> None:
        """Writes held-out metrics."""
        self._write(step, 'test', values)
        shown = '  '.join(f'{name} {value:.4g}' for name, value in values.items())
        self.say(f'{self.stage} {step:,} held out: {shown}')

    @contextlib.contextmanager
    def aside(self, what: str):
        """Leaves what is done in this context out of the rate of training; the stage's end tells how much that was."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        self._paused += seconds
        self._spent[what] += seconds

    def curves(self) -> None:
        """Draws all metrics so far as figures/STAGE_curves.png; a stage's name may hold slashes."""
        plots.curves(self.figures / f'{self.stage.replace("/", "_")}_curves.png', read(self._path))

    def _write(self, step, split, values):
        named = {f'{split}/{name}': value for name, value in values.items()}
        self._file.write(json.dumps({'step': step, **named}) + '\n')
        self._writer.write_scalars(step, named)


class Silence:
    """Stands for the Report in the processes that do not write it: every method does nothing."""

    def __init__(self, workdir: Path, stage: str, start: int, *, steps: int, batch_size: int, log_every: int):
        del workdir, start, steps, batch_size, log_every
        self.stage, self.figures = stage, None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def say(self, text: str) -> None:
        """As Report.say."""

    def train(self, step: int, values: dict) -> None:
        """As Report.train."""

    def test(self, step: int, values: dict) -> None:
        """As Report.test."""

    def aside(self, what: str):
        """As Report.aside."""
        del what
        return contextlib.nullcontext()

    def curves(self) -> None:
        """As Report.curves."""


def read(path: Path) -> list[dict]:
    """Returns the rows of a metrics.jsonl, [] if there is none; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith('\n')]


def write_json(path: Path, value) -> None:
    """Writes a JSON file, whole or not at all, and the folders that it is in; of several processes the first does."""
    if processes.is_first():
        host.write_whole(path, json.dumps(value, indent=2) + '\n')


def _progress():
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('{task.fields[rate]}'),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console())


def write_results(workdir: Path, results: dict) -> None:
    """Writes results.txt, the table of results as of `results_table`, and prints it."""
    table = results_table(results)
    if processes.is_first():
        (Path(workdir) / 'results.txt').write_text(table)
    print(table)


def results_table(results: dict) -> str:
    """Returns the results of probe and transfer as tables of text, accuracies in % with counts.

    Args:
      results: 'dataset', and either or both of
        'probe', with 'train' and 'test' (numbers of examples): {network: {layer: {'accuracy', 'correct', 'count'}}};
        'transfer': {protocol: {part: {'accuracy', 'correct', 'count', 'train'}}}, where a part that sums up folds is
        {'mean', 'deviation', 'folds', 'train'}.
    """
    console = Console(width=110, record=True, file=io.StringIO())
    if 'probe' in results:
        _print_probe(console, results)
    if 'transfer' in results:
        _print_transfer(console, results)
    return console.export_text()


def _print_probe(console, results):
    probe = dict(results['probe'])
    pixels = probe.pop('pixels', {}).get('pixels')
    table = Table(box=box.MARKDOWN)
    table.add_column('layer')
    for network in probe:
        table.add_column(network, justify='right')
        table.add_column('correct', justify='right')
    for layer in next(iter(probe.values()), ()):  # none if the probe was stopped after the pixels
        cells = []
        for rows in probe.values():
            cells += [f'{rows[layer]["accuracy"]:.2f}', _correct(rows[layer])]
        table.add_row(layer, *cells)
    console.print(
        f'Linear classifiers on frozen features of {results["dataset"]}, {results["train"]:,} training and'
        f' {results["test"]:,} test images; accuracy in %',
        soft_wrap=True,
    )
    console.print(table)
    if pixels:
        console.print(f'raw pixels: {pixels["accuracy"]:.2f} % ({_correct(pixels)})')


def _print_transfer(console, results):
    table = Table(box=box.MARKDOWN)
    for name in ('protocol', 'part'):
        table.add_column(name)
    for name in ('training images', 'accuracy', 'correct'):
        table.add_column(name, justify='right')
    for protocol, parts in results['transfer'].items():
        for part, row in parts.items():
            if 'mean' in row:
                accuracy = f'{row["mean"]:.2f} +- {row["deviation"]:.2f}'
                table.add_row(protocol, part, f'{row["folds"]} x {row["train"]:,}', accuracy, '')
            else:
                table.add_row(protocol, part, f'{row["train"]:,}', f'{row["accuracy"]:.2f}', _correct(row))
    console.print(
        f'Transfer to {results["dataset"]}; accuracy in % on test images, and over folds its mean and sample standard'
        f' deviation (divided by the folds less one)',
        soft_wrap=True,
    )
    console.print(table)


def _correct(row):
    return f'{row["correct"]:,} / {row["count"]:,}'
