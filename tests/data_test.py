import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from artifacts_jax import data, photographs, source
from configs import default

SHARED = Path(__file__).parents[2] / 'shared' / 'tfds'


def options(**changes):
    """The default `config.data` with changes."""
    config = default.get_config().data
    config.update(changes)
    return config


@pytest.fixture(params=['memory', 'stream'])
def load(request, photograph_folder):
    """Opens the 48 training crops of the folder of photographs, in memory and streamed."""

    def load(split='train', seed=0, **hosts):
        config = options(name=str(photograph_folder), size=16, loading=request.param, shuffle_buffer=10)
        return data.load(config, split, seed=seed, **hosts)

    return load


def take(batches, count):
    return list(itertools.islice(batches, count))


def same(a, b):
    return all(all(np.array_equal(x[name], y[name]) for name in x | y) for x, y in zip(a, b, strict=True))


def prints(batches):
    """One number for each image that the batches' masks count: the crops are all different."""
    return [hash(x.tobytes()) for b in batches for x, keep in zip(b['image'], b.get('mask', b['index'] >= 0)) if keep]


def test_training_restarts_bit_for_bit_at_any_step(load):
    whole = take(load().train_batches(5), 25)  # 125 images: into the third epoch of 48
    for step in (1, 7, 10, 19):
        assert same(take(load().train_batches(5, start_step=step), 25 - step), whole[step:])


def test_epochs_hold_every_example_once_and_differ(load):
    seen = prints(take(load().train_batches(6), 16))  # two epochs of 48
    assert len(set(seen)) == 48
    assert set(seen[:48]) == set(seen[48:])
    assert seen[:48] != seen[48:]
    assert seen != prints(take(load(seed=1).train_batches(6), 16))
    batch = next(load().train_batches(6))
    assert batch['image'].shape == (6, 16, 16, 3)
    assert batch['image'].dtype == np.uint8
    assert set(batch['label']) <= {0, 1}
    np.testing.assert_array_equal(batch['index'], np.arange(6))


@pytest.mark.parametrize('start', [0, 7])
def test_hosts_share_every_batch_of_one_host(load, start):
    whole = take(load().train_batches(10, start_step=start), 12)  # across the ends of epochs of 48
    parts = [take(load(process_index=n, process_count=2).train_batches(10, start_step=start), 12) for n in (0, 1)]
    joined = [{name: np.concatenate([a[name], b[name]]) for name in a} for a, b in zip(*parts)]
    assert same(joined, whole)


