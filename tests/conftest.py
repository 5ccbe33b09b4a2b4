"""Four CPU devices, strict ranks, and what several tests share: a tiny network, real images, compiled steps."""

import concurrent.futures
import dataclasses
import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={os.environ.get("DEVICES", 4)}'
)
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
# Tests, and the runs that they start, compile more than they compute. With 0 here, all is compiled as users have it,
# and so are those that use the fixture `optimised`.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')

import jax
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.devices.parallel import Devices
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import keys, loop, report
from configs import default

ROOT = Path(__file__).parents[1]

jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_configure(config):
    """Has tests that compile the same program share it, with those of the last time, too."""
    jax.config.update('jax_compilation_cache_dir', str(config.cache.mkdir('jax')))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def tiny():
    """A config whose steps compile in seconds: 16-pixel images, a 4x4 mask, four to eight channels."""
    config = default.get_config()
    config.batch_size = 8
    config.data.size = 16
    config.model.update(
        image_size=16,
        encoder_widths=(4, 8, 8),
        widths=(4, 8, 8, 8, 8),
        kernels=(3, 3, 3, 3, 3),
        conv1_stride=1,
        hidden=16,
    )
    config.autoencoder.steps = config.artifacts.steps = 6
    config.probe.update(max_values=64, iterations=20, batch_size=16)
    config.monitor.update(bank=32, queries=16, neighbours=5)
    config.update(log_every=1, eval_every=4, figure_every=100, checkpoint_every=3, eval_examples=16)
    return config


@pytest.fixture
def config():
    """A copy of the tiny config, to be changed at will."""
    return tiny()


@pytest.fixture(scope='module')
def optimised():
    """Programs are compiled as users have them."""
    name = 'jax_disable_most_optimizations'
    before = jax.config.read(name)
    jax.config.update(name, False)
    yield
    jax.config.update(name, before)


@pytest.fixture(scope='session')
def batch():
    """Eight images of noise, for what real photographs would not test better."""
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    return {'image': images, 'index': np.arange(8, dtype=np.int32)}


@pytest.fixture(scope='session')
def stage_states():
    """{stage module: its state at step 0}, for the tiny network."""
    states, base = {}, None
    for stage in (autoencoder, artifacts):
        init = jax.jit(partial(stage.init_state, config=tiny()))
        states[stage] = init(keys.stage_key(0, stage.NAME), base)
        base = states[stage].variables
    return states


@pytest.fixture(scope='session')
def first_game_steps(stage_states, batch):
    """{updates: (state before, state after, metrics)} of the game's first step, with a moving average of decay 0.9."""
    steps = {}
    for updates in ('alternate', 'simultaneous'):
        config = tiny()
        config.artifacts.updates, config.optim.ema_decay = updates, 0.9
        before = stage_states[artifacts]
        before = before.replace(ema=before.params)
        step = jax.jit(partial(artifacts.train_step, config=config))
        steps[updates] = (before, *step(before, batch, keys.stage_key(0, artifacts.NAME)))
    return steps


@pytest.fixture(scope='session')
def photograph_folder(tmp_path_factory):
    """A folder of 16-pixel crops of two real photographs, train/ and test/, in a sub-folder for each class."""
    import skimage.data
    import skimage.io

    root = tmp_path_factory.mktemp('photographs')
    random = np.random.default_rng(0)
    for name in ('astronaut', 'coffee'):
        photograph = getattr(skimage.data, name)()
        for split, rows, count in (('train', (0, 250), 24), ('test', (250, 380), 10)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                y, x = random.integers(*rows), random.integers(0, 400)
                skimage.io.imsave(folder / f'{n}.png', photograph[y : y + 16, x : x + 16], check_contrast=False)
    return root


@pytest.fixture(scope='session')
def finished_run(tmp_path_factory, photograph_folder):
    """(config, work directory, results) of one whole run on crops of real photographs, on four devices."""
    config, workdir = tiny(), tmp_path_factory.mktemp('run')
    config.data.name = str(photograph_folder)
    config.data.train = config.data.probe_train = 'train'
    return config, workdir, pipeline.run(configuration.check(config), workdir)


CONFIG = """
from configs import default

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
    config.update(log_every=1, eval_every=5, checkpoint_every=2, eval_examples=16)
    return config
"""


def find_port():
    """Returns a port of this machine that is free."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


@pytest.fixture
def free_port():
    return find_port()


@dataclasses.dataclass
class Runs:
    """Starts main as a user does, with 20 steps of each stage at 16 pixels, in work directories under `folder`."""

    folder: Path
    _kept: dict = dataclasses.field(default_factory=dict)

    def start(self, name, *options, processes=1, devices=1):
        """Returns the processes of a run, which have so many devices each."""
        environment = {
            **os.environ,
            'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
            'PYTHONPATH': str(ROOT),
            'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'cache'),
            'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
        }
        command = [sys.executable, '-m', 'artifacts_jax.main', f'--config={self.folder / "small.py"}', *options]
        command.append(f'--workdir={self.folder / name}')
        meeting = [f'--coordinator=127.0.0.1:{find_port()}', f'--processes={processes}']
        commands = [[*command, *meeting, f'--process={n}'] for n in range(processes)] if processes > 1 else [command]
        pipes = {'stdout': subprocess.PIPE, 'stderr': subprocess.PIPE, 'text': True}
        return [subprocess.Popen(command, cwd=ROOT, env=environment, **pipes) for command in commands]

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
        kept = report.read(self.folder / name / stage.NAME / 'metrics.jsonl')
        return [{key: x for key, x in row.items() if key != 'train/images_per_second'} for row in kept]

    def state(self, name, stage):
        """Returns the final state of a stage."""
        config, _ = configuration.load(self.folder / name, default.get_config())
        return loop.finished(stage, config, self.folder / name, Devices('jit', jax.devices()[:1]))

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
            begun = loop.initial(stage, config, Devices('jit', jax.devices()[:1]), None)
            self._kept[name, stage.NAME] = begun, self.state(name, stage)
        return self._kept[name, stage.NAME]

    @staticmethod
    def _check_learned(ended, expected, begun):
        difference, learned = (np.linalg.norm(np.ravel(x)) for x in (ended - expected, expected - begun))
        assert difference <= 0.03 * learned + 1e-6 * np.sqrt(begun.size)


@pytest.fixture(scope='session')
def runs(tmp_path_factory, photograph_folder):
    """Whole runs in processes of their own; 'whole' is one that nothing has disturbed, on one device."""
    runs = Runs(tmp_path_factory.mktemp('runs'))
    (runs.folder / 'small.py').write_text(CONFIG.format(folder=str(photograph_folder)))
    runs.finish('whole')
    return runs


@pytest.fixture(scope='session')
def read_png():
    """A function that reads a PNG file as uint8 [H, W, 3]."""
    from PIL import Image

    def read(path):
        with Image.open(path) as image:
            assert image.format == 'PNG'
            return np.asarray(image.convert('RGB'))

    return read
