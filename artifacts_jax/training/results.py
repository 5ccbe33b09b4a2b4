"""What a work directory has of results: results.json, the numbers of every evaluation, and results.txt, as tables."""

import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from artifacts_jax.devices import host, processes

NUMBERS, TABLES = 'results.json', 'results.txt'


def read(workdir: Path) -> dict:
    """Returns the results so far, {} if there are none."""
    path = Path(workdir) / NUMBERS
    return json.loads(path.read_text()) if path.exists() else {}


def write(workdir: Path, results: dict | list) -> None:
    """Writes the results so far, after every number that took long."""
    write_json(Path(workdir) / NUMBERS, results)


def write_tables(workdir: Path, text: str) -> None:
    """Writes the results as tables."""
    if processes.is_first():
        host.write_whole(Path(workdir) / TABLES, text)


def write_json(path: Path, value: dict | list) -> None:
    """Writes a JSON file, whole or not at all, and the folders that it is in; of several processes the first does."""
    if processes.is_first():
        host.write_whole(path, json.dumps(value, indent=2) + '\n')


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Returns a table of text in Markdown; all columns but the first `left` are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.MARKDOWN)
    for n, heading in enumerate(headings):
        grid.add_column(heading, justify='left' if n < left else 'right')
    for row in rows:
        grid.add_row(*row)
    console = Console(width=250, file=io.StringIO())
    console.print(grid)
    return ''.join(line + '\n' for line in console.file.getvalue().splitlines() if line.strip())


def fraction(row: dict) -> str:
    """Returns 'correct / count' of a result."""
    return f'{row["correct"]:,} / {row["count"]:,}'
