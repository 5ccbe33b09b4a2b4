"""What a person sees of a stage: a progress bar or plain lines, metrics on disk, and curves."""

import collections
import contextlib
import json
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from artifacts_jax.drawing import plots
from artifacts_jax.files import write_atomically
from artifacts_jax.renamed import find_stage_folder
from artifacts_jax.training import results, tensorboard


class Report:
    """Writes the metrics of one stage and shows its progress; use it as a context.

    metrics.jsonl has one line for each logged step and each evaluation: 'step', then 'train/NAME' or 'test/NAME'.
    TensorBoard gets the same.

    Args:
      workdir: the run's work directory.
      stage: the stage's name.
      start: steps done before; later lines of an earlier attempt are dropped.
      steps: the stage's steps in all.
      batch_size: images in a global batch.
      log_every: steps between lines of metrics.
      shown: {heading: name} of the held-out metrics that a person is shown; all are written.
    """

    def __init__(
        self,
        workdir: Path,
        stage: str,
        start: int,
        *,
        steps: int,
        batch_size: int,
        log_every: int,
        shown: dict[str, str],
    ):
        self.stage, self.figures = stage, workdir / 'figures'
        self._path = find_stage_folder(workdir, stage) / 'metrics.jsonl'
        self._tensorboard, self._log_every = find_stage_folder(workdir / 'tensorboard', stage), log_every
        self._steps, self._start, self._batch_size, self._held_out = steps, start, batch_size, shown
        self._shown, self._paused, self._spent = (time.monotonic(), start), 0.0, collections.defaultdict(float)
        self._progress = _progress() if sys.stdout.isatty() else None

    def __enter__(self):
        kept = [row for row in read_metrics(self._path) if self._start and row['step'] <= self._start]
        write_atomically(self._path, ''.join(json.dumps(row) + '\n' for row in kept))
        self._file = self._path.open('a', buffering=1)
        self._scalars = tensorboard.Scalars(self._tensorboard)
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
            self._scalars.close()
        except OSError:  # on a full disk
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
        losses = [f'{name.removeprefix("loss/")} {x:.4f}' for name, x in values.items() if name.startswith('loss/')]
        found = [f'{name} {x:.3f}' for name, x in values.items() if name.startswith('mask/')]
        line = f'{self.stage} {step:,}/{self._steps:,}  {"  ".join(losses + found)}  {rate:.1f} images/s'
        if self._progress:
            self._progress.update(self._bar, rate=f'{rate:.0f} images/s')
            self._progress.console.print(line, highlight=False)
        else:
            self.say(f'{line}  {left / 60:.1f} min left')

    def test(self, step: int, values: dict) -> None:
        """Writes held-out metrics, and shows those that matter to a person as a small table."""
        self._write(step, 'test', values)
        shown = {heading: f'{values[name]:.4g}' for heading, name in self._held_out.items() if name in values}
        self.say(results.format_table([f'{self.stage}, held out', *shown], [[f'step {step:,}', *shown.values()]]))

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
        plots.curves(self.figures / f'{self.stage.replace("/", "_")}_curves.png', read_metrics(self._path))

    def _write(self, step, split, values):
        named = {f'{split}/{name}': value for name, value in values.items()}
        self._file.write(json.dumps({'step': step, **named}) + '\n')
        self._scalars.write(step, named)


class NullReport:
    """Stands for the Report in the processes that do not write it: every method does nothing."""

    def __init__(self, workdir: Path, stage: str, start: int, **options):
        del workdir, start, options
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


def read_metrics(path: Path) -> list[dict]:
    """Returns the rows of a metrics.jsonl, [] if there is none; a last line cut short by a crash is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith('\n')]


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
