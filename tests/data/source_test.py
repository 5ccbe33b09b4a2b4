import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from artifacts_jax.data import source, splits
from tests.data.splits_test import options, same, take

SHARED = Path(__file__).parents[3] / 'shared' / 'tfds'


@pytest.fixture
def save(tmp_path):
    """Writes an image into the folder data set tmp_path, of one class, and returns its path."""
    folder = tmp_path / 'train' / 'ramp'
    folder.mkdir(parents=True)

    def save(image, name):
        PIL.Image.fromarray(np.ascontiguousarray(image)).save(folder / name)
        return folder / name

    return save


RAMP = np.broadcast_to(np.arange(96, dtype=np.uint8)[None], (32, 96))  # grey and wide


@pytest.mark.parametrize('name', ['grey.png', 'grey.jpg', 'colour.png', 'colour.jpg'])
@pytest.mark.parametrize('tall', [False, True])
def test_images_become_central_squares(tmp_path, save, name, tall):
    ramp = RAMP.T if tall else RAMP
    save(np.stack([ramp] * 3, axis=-1) if 'colour' in name else ramp, name)
    dataset = splits.load(options(name=str(tmp_path), size=16), 'train', seed=0)
    image = dataset.images[0].astype(int)
    assert dataset.label_names == ('ramp',)
    assert dataset.labels == [0]
    assert image.shape == (16, 16, 3)
    # Half the size, so that a pixel is the mean of two columns; the central 16 of 48 begin at column 32.
    expected = np.broadcast_to(32.5 + 2 * np.arange(16), (16, 16))
    np.testing.assert_allclose(image, np.stack([expected.T if tall else expected] * 3, axis=-1), atol=2)


def test_images_of_the_right_size_are_kept_bit_for_bit(tmp_path, save):
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    save(image, '0.png')
    dataset = splits.load(options(name=str(tmp_path), size=16), 'train', seed=0)
    np.testing.assert_array_equal(dataset.images[0], image)


def test_unlabelled_images_have_label_minus_one(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    builder = tfds.builder('stl10', data_dir=tmp_path, try_gcs=False)
    examples = [(n, {'image': np.full((96, 96, 3), n, np.uint8), 'label': -1}) for n in range(5)]
    monkeypatch.setattr(builder, '_split_generators', lambda dl_manager: {'unlabelled': examples})
    builder.download_and_prepare()
    for loading in ('memory', 'stream'):
        dataset = splits.load(options(name='stl10', data_dir=str(tmp_path), loading=loading), 'unlabelled', seed=0)
        (batch,) = dataset.eval_batches(5)
        np.testing.assert_array_equal(batch['label'], -1)
        assert sorted(batch['image'][:, 0, 0, 0]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ('changes', 'split', 'message'),
    [
        ({'name': 'cifar01'}, 'train', "tfds has no data set 'cifar01'; near it: .*cifar10"),
        ({'name': 'stl10'}, 'train', 'stl10 is not prepared in .*; prepare it with: tfds build stl10 --data_dir='),
        ({'name': '/nowhere/images'}, 'train', 'there is no folder /nowhere/images, .*FOLDER/SPLIT/CLASS/IMAGE.jpg'),
    ],
)
def test_missing_data_says_where_it_looked_and_what_to_do(tmp_path, changes, split, message):
    with pytest.raises(splits.DataError, match=message):
        splits.load(options(data_dir=str(tmp_path), **changes), split, seed=0)


def test_unknown_split_names_those_there_are(photograph_folder):
    with pytest.raises(splits.DataError, match=r"no split 'validation'; there are: (train, test|test, train)"):
        splits.load(options(name=str(photograph_folder)), 'validation', seed=0)


def test_part_of_a_folders_split_cannot_be_asked_for(photograph_folder):
    with pytest.raises(splits.DataError, match=r"is a folder, whose splits cannot be cut: 'train\[:50%\]'"):
        splits.load(options(name=str(photograph_folder)), 'train[:50%]', seed=0)


def test_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(splits.DataError, match=r'no images in .*FOLDER/SPLIT/CLASS/IMAGE.jpg'):
        splits.load(options(name=str(tmp_path)), 'train', seed=0)


@pytest.fixture
def damaged_folder(tmp_path, save):
    """A folder data set of images that are odd, of which four can be used: their names begin with 'whole'."""
    ramp = np.resize(RAMP, (16, 16))
    save(ramp, 'whole grey.png')
    save(np.stack([ramp] * 4, axis=-1), 'whole RGBA.png')
    save(ramp[:1, :1], 'whole 1x1.png')
    save(np.stack([ramp] * 3, axis=-1), 'whole colour.jpg')
    for name in ('cut.png', 'cut.jpg'):
        path = save(ramp, name)
        path.write_bytes(path.read_bytes()[:40])
    (path.parent / 'empty.png').write_bytes(b'')
    (path.parent / 'text.jpg').write_text('no image')
    return tmp_path


@pytest.mark.parametrize('loading', ['memory', 'stream'])
def test_images_that_cannot_be_read_are_left_out_and_named_once(damaged_folder, loading, capsys):
    config = options(name=str(damaged_folder), size=16, loading=loading, shuffle_buffer=10)
    dataset = splits.load(config, 'train', seed=0)
    for _ in range(2):
        batches = list(dataset.eval_batches(3))
        assert sum(batch['mask'].sum() for batch in batches) == 4
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 4
    assert '(4 of 8 so far)' in warnings[3]
    for name in ('cut.png', 'cut.jpg', 'empty.png', 'text.jpg'):
        assert any(f'/{name} of' in warning for warning in warnings), name
    images = {image.tobytes() for b in batches for image, keep in zip(b['image'], b['mask']) if keep}
    first = take(dataset.train_batches(8), 4)
    assert {image.tobytes() for batch in first for image in batch['image']} == images
    assert same(first[2:], take(dataset.train_batches(8, start_step=2), 2))


@pytest.mark.parametrize('loading', ['memory', 'stream'])
def test_a_split_without_a_whole_image_is_an_error(tmp_path, save, loading):
    save(RAMP, '0.png').write_bytes(b'')
    with pytest.raises(splits.DataError, match='can be used'):
        next(splits.load(options(name=str(tmp_path), size=16, loading=loading), 'train', seed=0).train_batches(1))


def test_an_example_without_a_class_is_left_out(photograph_folder, monkeypatch, capsys):
    original = source.Source._decode

    def decode(source, example):
        decoded = original(source, example)
        return {**decoded, 'label': 2 * decoded['label']}

    monkeypatch.setattr(source.Source, '_decode', decode)
    dataset = splits.load(options(name=str(photograph_folder), size=16), 'test', seed=0)
    assert set(dataset.labels) == {0}
    assert 'label 2 of 2 classes' in capsys.readouterr().err
    with pytest.raises(splits.DataError, match='were left out'):
        dataset.subset(np.arange(2))


def test_importing_costs_no_tensorflow():
    imports = 'artifacts_jax.pretraining.artifacts, artifacts_jax.data.splits'
    code = f'import sys, {imports}; sys.exit("tensorflow" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.skipif(not SHARED.exists(), reason=f'no prepared CIFAR-10 in {SHARED}')
def test_prepared_cifar10_is_read():
    config = options(name='cifar10', data_dir=str(SHARED), size=32, loading='stream')
    dataset = splits.load(config, 'test[:32]', seed=0)
    (batch,) = dataset.eval_batches(32)
    assert dataset.num_classes == 10
    assert batch['image'].shape == (32, 32, 32, 3)
    assert len(set(batch['label'])) > 5
