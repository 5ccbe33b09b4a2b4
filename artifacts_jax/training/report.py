"""Reports the progress of a stage: a progress bar or plain lines, metrics on disk, and plots of all metrics."""

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
from artifacts_jax.old_names import find_stage_folder
from artifacts_jax.training import results, tensorboard


class Report:
    """Writes the metrics of one stage and prints its progress; a context manager.

    metrics.jsonl has one line for each logged step and each evaluation: 'step', then 'train/NAME' or 'test/NAME'.
    The TensorBoard event files have the same values.

    Args:
      workdir: the run's work directory.
      stage: the stage's name.
      start: completed steps; lines of later steps, from an earlier attempt, are removed from metrics.jsonl.
      steps: the total number of steps of the stage.
      batch_size: images in a global batch.
      log_every: steps between lines of metrics.
      progress_metrics: {heading: name} of the held-out metrics that are printed; all metrics are written to disk.
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
        progress_metrics: dict[str, str],
    ):
        self.stage, self.figures = stage, workdir / 'figures'
        self._path = find_stage_folder(workdir, stage) / 'metrics.jsonl'
        self._tensorboard, self._log_every = find_stage_folder(workdir / 'tensorboard', stage), log_every
        self._steps, self._start, self._batch_size = steps, start, batch_size
        self._progress_metrics = progress_metrics
        self._last_logged = (time.monotonic(), start)  # when the rate was last computed, and at which step
        self._excluded_seconds, self._section_seconds = 0.0, collections.defaultdict(float)
        self._progress = _make_progress_bar() if sys.stdout.isatty() else None

    def __enter__(self):
        rows = [row for row in read_metrics(self._path) if self._start and row['step'] <= self._start]
        write_atomically(self._path, ''.join(json.dumps(row) + '\n' for row in rows))
        self._file = self._path.open('a', buffering=1)
        self._scalars = tensorboard.Scalars(self._tensorboard)
        if self._progress:
            self._progress.start()
            self._bar = self._progress.add_task(self.stage, total=self._steps, completed=self._start, rate='')
        self.log(f'{self.stage}: {self._steps - self._start:,} of {self._steps:,} steps remain')
        self._entered = time.monotonic()
        self._last_logged = (self._entered, self._start)
        return self

    def __exit__(self, kind, error, traceback):
        if self._progress:
            self._progress.stop()
        try:
            self._file.close()
            self._scalars.close()
        except OSError:  # the disk is full
            if error is None:  # an earlier error is more useful than this one
                raise
        seconds = time.monotonic() - self._entered
        shares = ', '.join(f'{100 * spent / seconds:.1f} % {name}' for name, spent in self._section_seconds.items())
        self.log(f'{self.stage}: {seconds:.0f} seconds' + (f', of which {shares}' if shares else ''))

    def log(self, text: str) -> None:
        """Prints a line."""
        print(text, flush=True)

    def log_train(self, step: int, values: dict) -> None:
        """Updates the progress bar; every `log_every` steps also writes and prints the metrics of the step."""
        if self._progress:
            self._progress.update(self._bar, completed=step)
        if step % self._log_every and step != self._steps:
            return
        now, (last_time, last_step) = time.monotonic(), self._last_logged
        seconds = now - last_time - self._excluded_seconds
        rate = (step - last_step) * self._batch_size / max(seconds, 1e-9)
        self._last_logged, self._excluded_seconds = (now, step), 0.0
        seconds_left = (self._steps - step) * self._batch_size / rate
        values = {name: float(value) for name, value in values.items()}
        self._write(step, 'train', {**values, 'images_per_second': rate})
        losses = [f'{name.removeprefix("loss/")} {x:.4f}' for name, x in values.items() if name.startswith('loss/')]
        mask_metrics = [f'{name} {x:.3f}' for name, x in values.items() if name.startswith('mask/')]
        line = f'{self.stage} {step:,}/{self._steps:,}  {"  ".join(losses + mask_metrics)}  {rate:.1f} images/s'
        if self._progress:
            self._progress.update(self._bar, rate=f'{rate:.0f} images/s')
            self._progress.console.print(line, highlight=False)
        else:
            self.log(f'{line}  {seconds_left / 60:.1f} min left')

    def log_test(self, step: int, values: dict) -> None:
        """Writes held-out metrics, and prints the `progress_metrics` as a small table."""
        self._write(step, 'test', values)
        printed = {heading: f'{values[name]:.4g}' for heading, name in self._progress_metrics.items() if name in values}
        self.log(results.format_table([f'{self.stage}, held out', *printed], [[f'step {step:,}', *printed.values()]]))

    @contextlib.contextmanager
    def time_section(self, name: str):
        """Excludes the time in this context from images_per_second; the last line of the stage prints its share."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        self._excluded_seconds += seconds
        self._section_seconds[name] += seconds

    def plot_curves(self) -> None:
        """Plots all metrics so far to figures/STAGE_curves.png; slashes in the stage's name become underscores."""
        plots.plot_curves(self.figures / f'{self.stage.replace("/", "_")}_curves.png', read_metrics(self._path))

    def _write(self, step, split, values):
        named = {f'{split}/{name}': value for name, value in values.items()}
        self._file.write(json.dumps({'step': step, **named}) + '\n')
        self._scalars.write(step, named)


class NullReport:
    """A no-op replacement of Report for all processes but the first."""

    def __init__(self, workdir: Path, stage: str, start: int, **options):
        del workdir, start, options
        self.stage, self.figures = stage, None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        pass

    def log(self, text: str) -> None:
        """As Report.log."""

    def log_train(self, step: int, values: dict) -> None:
        """As Report.log_train."""

    def log_test(self, step: int, values: dict) -> None:
        """As Report.log_test."""

    def time_section(self, name: str):
        """As Report.time_section."""
        del name
        return contextlib.nullcontext()

    def plot_curves(self) -> None:
        """As Report.plot_curves."""


def read_metrics(path: Path) -> list[dict]:
    """Returns the rows of a metrics.jsonl, [] if there is no file; skips a last line cut short by a crash."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith('\n')]


def _make_progress_bar():
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('{task.fields[rate]}'),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console())
