"""Whole runs in processes of their own, started as a user does, and compared with one another."""

import concurrent.futures
import dataclasses
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax.configs import default
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import loop, report
from tests.compiling import xla_flags
from tests.forks import Forks

ROOT = Path(__file__).parents[1]
CONFIG = """
from artifacts_jax.configs import default

def get_config():
    config = default.get_config()
    config.stages = ('autoencoder', 'artifacts')
    config.batch_size, config.data.size, config.data.name = 8, 16, {folder!r}
    config.model.update(
        image_size=16, encoder_widths=(4, 8, 8), widths=(4, 8, 8, 8, 8), kernels=(3,) * 5, conv1_stride=1, hidden=16
    )
    config.autoencoder.steps = config.artifacts.steps = 20
    config.optim.epsilon = 1e-2  # rounding errors in tiny gradients should not become whole steps of Adam
    config.probe.update(max_values=64, iterations=20, batch_size=16)
    config.monitor.update(bank=32, queries=16, neighbours=5)
    config.update(log_every=1, eval_every=5, checkpoint_every=10, eval_examples=16)
    return config
"""


def find_port():
    """Returns a port of this machine that is free."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


@dataclasses.dataclass
class Runs:
    """Starts main as a user does, with 20 steps of each stage at 16 pixels, in work directories under `folder`.

    What they compile is kept in `cache`. As `forks` they have imported everything before, and draw nothing, which would
    take a third of their time. Without, they are processes of their own, in which modules are sought in the folders
    `first` before all others.
    """

    folder: Path
    cache: Path
    forks: Forks | None = None
    first: tuple[Path, ...] = ()
    _kept: dict = dataclasses.field(default_factory=dict)

    def start(self, name, *options, processes=1, devices=1):
        """Returns the processes of a run, which have so many devices each."""
        command = ['main', f'--config={self.folder / "small.py"}', *options]
        if processes > 1:
            command.append('--config.checkpoint_every=5')  # they wait seconds for one another at each
        command.append(f'--workdir={self.folder / name}')
        meeting = [f'--coordinator=127.0.0.1:{find_port()}', f'--processes={processes}']
        commands = [[*command, *meeting, f'--process={n}'] for n in range(processes)] if processes > 1 else [command]
        return [self.process(*command, devices=devices) for command in commands]

    def process(self, module, *arguments, devices=1):
        """Returns the process of a command, which shares what the others have compiled."""
        if self.forks:
            return self.forks.begin(*arguments, module=module, drawn=False, XLA_FLAGS=xla_flags(devices))
        environment = {
            **os.environ,
            'XLA_FLAGS': xla_flags(devices),
            'PYTHONPATH': os.pathsep.join(map(str, (*self.first, ROOT))),
            'JAX_COMPILATION_CACHE_DIR': str(self.cache),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        command = [sys.executable, '-m', f'artifacts_jax.{module}', *arguments]
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes)

    def end(self, run):
        """Waits for the processes of a run; returns their [(exit status, stdout, stderr)]."""
        try:
            with concurrent.futures.ThreadPoolExecutor(len(run)) as pool:  # a full pipe should not stop the others
                texts = list(pool.map(lambda process: process.communicate(timeout=600), run))
        finally:
            for process in run:
                process.kill()  # nothing, to one that has ended
        return [(process.returncode, *text) for process, text in zip(run, texts)]

    def finish(self, name, *options, **counts):
        """Runs to the end, and returns what the first process printed."""
        ended = self.end(self.start(name, *options, **counts))
        assert [status for status, _, _ in ended] == [0] * len(ended), ended
        return ended[0][1]

    def wait_for_step(self, name, step):
        """Waits until a run has logged so many steps of its first stage."""
        path, end = self.folder / name / autoencoder.NAME / 'metrics.jsonl', time.monotonic() + 300
        while not path.exists() or f'"step": {step},' not in path.read_text():
            if time.monotonic() > end:
                raise TimeoutError(f'{path} has not come to step {step}')
            time.sleep(0.05)

    def rows(self, name, stage):
        """Returns the metrics of a stage, without what a clock decides."""
        kept = report.read_metrics(self.folder / name / stage.NAME / 'metrics.jsonl')
        return [{key: x for key, x in row.items() if key != 'train/images_per_second'} for row in kept]

    def state(self, name, stage):
        """Returns the final state of a stage."""
        config, _ = configuration.load(self.folder / name, default.get_config())
        return loop.load_final_state(stage, config, self.folder / name, Devices('jit', jax.devices()[:1]))

    def check_close(self, name, other):
        """Asserts that two runs have learned the same, in either stage, at every step, but for rounding."""
        for stage in (autoencoder, artifacts):
            for row, expected in zip(self.rows(name, stage), self.rows(other, stage), strict=True):
                losses = {key: x for key, x in row.items() if key.startswith('train/loss')}
                assert losses == pytest.approx({key: expected[key] for key in losses}, rel=2e-3, abs=1e-5)
            ended, (begun, expected) = self.state(name, stage), self._expected(other, stage)
            jax.tree.map(partial(np.testing.assert_allclose, atol=1e-4, rtol=2e-3), ended.variables, expected.variables)
            # The step is small, so that what is learned is compared by itself.
            jax.tree.map(self._check_learned, ended.params, expected.params, begun.params)

    def _expected(self, name, stage):
        """Returns the states of a stage at its begin and end; many runs are compared with the same."""
        if (name, stage.NAME) not in self._kept:
            config, _ = configuration.load(self.folder / name, default.get_config())
            begun = loop.make_initial_state(stage, config, Devices('jit', jax.devices()[:1]), None)
            self._kept[name, stage.NAME] = begun, self.state(name, stage)
        return self._kept[name, stage.NAME]

    @staticmethod
    def _check_learned(ended, expected, begun):
        difference, learned = (np.linalg.norm(np.ravel(x)) for x in (ended - expected, expected - begun))
        assert difference <= 0.03 * learned + 1e-6 * np.sqrt(begun.size)