@pytest.mark.parametrize(('count', 'limit'), [(1, 0), (2, 0), (3, 0), (1, 11), (3, 11)])
def test_evaluation_counts_every_example_once(load, count, limit):
    hosts = [load(split='test', process_index=n, process_count=count) for n in range(count)]
    batches = [list(host.eval_batches(6, limit=limit)) for host in hosts]
    assert {len(b) for b in batches} == {host.eval_steps(6, limit) for host in hosts}
    assert len({len(b) for b in batches}) == 1
    examples = [i for host in batches for b in host for i in b['index'][b['mask']]]
    assert sorted(examples) == list(range(limit or 20))
    everything = prints(itertools.chain.from_iterable(batches))
    assert len(everything) == len(set(everything)) == (limit or 20)
    assert all(len(b['image']) == 6 // count and not b['image'][~b['mask']].any() for h in batches for b in h)


def test_both_ways_read_the_same_examples(photograph_folder):
    memory, stream = (
        data.load(options(name=str(photograph_folder), size=16, loading=loading), 'test', seed=0)
        for loading in ('memory', 'stream')
    )
    assert same(memory.eval_batches(6), stream.eval_batches(6))


def test_large_splits_are_streamed(photograph_folder):
    size = 48 * 16 * 16 * 3 / 1e9
    for limit, kind in ((size, data.InMemory), (0.9 * size, data.Streamed)):
        config = options(name=str(photograph_folder), size=16, memory_limit_gb=limit)
        assert isinstance(data.load(config, 'train', seed=0), kind)


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
    dataset = data.load(options(name=str(tmp_path), size=16), 'train', seed=0)
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
    dataset = data.load(options(name=str(tmp_path), size=16), 'train', seed=0)
    np.testing.assert_array_equal(dataset.images[0], image)


def test_positions_beyond_32_bits(load):
    epoch = take(load().train_batches(6, start_step=2**31), 8)  # 48 examples, over the ends of two epochs
    assert np.isin(prints(epoch), prints(load().eval_batches(6))).all()


@pytest.fixture(scope='module')
def built_in(tmp_path_factory):
    return str(tmp_path_factory.mktemp('tfds'))


@pytest.fixture
def built(built_in):
    return options(name='photographs', data_dir=built_in)


def test_photographs_are_built_offline(built):
    train, test = (data.load(built, split, seed=0) for split in ('train', 'test'))
    assert train.images.shape == (2048, 96, 96, 3)
    assert train.num_classes == len(photographs.paths()) == 16
    np.testing.assert_array_equal(np.bincount(train.labels), 128)
    np.testing.assert_array_equal(np.bincount(test.labels), 32)
    assert train.images.std() > 40  # pictures, not blanks


def test_hosts_share_a_part_of_a_split(built):
    part = 'train[100:137]'
    whole = data.load(built, part, seed=0)
    assert whole.num_examples == 37
    read = {}
    built.loading = 'stream'
    for n in (0, 1):
        for b in data.load(built, part, seed=0, process_index=n, process_count=2).eval_batches(8):
            read.update({i: x for i, x, keep in zip(b['index'], b['image'], b['mask']) if keep})
    np.testing.assert_array_equal(np.stack([read[i] for i in range(37)]), whole.images)


def test_unlabelled_images_have_label_minus_one(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    builder = tfds.builder('stl10', data_dir=tmp_path, try_gcs=False)
    examples = [(n, {'image': np.full((96, 96, 3), n, np.uint8), 'label': -1}) for n in range(5)]
    monkeypatch.setattr(builder, '_split_generators', lambda dl_manager: {'unlabelled': examples})
    builder.download_and_prepare()
    for loading in ('memory', 'stream'):
        dataset = data.load(options(name='stl10', data_dir=str(tmp_path), loading=loading), 'unlabelled', seed=0)
        (batch,) = dataset.eval_batches(5)
        np.testing.assert_array_equal(batch['label'], -1)
        assert sorted(batch['image'][:, 0, 0, 0]) == [0, 1, 2, 3, 4]


def test_photographs_train_and_test_share_no_pixel():
    for path in photographs.paths():
        with PIL.Image.open(path) as photograph:
            size = photograph.size
        train, test = (photographs.boxes(size, split, path.stem) for split in ('train', 'test'))
        assert train[:, 3].max() <= test[:, 1].min(), path
        for boxes in (train, test):
            assert (boxes[:, :2] >= 0).all()
            assert (boxes[:, 2:] <= np.array(size[::-1])).all()
            assert (boxes[:, 2:] - boxes[:, :2] >= photographs.SIZE).all()


@pytest.mark.parametrize(
    ('changes', 'split', 'message'),
    [
        ({'name': 'cifar01'}, 'train', "tfds has no data set 'cifar01'; near it: .*cifar10"),
        ({'name': 'stl10'}, 'train', 'stl10 is not prepared in .*; prepare it with: tfds build stl10 --data_dir='),
        ({'name': '/nowhere/images'}, 'train', 'there is no folder /nowhere/images; .*FOLDER/SPLIT/CLASS/IMAGE.jpg'),
    ],
)
def test_missing_data_says_where_it_looked_and_what_to_do(tmp_path, changes, split, message):
    with pytest.raises(data.DataError, match=message):
        data.load(options(data_dir=str(tmp_path), **changes), split, seed=0)


def test_unknown_split_names_those_there_are(photograph_folder):
    with pytest.raises(data.DataError, match=r"no split 'validation'; there are: (train, test|test, train)"):
        data.load(options(name=str(photograph_folder)), 'validation', seed=0)


def test_part_of_a_folders_split_cannot_be_asked_for(photograph_folder):
    with pytest.raises(data.DataError, match=r"is a folder, whose splits cannot be cut: 'train\[:50%\]'"):
        data.load(options(name=str(photograph_folder)), 'train[:50%]', seed=0)


def test_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(data.DataError, match=r'no images in .*FOLDER/SPLIT/CLASS/IMAGE.jpg'):
        data.load(options(name=str(tmp_path)), 'train', seed=0)


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
    dataset = data.load(config, 'train', seed=0)
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
    with pytest.raises(data.DataError, match='can be used'):
        next(data.load(options(name=str(tmp_path), size=16, loading=loading), 'train', seed=0).train_batches(1))


def test_an_example_without_a_class_is_left_out(photograph_folder, monkeypatch, capsys):
    original = source.Source._decode

    def decode(source, example):
        decoded = original(source, example)
        return {**decoded, 'label': 2 * decoded['label']}

    monkeypatch.setattr(source.Source, '_decode', decode)
    dataset = data.load(options(name=str(photograph_folder), size=16), 'test', seed=0)
    assert set(dataset.labels) == {0}
    assert 'label 2 of 2 classes' in capsys.readouterr().err
    with pytest.raises(data.DataError, match='were left out'):
        dataset.subset(np.arange(2))


def test_batch_that_does_not_divide_by_the_hosts(load):
    with pytest.raises(data.DataError, match='batch_size=7 does not divide by the 2 hosts'):
        next(load(process_count=2).train_batches(7))


def test_importing_costs_no_tensorflow():
    code = 'import sys, artifacts_jax.artifacts, artifacts_jax.data; sys.exit("tensorflow" in sys.modules)'
    assert subprocess.run([sys.executable, '-c', code], check=False).returncode == 0


@pytest.mark.skipif(not SHARED.exists(), reason=f'no prepared CIFAR-10 in {SHARED}')
def test_prepared_cifar10_is_read():
    config = options(name='cifar10', data_dir=str(SHARED), size=32, loading='stream')
    dataset = data.load(config, 'test[:32]', seed=0)
    (batch,) = dataset.eval_batches(32)
    assert dataset.num_classes == 10
    assert batch['image'].shape == (32, 32, 32, 3)
    assert len(set(batch['label'])) > 5


def test_a_subset_is_a_data_set_of_its_own(photograph_folder):
    config = options(name=str(photograph_folder), size=16, loading='memory')
    whole, chosen = data.load(config, 'train', seed=0), np.array([40, 3, 7])
    part = whole.subset(chosen)
    assert (part.num_examples, part.num_classes) == (3, 2)
    (batch,) = part.eval_batches(4)
    np.testing.assert_array_equal(batch['image'][:3], whole.images[chosen])
    np.testing.assert_array_equal(batch['label'][:3], whole.labels[chosen])
    seen = prints(take(part.train_batches(3), 2))
    assert set(seen[:3]) == set(seen[3:]) == set(prints([batch]))
    np.testing.assert_array_equal(data.original_order(config, 'train'), np.arange(48))  # a folder's is the order read


def test_a_subset_of_streamed_data_is_refused(photograph_folder):
    stream = data.load(options(name=str(photograph_folder), size=16, loading='stream'), 'train', seed=0)
    with pytest.raises(data.DataError, match=r'which is streamed: set data\.loading=memory'):
        stream.subset(np.arange(3))
