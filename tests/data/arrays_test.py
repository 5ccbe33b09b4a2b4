import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from artifacts_jax.configs import default
from artifacts_jax.data import arrays, splits
from artifacts_jax.data.source import DataError
from tests import compiling

ROOT = Path(__file__).parents[2]
IMAGES = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), np.uint8)
LABELS = np.arange(40) % 4


def options(name, **changes):
    """The default `config.data` with changes."""
    config = default.get_config().data
    config.update(name=str(name), size=16, **changes)
    return config


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / 'train.npz', image=IMAGES, label=LABELS, label_names=list('abcd'))
    np.savez_compressed(tmp_path / 'test.npz', image=IMAGES[:10], label=LABELS[:10])
    return tmp_path


def test_stored_arrays_are_mapped_and_compressed_ones_read(folder):
    images, labels, names = arrays.load(options(folder), 'train')
    assert isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert names == ('a', 'b', 'c', 'd')
    images, labels, names = arrays.load(options(folder), 'test')
    assert not isinstance(images, np.memmap)
    np.testing.assert_array_equal(images, IMAGES[:10])
    assert names == ('a', 'b', 'c', 'd')  # which the other file says


def test_batches_are_those_of_the_same_images_in_memory(folder):
    mapped = splits.load(options(folder), 'train', seed=3)
    memory = splits.InMemory(IMAGES, LABELS.astype(np.int32), tuple('abcd'), 3)
    assert (mapped.num_examples, mapped.num_classes) == (40, 4)
    for batch, expected in zip(mapped.eval_batches(16), memory.eval_batches(16), strict=True):
        assert all(np.array_equal(batch[name], expected[name]) for name in expected)
    for step in (0, 7):
        batch, expected = mapped.batch(step, 16), memory.batch(step, 16)
        assert all(np.array_equal(batch[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ('split', 'rows'), [('train[:25%]', slice(10)), ('train[30:]', slice(30, 40)), ('train[-5:]', slice(35, 40))]
)
@pytest.mark.parametrize('loading', ['memory', 'stream'])
def test_splits_are_cut(folder, split, rows, loading):
    images, labels, _ = arrays.load(options(folder, loading=loading), split)
    np.testing.assert_array_equal(images[:], IMAGES[rows])
    np.testing.assert_array_equal(labels, LABELS[rows])
    np.testing.assert_array_equal(splits.original_order(options(folder), split), np.arange(len(labels)))


@pytest.mark.parametrize('name', ['train.npz', '.'])
def test_without_a_test_split_a_tenth_is_held_out(folder, name, capsys):
    (folder / 'test.npz').unlink()
    config = options(folder / name)
    (train, _, _), (test, labels, _) = arrays.load(config, 'train'), arrays.load(config, 'test')
    assert len(test) == len(labels) == 4
    together = {image.tobytes() for image in (*train[:], *test[:])}
    assert together == {image.tobytes() for image in IMAGES}
    np.testing.assert_array_equal(arrays.load(config, 'test')[0][:], test[:])
    assert '4 images are held out as test, the other 36 are train' in capsys.readouterr().out
    config.test = 'train'  # asked for as it is
    assert len(arrays.load(config, 'train')[0]) == 40


def test_unknown_labels_are_none(tmp_path):
    np.savez(tmp_path / 'train.npz', image=IMAGES)
    np.savez(tmp_path / 'test.npz', image=IMAGES, label=np.full(40, -1))
    for split in ('train', 'test'):
        dataset = splits.load(options(tmp_path), split, seed=0)
        assert dataset.num_classes == 0
        assert (dataset.labels == -1).all()


def test_other_sizes_are_resized_as_images_are_elsewhere(tmp_path):
    tf = pytest.importorskip('tensorflow')
    photograph = skimage.data.astronaut()[:300, :400]
    np.savez(tmp_path / 'train.npz', image=photograph[None])
    for loading in ('memory', 'stream'):
        images, _, _ = arrays.load(options(tmp_path, loading=loading, test='train'), 'train')
        resized = tf.image.resize(photograph, (16, 21), antialias=True)
        expected = tf.image.resize_with_crop_or_pad(resized, 16, 16).numpy()
        assert np.abs(images[:][0] - expected).mean() < 1
        assert np.abs(images[:][0] - expected).max() < 4
    assert isinstance(images, arrays.Rows)


BAD = {
    'no image': {'images': IMAGES},
    'floating point': {'image': IMAGES / 255},
    'int64': {'image': IMAGES.astype(int)},
    'channels first': {'image': IMAGES.transpose(0, 3, 1, 2)},
    'grey': {'image': IMAGES[..., 0]},
    'alpha': {'image': np.zeros((2, 16, 16, 4), np.uint8)},
    'objects': {'image': np.array([IMAGES, None], object)},
    'none': {'image': IMAGES[:0]},
    'labels of others': {'image': IMAGES, 'label': LABELS[:5]},
    'fractions': {'image': IMAGES, 'label': LABELS / 2},
    'labels without a name': {'image': IMAGES, 'label': LABELS, 'label_names': ['a', 'b']},
    'labels below -1': {'image': IMAGES, 'label': LABELS - 3},
    'names that are numbers': {'image': IMAGES, 'label': LABELS, 'label_names': [1, 2, 3, 4]},
}
SAID = {
    'no image': 'has no array `image`, but: images; expected uint8',
    'floating point': r'image is float64 \[40, 16, 16, 3\], expected .*round\(\)\.astype',
    'int64': r'image is int64',
    'channels first': r'transpose\(0, 2, 3, 1\)',
    'grey': 'of grey make three channels',
    'alpha': 'drop the alpha channel',
    'objects': 'Python objects|pickle',
    'none': r'image is uint8 \[0, 16, 16, 3\]',
    'labels of others': r'label \[5\] should be \[40\]',
    'fractions': r'label is float64 \[40\], expected integers',
    'labels without a name': 'labels from 0 to 3, expected 0 to 1, or -1',
    'labels below -1': r'labels from -3 to 0, expected 0 to \.\.\., or -1',
    'names that are numbers': 'label_names is int64',
}


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
@pytest.mark.parametrize('case', BAD)
def test_what_is_no_data_is_one_error(tmp_path, case, save):
    save(tmp_path / 'train.npz', **BAD[case])
    with pytest.raises(DataError, match=SAID[case]):
        arrays.load(options(tmp_path, test='train'), 'train')


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_damaged_files_are_one_error(tmp_path, save):
    path = tmp_path / 'train.npz'
    save(path, image=IMAGES)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo('image.npy').header_offset + len(whole) // 2
    broken = bytearray(whole)
    broken[middle] ^= 0xFF
    for damaged in (whole[:-40], whole[:100], b'', b'PK', bytes(broken)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match='cannot be read'):
            arrays.load(options(tmp_path, test='train'), 'train')


@pytest.mark.parametrize('split', ['validation', 'train+test', 'train[', 'train[5:5]', ''])
def test_splits_that_are_not_there_are_named(folder, split):
    with pytest.raises(DataError, match=r'no split|is empty'):
        arrays.load(options(folder), split)


def test_data_that_has_moved_is_found_in_data_dir(folder, tmp_path_factory):
    moved = tmp_path_factory.mktemp('moved') / 'images'
    folder.rename(moved)
    for data_dir in (moved, moved.parent):
        config = options(folder.with_name('images'), data_dir=str(data_dir))
        assert len(arrays.load(config, 'train')[0]) == 40
    with pytest.raises(DataError, match=r'there is no folder .*images, and nothing of it in /nowhere'):
        arrays.files(options(folder.with_name('images'), data_dir='/nowhere'))


BLOCKED = """
import sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition('.')[0] not in ('tensorflow', 'tensorflow_datasets', 'clu', 'tensorboard'):
            return PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
"""
SMALL = """
from artifacts_jax.configs import default

def get_config():
    config = default.get_config()
    config.batch_size, config.data.size, config.data.name = 8, 16, 'data'
    config.model.update(
        image_size=16, encoder_widths=(4, 8, 8), widths=(4, 8, 8, 8, 8), kernels=(3,) * 5, conv1_stride=1, hidden=16
    )
    config.autoencoder.steps = config.artifacts.steps = 2
    config.probe.update(max_values=64, iterations=5, batch_size=16)
    config.update(log_every=1, eval_every=2, eval_examples=16)
    return config
"""


@pytest.mark.slow
def test_a_whole_run_needs_no_tensorflow(tmp_path):
    (tmp_path / 'site').mkdir()
    (tmp_path / 'site' / 'sitecustomize.py').write_text(BLOCKED)
    (tmp_path / 'small.py').write_text(SMALL)
    (tmp_path / 'data').mkdir()
    for split, count in (('train', 24), ('test', 16)):
        np.savez(tmp_path / 'data' / f'{split}.npz', image=IMAGES[:count], label=LABELS[:count])
    script = (
        'import numpy as np, artifacts_jax; f = artifacts_jax.load_features("run/export");'
        'print(f(np.zeros((2, 16, 16, 3), np.uint8))["conv5"].shape)'
    )
    environment = {
        **os.environ,
        'HOME': str(tmp_path),
        'PYTHONPATH': f'{tmp_path / "site"}:{ROOT}',
        'XLA_FLAGS': compiling.xla_flags(1),
    }

    def run(*command):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ''), done.stderr
        return done.stdout

    said = run('-m', 'artifacts_jax.main', '--config=small.py', '--workdir=run')
    assert said.count('TensorBoard gets no files') == 1
    assert 'probe: done' in said
    run('-m', 'artifacts_jax.figures', '--workdir=run', '--bank=16')
    assert run('-c', script) == '(2, 4, 4, 8)\n'
