"""The driver of every evaluation: it keeps current rows of results.json, evaluates the rest and writes the results.

An evaluation, or task, is a module with

    NAME                                  its name in config.stages, and the name of its section of the config
    SPLITS                                keys of config.data: the splits of the data that it needs
    check(config, devices)                raises ConfigError if the task cannot run on this machine
    open_data(config, datasets)           returns its validated data; raises DataError, or NotApplicable
    list_entries(config, networks)             returns {entry: the Network to evaluate}, in order
    evaluate(run, data, entry)            returns the row of results.json for an Entry
    summary(row)                          returns lines of text with the numbers of a row, to be printed
    table(all_results)                    returns a table, as text, of all rows of the task

Optional functions:

    is_complete(config, row)              returns whether a current row has every requested result
    check_results(config, all_results)    raises DataError if the task cannot add rows to the present results
    metadata(run, data)                   returns top-level keys of results.json, besides the task's section
    clean_up(run, all_results)            called when every entry is current
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
    """A task cannot use the data and is skipped; the message gives the reason."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A discriminator that is evaluated."""

    provenance: str  # identifies the state of the network
    load: Callable[[], dict]  # returns {'params': {'discriminator': tree}, 'batch_stats': ...}

    @property
    def variables(self) -> dict:
        """The discriminator's variables, in the form that Flax's `apply` takes."""
        return {kind: tree['discriminator'] for kind, tree in self.load().items()}

    @property
    def trunk(self) -> dict:
        """The variables of the discriminator's trunk."""
        return {kind: tree['trunk'] for kind, tree in self.variables.items()}


class Entry(NamedTuple):
    """The network and settings of one row of the results."""

    name: str  # such as voc_detection/single_scale_frozen1; also the folder of its training
    network: Network
    settings: str  # a digest of the settings that its result depends on
    rows: dict  # the present rows of the task in results.json
    pending: tuple[str, ...]  # keys of this entry and of those that are evaluated after it

    @property
    def key(self) -> str:
        """The name without the prefix of the task."""
        return self.name.partition('/')[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """The configuration, devices, data sets and networks of a run, for every task."""

    config: ConfigDict
    workdir: Path
    devices: Devices
    datasets: Datasets
    networks: dict = dataclasses.field(default_factory=dict)  # 'random' and 'learned'
    task_data: dict = dataclasses.field(default_factory=dict)  # {task: its validated data}
    tracked: list = dataclasses.field(default_factory=list)  # data sets of the current task, for skipped examples

    def data(self, task) -> Any:
        """Returns the validated data of a task, which is opened at the first call.

        Raises:
          DataError: the data is missing or invalid.
          NotApplicable: the task cannot use the data.
        """
        if task.NAME not in self.task_data:
            self.task_data[task.NAME] = task.open_data(self.config, self.datasets)
        return self.task_data[task.NAME]

    def train(self, stage, entry: Entry, datasets: dict) -> State:
        """Trains a stage to its last step, starting from an entry's network; arguments and errors as in loop.run."""
        base = entry.network.load()
        return loop.run(stage, self.config, self.workdir, self.devices, datasets, base, settings_digest=entry.settings)

    def track_skipped(self, *readers: Any) -> None:
        """Writes skipped examples of data sets to skipped.tsv at once, and prints their number after the task."""
        for reader in readers:
            reader.skipped.write_to(self.workdir / skipped.FILE)
        self.tracked.extend(readers)


def list_networks(config: ConfigDict, networks: dict[str, Network]) -> dict[str, Network]:
    """Returns one entry per network, for tasks that evaluate every network.

    An untrained network in place of the learned one is the random network again, and is skipped.
    """
    del config
    return {
        name: network
        for name, network in networks.items()
        if name != 'learned' or not network.provenance.startswith(results.UNTRAINED)
    }


def evaluate(task, run: Run) -> dict:
    """Evaluates the missing and outdated entries of a task, and returns all results of the work directory.

    Results are written after each entry. A row with another provenance (network or settings) moves to 'replaced'.

    Args:
      task: a module as above.
      run: the run, with its networks.

    Raises:
      DataError: the data of the task is missing or invalid.
    """
    config, all_results = run.config, results.read(run.workdir)
    check_results(task, config, all_results)
    entries = task.list_entries(config, run.networks)
    provenance = {
        key: results.compute_provenance(network.provenance, config, task.NAME) for key, network in entries.items()
    }
    names = {key: f'{task.NAME}/{key}' for key in entries}
    current = {key for key in entries if results.is_current(all_results, names[key], provenance[key])}
    pending = [
        key
        for key in entries
        if key not in current or not _is_complete(task, config, results.get_row(all_results, names[key]))
    ]
    try:
        data = run.data(task) if pending else None
    except NotApplicable as reason:
        print(f'{task.NAME}: skipped: {reason}')
        return all_results
    for key in pending:
        if key not in current:
            results.move_to_replaced(all_results, names[key])
    try:
        for n, key in enumerate(pending):
            print(f'{names[key]}: evaluation', flush=True)
            rows, settings = all_results.get(task.NAME, {}), provenance[key]['settings']
            row = task.evaluate(run, data, Entry(names[key], entries[key], settings, rows, tuple(pending[n:])))
            results.add_row(all_results, names[key], row, provenance[key])
            if hasattr(task, 'metadata'):
                all_results.update(task.metadata(run, data))
            results.write(run.workdir, all_results)
            if processes.is_first():
                for line in task.summary(row):
                    print(f'{names[key]}:   {line}', flush=True)
    finally:
        skipped.report_streamed(reader.skipped for reader in run.tracked)
        run.tracked.clear()
    if hasattr(task, 'clean_up'):
        task.clean_up(run, all_results)
    return all_results


def check_results(task, config: ConfigDict, all_results: dict) -> None:
    """Raises DataError if a task cannot add rows to the present results."""
    if hasattr(task, 'check_results'):
        task.check_results(config, all_results)


def _is_complete(task, config, row):
    return not hasattr(task, 'is_complete') or task.is_complete(config, row)
