"""Records the examples of a split that cannot be used, each once, with the reason."""

import dataclasses
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = 'skipped.tsv'  # in the work directory: lists all skipped examples
MAX_NAMES = 3  # of skipped examples in a warning


@dataclasses.dataclass(eq=False)
class SkippedExamples:
    """The skipped examples of one split; `len` is their number so far."""

    split: str = ''  # its name, for messages
    examples: int = 0  # number of examples of the split
    live: bool = False  # whether the 1st, 10th, 100th, ... skipped example is reported at once
    _reasons: dict = dataclasses.field(default_factory=dict)
    _file: Path | None = None
    _written: set = dataclasses.field(default_factory=set)  # lines of the file
    _size: int = -1  # of the file when its lines were read, bytes
    _lock: Any = dataclasses.field(default_factory=threading.Lock)

    def __len__(self):
        return len(self._reasons)

    def count_all(self) -> int:
        """Returns the number of skipped examples, including those that other processes and earlier runs wrote."""
        with self._lock:
            names, split = {_field(name) for name in self._reasons}, _field(self.split)
            if self._file and self._file.exists():
                lines = self._file.read_text(encoding='utf-8', errors='replace').splitlines()
                rows = [line.split('\t') for line in lines]
                names.update(row[1] for row in rows if len(row) == 3 and row[0] == split)
            return len(names)

    def add(self, name: str, reason: str) -> None:
        """Adds a skipped example; does nothing if the example was added before."""
        with self._lock:
            if name in self._reasons:
                return
            self._reasons[name] = reason
            self._write([(name, reason)])
            if self.live and str(len(self)).strip('0') == '1':
                self.report()

    def write_to(self, file: Path) -> None:
        """Appends all skipped examples to a file, also those that are added later.

        A line has split, name and reason, separated by tabs. No line is written twice.
        """
        with self._lock:
            self._file = file
            self._write(self._reasons.items())

    def report(self) -> None:
        """Prints a warning with the number of skipped examples and the first names, if there are any."""
        if not self._reasons:
            return
        names = [f'{name} ({reason})' for name, reason in list(self._reasons.items())[:MAX_NAMES]]
        more = ', ...' if len(self) > MAX_NAMES else ''
        file = f'; for all of them see {self._file}' if self._file else ''
        print(
            f'warning: skipped {len(self):,} of {self.examples:,} images of {self.split}'
            f'{" so far" * self.live}: {", ".join(names)}{more}{file}',
            file=sys.stderr,
            flush=True,
        )

    def _write(self, reasons):
        if not self._file or not reasons:
            return
        lines = ['\t'.join(map(_field, (self.split, *reason))) for reason in reasons]
        with self._file.open('a+', encoding='utf-8', errors='replace') as file:
            if file.tell() != self._size:  # other processes and earlier runs also write to the file
                file.seek(0)
                self._written.update(file.read().splitlines())
            new = [line for line in lines if line not in self._written]
            file.write(''.join(f'{line}\n' for line in new))
            self._written.update(new)
            self._size = file.tell()


def report_streamed(records: Iterable[SkippedExamples]) -> None:
    """Reports the skipped examples of each streamed split once; those of other splits were reported after loading."""
    for record in {record.split: record for record in sorted(records, key=len)}.values():
        if record.live:
            record.report()


def _field(text):
    return ' '.join(text.split())
