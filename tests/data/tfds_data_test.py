"""Prepared tfds data sets in all formats, read without TensorFlow; and damaged or missing data sets."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from artifacts_jax.data import preparation, splits, tfds_data
from artifacts_jax.devices import host
from tests.data.splits_test import options

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)


def build(folder, features, examples, *, file_format='tfrecord'):
    """Prepares a tfds data set with one split, from {key: value} examples, in small shards."""
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Mine(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version('1.0.0')

            def _info(self):
                return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

            def _split_generators(self, dl_manager):
                return {'train': list(enumerate(examples))}

            def _generate_examples(self):
                raise NotImplementedError

    config = tfds.download.DownloadConfig(num_shards=3)
    Mine(data_dir=folder, file_format=file_format).download_and_prepare(download_config=config)


@pytest.fixture(scope='module')
def sets(tmp_path_factory):
    """Returns {format: folder} of one data set with 30 images of two classes, in three files."""
    import tensorflow_datasets as tfds

    features = {
        'image': tfds.features.Image(shape=(8, 8, 3), encoding_format='png'),
        'label': tfds.features.ClassLabel(names=['cat', 'dog']),
        'file_name': tfds.features.Text(),
    }
    examples = [{'image': image, 'label': n % 2, 'file_name': f'{n}.png'} for n, image in enumerate(IMAGES)]
    folders = {each: tmp_path_factory.mktemp(each) for each in ('tfrecord', 'array_record', 'parquet')}
    for file_format, folder in folders.items():
        build(folder, features, examples, file_format=file_format)
    return folders


def of(folder, **changes):
    return options(**{'name': 'mine', 'data_dir': str(folder), 'size': 8, 'test': 'train', **changes})


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record', 'parquet'])
@pytest.mark.parametrize('loading', ['memory', 'stream'])
def test_every_format_is_read(sets, file_format, loading, capsys):
    dataset = splits.load(of(sets[file_format], loading=loading), 'train', seed=0)
    assert dataset.label_names == ('cat', 'dog')
    (batch,) = dataset.eval_batches(30)
    order = [np.flatnonzero((image == IMAGES).all(axis=(1, 2, 3))).item() for image in batch['image']]
    assert sorted(order) == list(range(30))
    np.testing.assert_array_equal(batch['label'], np.array(order) % 2)
    assert ('python -m artifacts_jax.prepare mine' in capsys.readouterr().out) == (file_format == 'tfrecord')
    (part,) = splits.load(of(sets[file_format], loading=loading), 'train[33%:50%]', seed=0).eval_batches(5)
    np.testing.assert_array_equal(part['image'], batch['image'][10:15])


def test_examples_have_their_names(sets):
    records = splits.open_data(of(sets['array_record']))['train']
    assert sorted(records[n].name for n in range(30)) == sorted(f'{n}.png' for n in range(30))


@pytest.mark.slow
def test_reading_needs_no_tensorflow(sets):
    code = f"""
import sys
from artifacts_jax.data import splits
from tests.data.tfds_data_test import of
for folder in {list(map(str, sets.values()))}:
    next(splits.load(of(folder, loading='stream'), 'train', seed=0).train_batches(4))
