"""What a work directory has of results: results.json, the numbers of every evaluation, and results.txt, as tables."""

import functools
import hashlib
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from artifacts_jax import config as configuration
from artifacts_jax import renamed
from artifacts_jax.devices import processes
from artifacts_jax.files import write_atomically

TRAINED = ', state '  # in what names a learned network
UNTRAINED = 'random'  # and what names one that stands in its place, and has learned nothing, begins with
RESULTS_FILE, TABLES_FILE = 'results.json', 'results.txt'


def read(workdir: Path) -> dict:
    """Returns the results so far, {} if there are none.

    Raises:
      ConfigError: the file is damaged.
    """
    path = Path(workdir) / RESULTS_FILE
    try:
        found = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise configuration.ConfigError(
            f'{path} cannot be read ({error}): move it away; what it had is made anew'
        ) from error
    if not isinstance(found, dict):
        raise configuration.ConfigError(f'{path} has no results of a run: move it away, or use another --workdir')
    return _renamed(found)


def _renamed(found):
    """Returns results with the new names of stages and keys."""
    found = {{'made_from': 'provenance'}.get(name, name): value for name, value in renamed.rename_keys(found).items()}
    if 'provenance' in found:
        found['provenance'] = renamed.rename_keys(found['provenance'])
    if 'replaced' in found:
        found['replaced'] = [
            {
                'part': renamed.to_new_name(row['part']),
                'provenance': row.get('provenance', row.get('made_from')),
                'result': row['result'],
            }
            for row in found['replaced']
        ]
    return found


def write(workdir: Path, results: dict | list) -> None:
    """Writes the results so far, after every number that took long."""
    write_json(Path(workdir) / RESULTS_FILE, results)


def compute_provenance(network: str, config: ConfigDict, task: str) -> dict:
    """Returns what a task's result is made from: the state of a network, and a digest of the settings that decide.

    Settings that are the defaults are left out, so that keys which a later version adds change nothing.
    """
    known, values = (
        configuration.get_declarations(),
        configuration.select_settings(configuration.flatten(config.to_dict()), task),
    )
    values = {renamed.to_old_name(key): value for key, value in values.items() if value != known[key].default}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return {'network': network, 'settings': digest}


def get_row(found: dict, name: str) -> dict | None:
    """Returns a row of the results, None if there is none.

    Args:
      found: the results.
      name: such as 'probe/learned': the keys that lead to it.
    """
    for key in name.split('/'):
        found = found.get(key, {})
    return found or None


def has_rows(found: dict, task: str) -> bool:
    """Returns whether the results have a row of a task; earlier versions have left sections without any."""

    def holds(tree):
        return any(map(holds, tree.values())) if isinstance(tree, dict) else True

    return holds(found.get(task, {}))


def is_current(found: dict, name: str, provenance: dict) -> bool:
    """Returns whether results have a row that was made from what is there now; arguments as of `get` and `put`."""
    return get_row(found, name) is not None and found.get('provenance', {}).get(name) == provenance


def add_row(found: dict, name: str, row: dict, provenance: dict) -> None:
    """Adds a row to the results.

    Args:
      found: the results, which are changed.
      name: as of `get`.
      row: numbers and texts.
      provenance: names what it was made from, as of `origin`.
    """
    *path, last = name.split('/')
    functools.reduce(lambda tree, key: tree.setdefault(key, {}), path, found)[last] = row
    found.setdefault('provenance', {})[name] = provenance


def move_to_replaced(found: dict, name: str) -> None:
    """Moves a row, if there is one, to the list 'replaced' of the results, and prints that; arguments as of `get`."""
    if (row := get_row(found, name)) is None:
        return
    _pop(found, name.split('/'))
    note = found.get('provenance', {}).pop(name, None)
    found.setdefault('replaced', []).append({'part': name, 'provenance': note, 'result': row})
    print(f'{name}: what results.json has was made from something else; it is now under "replaced"', flush=True)


def _pop(tree, path):
    """Removes the row at a path of keys, and what then holds nothing."""
    key, *rest = path
    if rest:
        _pop(tree[key], rest)
    if not rest or not tree[key]:
        del tree[key]


def get_label(found: dict, part: str) -> str:
    """Returns what a table calls a network that was evaluated here: 'here', or that it has learned nothing.

    Args:
      found: the results.
      part: its row's name, as of `get`.
    """
    note = found.get('provenance', {}).get(part, {})
    return 'here, random network' if note.get('network', '').startswith(UNTRAINED) else 'here'


def replace_outdated(workdir: Path, provenance: str) -> None:
    """Moves to 'replaced' the results of learned networks other than the one that is named."""
    found = read(workdir)
    notes = found.get('provenance', {})
    older = [name for name, note in notes.items() if TRAINED in note['network'] and note['network'] != provenance]
    for name in older:
        move_to_replaced(found, name)
        notes.pop(name, None)
    if older:
        write(workdir, found)


def write_tables(workdir: Path, text: str) -> None:
    """Writes the results as tables."""
    if processes.is_first():
        write_atomically(Path(workdir) / TABLES_FILE, text)


def write_json(path: Path, value: dict | list) -> None:
    """Writes a JSON file, whole or not at all, and the folders that it is in; of several processes the first does."""
    if processes.is_first():
        write_atomically(path, json.dumps(value, indent=2) + '\n')


def write_config(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json, by which a work directory keeps to its configuration."""
    write_json(Path(workdir) / 'config.json', configuration.to_json(config.to_dict()))


def format_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Returns a table of text in Markdown; all columns but the first `left` are aligned to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=box.MARKDOWN)
    for n, heading in enumerate(headings):
        grid.add_column(heading, justify='left' if n < left else 'right')
    for row in rows:
        grid.add_row(*row)
    text = io.StringIO()
    Console(width=250, file=text).print(grid)
    return ''.join(line + '\n' for line in text.getvalue().splitlines() if line.strip())


def format_network_table(
    headings: Sequence[str],
    networks: Mapping[str, Mapping[Any, dict]],
    columns: Callable[[dict], dict[str, str]],
) -> str:
    """Returns a table of text of what networks reach at layers, side by side.

    Args:
      headings: of the first columns.
      networks: {network: {what is in the first columns: result}}; a network may lack some, whose cells are '-'.
      columns: returns the cells of a result, {heading: text}; the heading '' becomes the network's name.
    """
    cells = {name: {key: columns(row) for key, row in rows.items()} for name, rows in networks.items()}
    heads = {name: list(next(iter(rows.values()))) for name, rows in cells.items()}
    keys = dict.fromkeys(key for rows in reversed(cells.values()) for key in rows)  # first those of the last one
    rows = [
        [*key, *(cells[name].get(key, {}).get(head, '-') for name in cells for head in heads[name])] for key in keys
    ]
    return format_table([*headings, *(head or name for name in cells for head in heads[name])], rows)


def format_fraction(row: dict) -> str:
    """Returns 'correct / count' of a result."""
    return f'{row["correct"]:,} / {row["count"]:,}'


def to_percent(value: float | None) -> float | None:
    """Returns a fraction in %, None of None or nan."""
    return None if value is None or math.isnan(value) else 100 * float(value)


def format_number(value: float | None, digits: int = 1) -> str:
    """Returns a number for a table, '-' where there is none."""
    return '-' if value is None else f'{value:.{digits}f}'
