"""Settings (four CPU devices, strict rank promotion) and shared fixtures: a tiny network, real images, whole runs."""

from tests import checking, compiling  # noqa: F401 (imported first: JAX and the package read these settings)

# isort: split
import shutil
import tarfile
from functools import partial
from pathlib import Path

import jax
import jaxtyping
import numpy as np
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.configs import default
from artifacts_jax.drawing import plots, sheet
from artifacts_jax.pretraining import artifacts, autoencoder
from artifacts_jax.training import keys
from artifacts_jax.transfer.voc.segmentation import batches
from tests import changed
from tests.earlier import workdirs
from tests.forks import Forks
from tests.runs import CONFIG, Runs, find_port

SHARED = {'runs': ('runs_test', 'processes_test', 'kill_test')}
LONGEST = (
    'runs_test processes_test kill_test pipeline_test earlier_test detection/task_test classification/task_test'
    ' docs_test layerwise/task_test without_tensorflow_test contract_test parallel_test segmentation/task_test'
    ' loop_test recipe_test study_test stl10_test figures_test variants_test artifacts_test tf1_test wheel_test'
    ' fuzz_test checkpoint_test products_test golden_test fcn_test command_test'
).split()

jax.config.update('jax_numpy_rank_promotion', 'raise')


def pytest_configure(config):
    """Shares compiled programs between tests, and with the previous test run."""
    jax.config.update('jax_compilation_cache_dir', str(config.cache.mkdir('jax')))
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)


def pytest_addoption(parser):
    parser.addoption(
        '--changed',
        nargs='?',
        const='HEAD',
        metavar='REVISION',
        help='run only tests that are affected by changes since REVISION; default: by uncommitted changes',
    )


def pytest_collection_modifyitems(config, items):
    """Applies --changed, and sorts the longest files first, so that all workers finish at the same time."""
    if revision := config.getoption('changed'):
        affected, selected = changed.modules(changed.files(revision)), {True: [], False: []}
        for item in items:
            selected[affected is None or changed.is_affected(item, affected)].append(item)
        config.hook.pytest_deselected(items=selected[False])
        items[:] = selected[True]

    def sort_key(item):
        path = item.path.with_suffix('').as_posix()
        return next((n for n, name in enumerate(LONGEST) if path.endswith(f'/{name}')), len(LONGEST))

    items.sort(key=sort_key)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Runs all tests of a file in one worker of pytest-xdist, and so all files that share a whole run (SHARED)."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.split('::')[0].removesuffix('.py')
            return next((shared for shared, names in SHARED.items() if path.rpartition('/')[2] in names), path)

    return ByFile(config, log)


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
    """A copy of the tiny config, which a test may change."""
    return tiny()


@pytest.fixture
def unchecked(monkeypatch):
    """Disables type checks, as for users, to test the errors that a function itself raises."""
    monkeypatch.setattr(jaxtyping.config, 'jaxtyping_disable', True)


@pytest.fixture
def undrawn():
    """Disables plots, which take as long as a few training steps and their compilation."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((plots, 'plot_curves'), (sheet, 'draw')):
            patch.setattr(module, name, lambda *arguments, **options: None)
        yield


@pytest.fixture(scope='session')
def batch():
    """A batch of eight random images, for tests that do not need photographs."""
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
def unpacked(tmp_path_factory):
    """The unpacked archive of tests/earlier, which tests must not change."""
    folder = tmp_path_factory.mktemp('unpacked')
    with tarfile.open(workdirs.ARCHIVE) as archive:
        archive.extractall(folder, filter='data')
    return folder


@pytest.fixture
def earlier(unpacked, tmp_path, monkeypatch):
    """A copy of `unpacked` as the current directory, because all paths in it are relative."""
    folder = shutil.copytree(unpacked, tmp_path / 'earlier')
    monkeypatch.chdir(folder)
    monkeypatch.setattr(batches, 'SIZE_MULTIPLE', 24)
    return folder


@pytest.fixture
def earlier_data(unpacked, monkeypatch):
    """`unpacked` itself as the current directory, for tests that write nothing."""
    monkeypatch.chdir(unpacked)
    monkeypatch.setattr(batches, 'SIZE_MULTIPLE', 24)
    return unpacked


@pytest.fixture(scope='session')
def finished_run(tmp_path_factory, photograph_folder):
    """(config, work directory, results) of one whole run on crops of real photographs, on four devices."""
    config, workdir = tiny(), tmp_path_factory.mktemp('run')
    config.data.name = str(photograph_folder)
    config.data.train = config.data.probe_train = 'train'
    return config, workdir, pipeline.run(configuration.check(config), workdir)


@pytest.fixture(scope='session')
def programs():
    """The folder of compiled programs, shared by all workers and the processes that tests start."""
    return Path(jax.config.jax_compilation_cache_dir)


@pytest.fixture
def free_port():
    return find_port()


@pytest.fixture(scope='session')
def runs(tmp_path_factory, photograph_folder, forks, programs):
    """Whole runs in separate processes; 'whole' is an uninterrupted run on one device."""
    runs = Runs(tmp_path_factory.mktemp('runs'), programs, forks)
    (runs.folder / 'small.py').write_text(CONFIG.format(folder=str(photograph_folder)))
    runs.finish('whole')
    return runs


@pytest.fixture(scope='session')
def forks(tmp_path_factory, programs):
    """Starts commands as a user does, but in tenths of a second, by forking."""
    with Forks(tmp_path_factory.mktemp('forks'), programs) as forks:
        yield forks


@pytest.fixture(scope='session')
def read_png():
    """Returns a function that reads a PNG file as uint8 [H, W, 3]."""
    from PIL import Image

    def read(path):
        with Image.open(path) as image:
            assert image.format == 'PNG'
            return np.asarray(image.convert('RGB'))

    return read