sys.exit('tensorflow' in sys.modules)
"""
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, '-c', code], check=False, cwd=root).returncode == 0


def test_a_conversion_keeps_every_example(sets, tmp_path):
    import shutil

    folder = shutil.copytree(sets['tfrecord'], tmp_path / 'data')
    before = splits.load(of(folder), 'train', seed=0)
    stopped = next((folder / 'mine' / '1.0.0').glob('*train*00001-of*'))  # as of an attempt that was stopped
    stopped.with_name(stopped.name.replace('tfrecord', 'array_record') + '.part').write_bytes(b'half')
    assert preparation.prepare('mine', str(folder)).endswith('is converted to array_record')
    assert not list(folder.rglob('*.part'))
    for path in folder.rglob('*.tfrecord*'):
        path.unlink()
    after = splits.load(of(folder), 'train', seed=0)
    np.testing.assert_array_equal(after.images, before.images)
    np.testing.assert_array_equal(after.labels, before.labels)
    assert 'is already prepared' in preparation.prepare('mine', str(folder))


def test_unlabelled_images_have_label_minus_one(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    builder = tfds.builder('stl10', data_dir=tmp_path, try_gcs=False)
    examples = [(n, {'image': np.full((96, 96, 3), n, np.uint8), 'label': -1}) for n in range(5)]
    monkeypatch.setattr(builder, '_split_generators', lambda dl_manager: {'unlabelled': examples})
    builder.download_and_prepare()
    for loading in ('memory', 'stream'):
        dataset = splits.load(options(name='stl10', data_dir=str(tmp_path), loading=loading), 'unlabelled', seed=0)
        assert dataset.num_classes == 0
        (batch,) = dataset.eval_batches(5)
        np.testing.assert_array_equal(batch['label'], -1)
        assert sorted(batch['image'][:, 0, 0, 0]) == [0, 1, 2, 3, 4]


@pytest.fixture
def features():
    import tensorflow_datasets as tfds

    return {
        'picture': (tfds.features.Image(shape=(8, 8, 3)), IMAGES[0]),
        'grey': (tfds.features.Image(shape=(8, 8, 1)), IMAGES[0][..., :1]),
        'deep': (tfds.features.Image(shape=(8, 8, 1), dtype=np.uint16, encoding_format='png'),
                 np.full((8, 8, 1), 4095, np.uint16)),
        'class': (tfds.features.ClassLabel(names=['a', 'b']), 1),
        'classes': (tfds.features.Sequence(tfds.features.ClassLabel(names=['a', 'b'])), [0, 1]),
        'text': (tfds.features.Text(), 'a'),
    }  # fmt: skip


@pytest.mark.parametrize('file_format', ['tfrecord', 'array_record'])
def test_image_and_label_keys(tmp_path, features, file_format, capsys):
    build(tmp_path, {k: f for k, (f, _) in features.items()}, [{k: x for k, (_, x) in features.items()}] * 3,
          file_format=file_format)  # fmt: skip
    with pytest.raises(
        splits.DataError, match=r'^data.image_key=image: .* no images in this feature; set it to .*picture'
    ):
        splits.load(of(tmp_path), 'train', seed=0)
    with pytest.raises(splits.DataError, match=r'^data.image_key=text: .* has no images in this feature'):
        splits.load(of(tmp_path, image_key='text'), 'train', seed=0)
    for key in ('label', 'classes', 'text'):
        dataset = splits.load(of(tmp_path, image_key='picture', label_key=key), 'train', seed=0)
        assert dataset.num_classes == 0
        assert 'mine is used without labels: ' in capsys.readouterr().out
    dataset = splits.load(of(tmp_path, image_key='picture', label_key='class'), 'train', seed=0)
    assert dataset.num_classes == 2
    np.testing.assert_array_equal(dataset.labels, 1)
    np.testing.assert_array_equal(dataset.images[0], IMAGES[0])
    np.testing.assert_array_equal(splits.load(of(tmp_path, image_key='deep'), 'train', seed=0).images, 255)
    grey = splits.load(of(tmp_path, image_key='grey'), 'train', seed=0).images[0]
    np.testing.assert_array_equal(grey, np.repeat(IMAGES[0][..., :1], 3, axis=-1))
    assert 'have mode L (Pillow modes); they are converted to RGB' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'name': 'cifar01'}, 'tfds has no data set of this name; did you mean .*cifar10'),
        ({'name': 'imagenet-2012'}, 'data.name=imagenet-2012: .* tfds has no .* did you mean imagenet2012'),
        ({'name': 'my images'}, 'data.name=my images: it is not a folder'),
        ({'name': 'data/images'}, 'data.name=data/images: it is not a folder'),
        ({'name': 'some/data/images'}, 'data.name=some/data/images: .* not the name of a tfds data set'),
        ({'name': 'stl10'}, r'stl10 is not prepared in .* with: python -m artifacts_jax.prepare stl10 --data_dir='),
        ({'name': '/nowhere/images'}, 'data.name=/nowhere/images: this folder .*FOLDER/SPLIT/CLASS/IMAGE.jpg'),
    ],
)  # fmt: skip
def test_errors_of_missing_data_give_the_path_and_the_command(tmp_path, changes, message):
    with pytest.raises(splits.DataError, match=message):
        splits.load(options(data_dir=str(tmp_path), **changes), 'train', seed=0)


def test_without_tensorflow_the_errors_give_the_command_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'tensorflow', None)  # it cannot be imported
    with pytest.raises(splits.DataError) as caught:
        splits.load(options(data_dir=str(tmp_path), name='stl10'), 'train', seed=0)
    assert f'prepare it with: {host.TENSORFLOW} (preparing needs it), then: python -m' in str(caught.value)
    with pytest.raises(splits.DataError, match=r'^stl10: .* needs TensorFlow') as caught:
        preparation.prepare('stl10', str(tmp_path))
    assert str(caught.value).endswith(f'install it with: {host.TENSORFLOW}')


@pytest.mark.parametrize(
    ('file_format', 'damage'),
    [
        *itertools.product(['tfrecord', 'array_record'], ['cut', 'flip', 'empty', 'gone']),
        *itertools.product(['parquet'], ['cut', 'empty', 'gone']),  # Parquet files of tfds have no checksums
    ],
)
def test_damaged_files_are_one_error(sets, tmp_path, file_format, damage):
    import shutil

    folder = shutil.copytree(sets[file_format], tmp_path / 'data')
    path = sorted(folder.rglob('*-of-*'))[1]
    content = bytearray(path.read_bytes())
    if damage == 'gone':
        path.unlink()
    else:
        content[len(content) // 2] ^= 0xFF
        path.write_bytes({'cut': content[: len(content) // 2], 'flip': content, 'empty': b''}[damage])
    with pytest.raises(splits.DataError, match=r'damaged|cannot be read|No such file'):
        list(splits.load(of(folder), 'train', seed=0).eval_batches(10))


def test_examples_with_invalid_labels_are_skipped(sets, monkeypatch, capsys):
    original = tfds_data.TfdsSplit.__getitem__

    def twice(records, index):
        example = original(records, index)
        return example._replace(label=2 * example.label)

    monkeypatch.setattr(tfds_data.TfdsSplit, '__getitem__', twice)
    dataset = splits.load(of(sets['array_record']), 'train', seed=0)
    assert set(dataset.labels) == {0}
    output = capsys.readouterr().err
    assert 'skipped 15 of 30 images of train of mine: ' in output
    assert '.png (label 2 is outside of the 2 classes), ...' in output
    with pytest.raises(splits.DataError, match='were skipped'):
        dataset.subset(np.arange(2))


def test_too_little_disk_space_is_an_error(sets, tmp_path, monkeypatch):
    import shutil

    folder = shutil.copytree(sets['tfrecord'], tmp_path / 'data')
    monkeypatch.setattr(preparation.shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(splits.DataError, match=r'mine needs .* but .* has only 0\.0 MB free'):
        preparation.prepare('mine', str(folder))


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('photographs', 'needs no preparation'),
        ('imagenet2012', r'Put its original files into \S+/downloads/manual and run.*ILSVRC2012_img_train.tar'),
        ('voc/2006', 'voc/2006: .*BuilderConfig 2006 not found'),
        ('cifar01', 'no data set of this name; did you mean'),
    ],
)
def test_data_sets_that_cannot_be_prepared(tmp_path, name, message):
    with pytest.raises(splits.DataError, match=message):
        preparation.prepare(name, str(tmp_path))


def test_a_failed_download_is_one_error(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def fail(builder, **options):
        raise ConnectionError('no network\nmore')

    monkeypatch.setattr(tfds.core.DatasetBuilder, 'download_and_prepare', fail)
    with pytest.raises(splits.DataError, match=r'cifar10 could not be prepared \(no network\)'):
        preparation.prepare('cifar10', str(tmp_path))
