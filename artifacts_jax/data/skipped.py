"""The examples of a split that cannot be used, each named once with the reason."""

import dataclasses
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FILE = 'skipped.tsv'  # in a work directory, has all
NAMED = 3  # examples that a warning names


@dataclasses.dataclass(eq=False)
class SkippedExamples:
    """Those of one split; `len` is how many there are so far."""

    split: str = ''  # the split, for messages
    examples: int = 0  # how many it has
    live: bool = False  # whether the 1st, 10th, 100th, ... is reported when it is found
    _reasons: dict = dataclasses.field(default_factory=dict)
    _file: Path | None = None
    _written: set = dataclasses.field(default_factory=set)  # the lines of the file
    _size: int = -1  # of the file, when they were read
    _lock: Any = dataclasses.field(default_factory=threading.Lock)

    def __len__(self):
        return len(self._reasons)

    def count_all(self) -> int:
        """Returns how many there are, with those that other processes and earlier runs have named in the file."""
        with self._lock:
            names, place = {_field(name) for name in self._reasons}, _field(self.split)
            if self._file and self._file.exists():
                lines = self._file.read_text(encoding='utf-8', errors='replace').splitlines()
                rows = [line.split('\t') for line in lines]
                names.update(row[1] for row in rows if len(row) == 3 and row[0] == place)
            return len(names)

    def add(self, name: str, reason: str) -> None:
        """Takes an example, which may have been taken before."""
        with self._lock:
            if name in self._reasons:
                return
            self._reasons[name] = reason
            self._write([(name, reason)])
            if self.live and str(len(self)).strip('0') == '1':
                self.report()

    def write_to(self, file: Path) -> None:
        """Adds a line for each to a file, from now on: split, name and reason, with tabs between; each line once."""
        with self._lock:
            self._file = file
            self._write(self._reasons.items())

    def report(self) -> None:
        """Says how many there are, with the first names, if there are any."""
        if not self._reasons:
            return
        names = [f'{name} ({reason})' for name, reason in list(self._reasons.items())[:NAMED]]
        more = ', ...' if len(self) > NAMED else ''
        where = f'; all are in {self._file}' if self._file else ''
        print(
            f'warning: left out {len(self):,} of {self.examples:,} images of {self.split}'
            f'{" so far" * self.live}: {", ".join(names)}{more}{where}',
            file=sys.stderr,
            flush=True,
        )

    def _write(self, reasons):
        if not self._file or not reasons:
            return
        lines = ['\t'.join(map(_field, (self.split, *reason))) for reason in reasons]
        with self._file.open('a+', encoding='utf-8', errors='replace') as file:
            if file.tell() != self._size:  # other processes, and earlier runs, write here, too
                file.seek(0)
                self._written.update(file.read().splitlines())
            new = [line for line in lines if line not in self._written]
            file.write(''.join(f'{line}\n' for line in new))
            self._written.update(new)
            self._size = file.tell()


def report_streamed(records: Iterable[SkippedExamples]) -> None:
    """Reports once of each streamed split how much has been left out; of others that was reported on reading."""
    for record in {record.split: record for record in sorted(records, key=len)}.values():
        if record.live:
            record.report()


def _field(text):
    return ' '.join(text.split())
