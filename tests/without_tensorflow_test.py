"""The whole method on data from arrays, where TensorFlow and what needs it cannot be imported: nothing tries to."""

import numpy as np
import pytest
import skimage.data

import artifacts_jax
from artifacts_jax.training import report
from tests.runs import CONFIG, Runs

# Python imports it when it starts. Who only asks whether a module is there, as JAX and etils do, is told that it is
# not.
HIDE = """
import importlib.machinery, traceback

found = importlib.machinery.PathFinder.find_spec

def find_spec(name, *arguments):
    if name.partition('.')[0] not in ('tensorflow', 'tensorflow_datasets', 'tensorboard'):
        return found(name, *arguments)
    stack = traceback.extract_stack()
    if not any(frame.filename == '<frozen importlib.util>' for frame in stack):
        with open({log!r}, 'a') as file:
            file.write(name + ''.join(traceback.format_list(stack[-10:])))

importlib.machinery.PathFinder.find_spec = find_spec
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder of crops of two photographs: train.npz as they are needed, test.npz compressed, and larger."""
    folder, random = tmp_path_factory.mktemp('arrays'), np.random.default_rng(0)
    photographs = skimage.data.astronaut(), skimage.data.coffee()

    def crops(count, side):
        corners = random.integers(0, 400 - side, (2, count, 2))
        return np.stack(
            [image[y : y + side, x : x + side] for image, part in zip(photographs, corners) for y, x in part]
        )

    np.savez(folder / 'train.npz', image=crops(24, 16), label=np.repeat([0, 1], 24))
    names = ['astronaut', 'coffee']
    np.savez_compressed(folder / 'test.npz', image=crops(10, 20), label=np.repeat([0, 1], 10), label_names=names)
    return folder


@pytest.fixture(scope='module')
def run(tmp_path_factory, folder, programs):
    """(Runs, what main printed, the file of imports that were tried) of a whole run."""
    place = tmp_path_factory.mktemp('without')
    log, first = place / 'imports.txt', place / 'first'
    first.mkdir()
    (first / 'sitecustomize.py').write_text(HIDE.format(log=str(log)))
    runs = Runs(place, programs, first=(first,))
    (place / 'small.py').write_text(CONFIG.format(folder=str(folder)))
    said = runs.finish('run', "--config.stages=('autoencoder', 'artifacts', 'probe')")
    return runs, said, log


def test_the_whole_method_runs(run):
    runs, said, log = run
    assert not log.exists(), log.read_text()
    assert list((runs.folder / 'run' / 'tensorboard' / 'artifacts').iterdir())
    assert 'raw pixels' in said
    assert [row['step'] for row in report.read_metrics(runs.folder / 'run' / 'artifacts' / 'metrics.jsonl')][-1] == 20


@pytest.mark.nightly
def test_its_figures_are_drawn(run):
    runs, _, log = run
    ((status, said, errors),) = runs.end([runs.process('figures', f'--workdir={runs.folder / "run"}')])
    assert status == 0, errors
    assert not log.exists(), log.read_text()
    assert 'the figures are in' in said
    assert (runs.folder / 'run' / 'figures' / 'neighbours.png').exists()


def test_its_export_is_loaded(run):
    runs, _, _ = run
    features = artifacts_jax.load_features(runs.folder / 'run' / 'export')
    assert features(np.zeros((2, 16, 16, 3), np.uint8))['conv5'].shape == (2, 4, 4, 8)


@pytest.mark.nightly
def test_the_demonstration_begins(run):
    runs, _, log = run
    options = ["--config.stages=('autoencoder',)", '--config.autoencoder.steps=2', '--config.figure_every=100']
    demo = runs.process('main', '--config=configs/demo.py', f'--workdir={runs.folder / "demo"}', *options)
    ((status, said, errors),) = runs.end([demo])
    assert status == 0, errors
    assert not log.exists(), log.read_text()
    assert 'autoencoder: all 2 steps are done' in said


def test_other_data_say_what_is_missing(run):
    runs, _, log = run
    ((status, _, errors),) = runs.end(runs.start('other', '--config.data.name=cifar10'))
    assert status == 1
    assert errors.startswith('error: cifar10 needs tensorflow_datasets, which is not installed')
    assert errors.count('\n') == 1
    assert not (runs.folder / 'other').exists()
    assert 'tfds_data.py' in log.read_text()  # that it was tried
    log.unlink()
