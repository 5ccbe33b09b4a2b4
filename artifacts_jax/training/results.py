"""The results of a work directory: results.json, with the numbers of every evaluation, and results.txt, with tables."""

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
from artifacts_jax import old_names
from artifacts_jax.devices import processes
from artifacts_jax.files import write_atomically

TRAINED = ', state '  # part of the provenance of every trained network
UNTRAINED = 'random'  # the provenance of an untrained network begins with this word
RESULTS_FILE, TABLES_FILE = 'results.json', 'results.txt'


def read(workdir: Path) -> dict:
    """Returns the results in a work directory, {} if there are none.

    Raises:
      ConfigError: the file cannot be read.
    """
    path = Path(workdir) / RESULTS_FILE
    try:
        results = json.loads(path.read_text()) if path.exists() else {}
    except ValueError as error:
        raise configuration.ConfigError(
            f'{path} cannot be read ({error}): move it away and run again; its results are then computed again'
        ) from error
    if not isinstance(results, dict):
        raise configuration.ConfigError(
            f'{path} does not have the results of a run: move it away, or use another --workdir'
        )
    return _convert_names(results)


def _convert_names(results):
    """Returns results with the current names of stages and keys, for files of earlier versions."""
    results = {
        {'made_from': 'provenance'}.get(name, name): value for name, value in old_names.rename_keys(results).items()
    }
    if 'provenance' in results:
        results['provenance'] = old_names.rename_keys(results['provenance'])
    if 'replaced' in results:
        results['replaced'] = [
            {
                'part': old_names.to_new_name(row['part']),
                'provenance': row.get('provenance', row.get('made_from')),
                'result': row['result'],
            }
            for row in results['replaced']
        ]
    return results


def write(workdir: Path, results: dict | list) -> None:
    """Writes results.json."""
    write_json(Path(workdir) / RESULTS_FILE, results)


def compute_provenance(network: str, config: ConfigDict, task: str) -> dict:
    """Returns the provenance of a result: {'network', 'settings': digest of the settings that the result depends on}.

    Settings with their default values are excluded, so that keys of later versions do not change the digest.
    """
    declarations, values = (
        configuration.get_declarations(),
        configuration.select_settings(configuration.flatten(config.to_dict()), task),
    )
    values = {old_names.to_old_name(key): value for key, value in values.items() if value != declarations[key].default}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return {'network': network, 'settings': digest}


def get_row(results: dict, name: str) -> dict | None:
    """Returns a row of the results, None if it does not exist.

    Args:
      results: all results.
      name: the keys of the row, joined by slashes, such as 'probe/learned'.
    """
    for key in name.split('/'):
        results = results.get(key, {})
    return results or None


def has_rows(results: dict, task: str) -> bool:
    """Returns whether the results have a row of a task; earlier versions also wrote empty sections."""

    def has_leaf(tree):
        return any(map(has_leaf, tree.values())) if isinstance(tree, dict) else True

    return has_leaf(results.get(task, {}))


def is_current(results: dict, name: str, provenance: dict) -> bool:
    """Returns whether the results have a row with this provenance; arguments as for `add_row`."""
    return get_row(results, name) is not None and results.get('provenance', {}).get(name) == provenance


def add_row(results: dict, name: str, row: dict, provenance: dict) -> None:
    """Adds a row to the results.

    Args:
      results: all results, which are changed in place.
      name: as for `get_row`.
      row: numbers and texts.
      provenance: as `compute_provenance` returns it.
    """
    *path, last = name.split('/')
    functools.reduce(lambda tree, key: tree.setdefault(key, {}), path, results)[last] = row
    results.setdefault('provenance', {})[name] = provenance


def move_to_replaced(results: dict, name: str) -> None:
    """Moves a row, if it exists, to the list 'replaced' of the results, and prints this; arguments as for `get_row`."""
    if (row := get_row(results, name)) is None:
        return
    _remove_row(results, name.split('/'))
    provenance = results.get('provenance', {}).pop(name, None)
    results.setdefault('replaced', []).append({'part': name, 'provenance': provenance, 'result': row})
    print(f'{name}: the network or its settings have changed; the earlier result moves to "replaced"', flush=True)


def _remove_row(tree, path):
    """Removes the row at a path of keys, and the dictionaries that are then empty."""
    key, *rest = path
    if rest:
        _remove_row(tree[key], rest)
    if not rest or not tree[key]:
        del tree[key]


def get_label(results: dict, name: str) -> str:
    """Returns the label in a table of a network evaluated by this program: 'here' or 'here, random network'.

    Args:
      results: all results.
      name: the name of its row, as for `get_row`.
    """
    provenance = results.get('provenance', {}).get(name, {})
    return 'here, random network' if provenance.get('network', '').startswith(UNTRAINED) else 'here'


def replace_outdated(workdir: Path, provenance: str) -> None:
    """Moves the results of trained networks with another provenance to 'replaced'."""
    results = read(workdir)
    networks = {name: entry['network'] for name, entry in results.get('provenance', {}).items()}
    outdated = [name for name, network in networks.items() if TRAINED in network and network != provenance]
    for name in outdated:
        move_to_replaced(results, name)
        results['provenance'].pop(name, None)
    if outdated:
        write(workdir, results)


def write_tables(workdir: Path, text: str) -> None:
    """Writes results.txt; only the first process does."""
    if processes.is_first():
        write_atomically(Path(workdir) / TABLES_FILE, text)


def write_json(path: Path, value: dict | list) -> None:
    """Writes a JSON file atomically, and creates its folders; only the first process does."""
    if processes.is_first():
        write_atomically(path, json.dumps(value, indent=2) + '\n')


def write_config(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json, which fixes the configuration of a work directory."""
    write_json(Path(workdir) / 'config.json', configuration.to_json(config.to_dict()))


def format_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Returns a Markdown table; all columns but the first `left` are right-aligned."""
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
    """Returns a Markdown table that compares networks side by side, with one row per layer or other key.

    Args:
      headings: headings of the first columns.
      networks: {network: {texts of the first columns: row}}; the cells of missing rows are '-'.
      columns: maps a row to its cells, {heading: text}; the heading '' is replaced by the name of the network.
    """
    cells = {name: {key: columns(row) for key, row in rows.items()} for name, rows in networks.items()}
    heads = {name: list(next(iter(rows.values()))) for name, rows in cells.items()}
    keys = dict.fromkeys(
        key for rows in reversed(cells.values()) for key in rows
    )  # the rows of the last network come first
    rows = [
        [*key, *(cells[name].get(key, {}).get(head, '-') for name in cells for head in heads[name])] for key in keys
    ]
    return format_table([*headings, *(head or name for name in cells for head in heads[name])], rows)


def format_fraction(row: dict) -> str:
    """Returns the text 'correct / count' for a row."""
    return f'{row["correct"]:,} / {row["count"]:,}'


def to_percent(value: float | None) -> float | None:
    """Returns a fraction in percent; None for None or NaN."""
    return None if value is None or math.isnan(value) else 100 * float(value)


def format_number(value: float | None, digits: int = 1) -> str:
    """Returns a number as text for a table, '-' for None."""
    return '-' if value is None else f'{value:.{digits}f}'
