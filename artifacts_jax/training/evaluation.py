"""The driver of every evaluation: what results.json has and is current stays; the rest is evaluated and written.

An evaluation, or task, is a module with

    NAME                                  in config.stages, and the name of its section of the config
    SPLITS                                of the data, that it needs: keys of config.data
    check(config, devices)                raises ConfigError for what this machine cannot do
    open_data(config, datasets)           returns its validated data; raises DataError, or NotApplicable
    entries(config, networks)             returns {entry: the Network that it evaluates}, in order
    evaluate(run, data, entry)            returns the row of an Entry, as results.json has it
    summary(row)                          returns a row's numbers, one text a line, to be printed
    table(found)                          returns all its rows in the results as text

and, where it needs them, `is_complete(config, row)`: whether a current row has all that is asked for;
`check_results(config, found)`: raises for results that it cannot add to; `metadata(run, data)`: keys that it writes
beside its section; `clean_up(run, found)`: called when every entry is current.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from artifacts_jax.data import skipped
from artifacts_jax.data.splits import Datasets
from artifacts_jax.devices import processes
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.training import loop, results
from artifacts_jax.training.state import State


class NotApplicable(Exception):  # noqa: N818 (no error: the run continues without the task)
    """The data does not suit a task, which is skipped; the message is the reason."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A discriminator that is evaluated."""

    provenance: str  # names its state
    load: Callable[[], dict]  # returns {'params': {'discriminator': tree}, 'batch_stats': ...}, as stages start from

    @property
    def variables(self) -> dict:
        """The discriminator's variables, as Flax takes them."""
        return {kind: tree['discriminator'] for kind, tree in self.load().items()}

    @property
    def trunk(self) -> dict:
        """Its trunk's variables."""
        return {kind: tree['trunk'] for kind, tree in self.variables.items()}


class Entry(NamedTuple):
    """What one row of the results is about."""

    name: str  # such as voc_detection/single_scale_frozen1, also the folder of what is trained
    network: Network
    settings: str  # a digest of the settings that its result depends on
    rows: dict  # of the task so far, as results.json has them
    pending: tuple[str, ...]  # keys of the entries that are evaluated now, this and those after it

    @property
    def key(self) -> str:
        """The name without the task's."""
        return self.name.partition('/')[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, resolved once: what every task needs of it."""

    config: ConfigDict
    workdir: Path
    devices: Devices
    datasets: Datasets
    networks: dict = dataclasses.field(default_factory=dict)  # 'random' and 'learned'
    opened: dict = dataclasses.field(default_factory=dict)  # {task: its data}
    watched: list = dataclasses.field(default_factory=list)  # data sets of the task that runs

    def data(self, task) -> Any:
        """Returns the validated data of a task, opened once.

        Raises:
          DataError: it is missing or invalid.
          NotApplicable: the task does not suit it.
        """
        if task.NAME not in self.opened:
            self.opened[task.NAME] = task.open_data(self.config, self.datasets)
        return self.opened[task.NAME]

    def train(self, stage, entry: Entry, datasets: dict) -> State:
        """Trains a stage on an entry's network to its last step; arguments and errors are those of loop.run."""
        base = entry.network.load()
        return loop.run(stage, self.config, self.workdir, self.devices, datasets, base, settings=entry.settings)

    def watch(self, *readers: Any) -> None:
        """Reports the examples that a task's data sets leave out: in skipped.tsv at once, printed when it is done."""
        for reader in readers:
            reader.skipped.write_to(self.workdir / skipped.FILE)
        self.watched.extend(readers)


def list_networks(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns the entries of a task that evaluates every network: each by its name.

    A learned network that has learned nothing is the random one again, and is left out.
    """
    del config
    return {
        name: network
        for name, network in networks.items()
        if name != 'learned' or not network.provenance.startswith(results.UNTRAINED)
    }


def evaluate(task, run: Run) -> dict:
    """Evaluates what the results of a work directory lack of a task, and returns all results.

    Results are written after each entry. A row that was made from another network or with other settings is kept under
    'replaced'.

    Args:
      task: a module as above.
      run: with its networks.

    Raises:
      DataError: the task's data is missing or invalid.
    """
    config, found = run.config, results.read(run.workdir)
    check_results(task, config, found)
    entries = task.entries(config, run.networks)
    provenance = {
        key: results.compute_provenance(network.provenance, config, task.NAME) for key, network in entries.items()
    }
    names = {key: f'{task.NAME}/{key}' for key in entries}
    current = {key for key in entries if results.is_current(found, names[key], provenance[key])}
    pending = [
        key
        for key in entries
        if key not in current or not _is_complete(task, config, results.get_row(found, names[key]))
    ]
    try:
        data = run.data(task) if pending else None
    except NotApplicable as reason:
        print(f'{task.NAME}: left out: {reason}')
        return found
    for key in pending:
        if key not in current:
            results.move_to_replaced(found, names[key])
    try:
        for n, key in enumerate(pending):
            print(f'{names[key]}: evaluation', flush=True)
            rows, settings = found.get(task.NAME, {}), provenance[key]['settings']
            row = task.evaluate(run, data, Entry(names[key], entries[key], settings, rows, tuple(pending[n:])))
            results.add_row(found, names[key], row, provenance[key])
            if hasattr(task, 'metadata'):
                found.update(task.metadata(run, data))
            results.write(run.workdir, found)
            if processes.is_first():
                for line in task.summary(row):
                    print(f'{names[key]}:   {line}', flush=True)
    finally:
        skipped.report_streamed(reader.skipped for reader in run.watched)
        run.watched.clear()
    if hasattr(task, 'clean_up'):
        task.clean_up(run, found)
    return found


def check_results(task, config: ConfigDict, found: dict) -> None:
    """Raises DataError if a task cannot add to the results that there are."""
    if hasattr(task, 'check_results'):
        task.check_results(config, found)


def _is_complete(task, config, row):
    return not hasattr(task, 'is_complete') or task.is_complete(config, row)
