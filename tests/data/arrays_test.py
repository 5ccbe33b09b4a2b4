import re
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data

from artifacts_jax.data import decoding, splits
from tests.data.splits_test import options, same, take

CROPS = np.stack(
    [skimage.data.astronaut()[y : y + 16, 200:216] for y in range(0, 480, 10)]
)  # 48 of them, all different
LABELS = np.arange(48) % 3
NAMES = ['a', 'b', 'c']


@pytest.fixture
def save(tmp_path):
    """Writes tmp_path/SPLIT.npz."""

    def save(split='train', write=np.savez, **content):
        write(tmp_path / f'{split}.npz', **content)

    return save


@pytest.fixture
def load(tmp_path):
    """Loads a split of tmp_path, or of a file in it."""

    def load(split='train', file='', **changes):
        config = options(**{'name': str(tmp_path / file), 'size': 16, **changes})
        return splits.load(config, split, seed=0)

    return load


@pytest.fixture(params=[np.savez, np.savez_compressed])
def write(request):
    return request.param


def read(dataset):
    """Returns all images and labels of a data set, in order."""
    batches = [{name: x[batch['valid']] for name, x in batch.items()} for batch in dataset.eval_batches(10)]
    return tuple(np.concatenate([batch[name] for batch in batches]) for name in ('image', 'label'))


def test_mapped_batches_equal_batches_in_memory(save, load, write):
    save('train', write, image=CROPS, label=LABELS, label_names=NAMES)
    save('test', write, image=CROPS[:20], label=LABELS[:20])
    for split, count in (('train', 48), ('test', 20)):
        dataset = load(split)
        memory = splits.InMemory(CROPS[:count], LABELS[:count].astype(np.int32), tuple(NAMES), seed=0)
        assert (dataset.num_examples, dataset.num_classes, dataset.label_names) == (count, 3, tuple(NAMES))
        assert same(take(dataset.train_batches(7), 15), take(memory.train_batches(7), 15))
        assert same(dataset.eval_batches(7), memory.eval_batches(7))
        assert same(dataset.subset(np.array([4, 2])).eval_batches(2), memory.subset(np.array([4, 2])).eval_batches(2))


def test_hosts_share_every_batch(save, load, tmp_path):
    save(image=CROPS, label=LABELS)
    config = options(name=str(tmp_path), size=8, loading='stream', test='train')  # resized for each batch
    parts = [splits.load(config, 'train', seed=0, process_index=n, process_count=3) for n in range(3)]
    joined = np.concatenate([next(part.train_batches(6))['image'] for part in parts])
    np.testing.assert_array_equal(joined, next(load(size=8, test='train').train_batches(6))['image'])
    last = [list(part.eval_batches(15))[-1] for part in parts]  # three examples, of which the last host has none
    assert [batch['valid'].sum() for batch in last] == [3, 0, 0]


@pytest.mark.parametrize('loading', ['auto', 'memory', 'stream'])
def test_uncompressed_images_are_mapped(save, load, loading):
    save(image=CROPS)
    save('test', image=np.asfortranarray(CROPS))
    assert isinstance(load(loading=loading).images, np.memmap)
    part = load('train[10:20]', loading=loading).images
    assert isinstance(part, np.memmap)
    np.testing.assert_array_equal(part, CROPS[10:20])
    np.testing.assert_array_equal(load('test', loading=loading).images, CROPS)


def private_memory():
    """Returns the private memory of this process in bytes, without memory-mapped files."""
    return 1024 * int(re.search(r'RssAnon:\s+(\d+)', Path('/proc/self/status').read_text())[1])


def test_a_large_array_takes_no_memory(save, load, tmp_path):
    save(image=np.zeros((20_000, 64, 64, 3), np.uint8))  # 246 MB
    before = private_memory()
    train, test = (load(split, size=64) for split in ('train', 'test'))
    assert sum(1 for dataset in (train, test) for _ in dataset.eval_batches(64)) > 300
    next(train.train_batches(64))
    assert private_memory() - before < 50e6
    (tmp_path / 'train.npz').unlink()


@pytest.mark.parametrize(
    ('split', 'rows'),
    [('train[:25%]', slice(12)), ('train[40:]', slice(40, None)), ('train[-3:]', slice(45, None))],
)
@pytest.mark.parametrize('size', [16, 8])
def test_slices_hold_their_images_and_labels(save, load, write, split, rows, size, tmp_path):
    save('train', write, image=CROPS, label=LABELS)
    save('test', write, image=CROPS)
    images, labels = read(load(split, size=size))
    np.testing.assert_array_equal(images, read(load(size=size))[0][rows])
    np.testing.assert_array_equal(labels, LABELS[rows])
    order = splits.compute_original_order(options(name=str(tmp_path)), split)
    np.testing.assert_array_equal(order, np.arange(len(labels)))


@pytest.mark.parametrize('file', ['', 'train.npz', 'mine.npz'])
@pytest.mark.parametrize('size', [16, 8])
def test_if_train_is_the_only_split_a_fixed_subset_is_test(save, load, write, file, size, capsys):
    save('train', write, image=CROPS, label=np.arange(48))
    if file == 'mine.npz':
        save('mine', write, image=CROPS, label=np.arange(48))
    train, test = (read(load(split, file, size=size)) for split in ('train', 'test'))
    output = capsys.readouterr().out
    assert output.count('\n') == 1
    assert re.search(r'has no split test: a fixed subset of \d images of train is used instead', output)
    assert 3 <= len(test[1]) <= 7
    assert sorted([*train[1], *test[1]]) == list(range(48))
    for images, labels in (train, test):
        np.testing.assert_array_equal(labels, np.sort(labels))
        np.testing.assert_array_equal(images, np.stack([decoding.decode(x, size) for x in CROPS[labels]]))
    np.testing.assert_array_equal(read(load('test[2:]', file, size=size))[1], test[1][2:])
    np.testing.assert_array_equal(read(load('train', file, loading='stream', size=size))[0], train[0])


def test_nothing_is_held_out_unless_the_config_names_test(save, load):
    save(image=CROPS, label=LABELS)
    assert load('train[:90%]', test='train[90%:]').num_examples == 43
    assert load('train[90%:]', test='train[90%:]').num_examples == 5
    save('validation', image=CROPS)
    with pytest.raises(splits.DataError, match=r"has no split 'test'; it has: train, validation"):
        load('test')
    assert load('train').num_examples == 48


def test_one_image_is_too_few_for_train_and_test(save, load):
    save(image=CROPS[:1])
    with pytest.raises(splits.DataError, match='has only one image, but train and test need one each'):
        load()


@pytest.mark.parametrize(
    ('train', 'test', 'names', 'classes'),
    [
        ({}, {}, (), 0),
        ({'label': np.full(48, -1)}, {}, (), 0),
        ({'label': LABELS.astype(np.uint8)}, {'label': np.array([4, 0])}, tuple('01234'), 5),
        ({'label': LABELS.astype('>i2'), 'label_names': NAMES}, {}, tuple('abc'), 3),
        ({'label': LABELS}, {'label': np.array([4, 0]), 'label_names': list('abcdef')}, tuple('abcdef'), 6),
        ({'label': LABELS - 1, 'label_names': NAMES}, {}, tuple('abc'), 0),  # a third are unknown
    ],
)
def test_classes_are_the_union_over_all_splits(save, load, train, test, names, classes):
    save('train', image=CROPS, **train)
    save('test', image=CROPS[:2], **test)
    dataset = load('train')
    assert (dataset.label_names, dataset.num_classes) == (names, classes)
    np.testing.assert_array_equal(dataset.labels, train.get('label', np.full(48, -1)))
    assert dataset.labels.dtype == np.int32
    np.testing.assert_array_equal(load('test').labels, test.get('label', [-1, -1]))


@pytest.mark.parametrize('shape', [(300, 200), (200, 301), (257, 480), (96, 96), (48, 60), (33, 20)])
def test_images_are_resized_as_those_of_a_folder_are(tmp_path, save, load, shape):
    image = skimage.data.astronaut()[: shape[0], : shape[1]]
    save(image=image[None])
    (tmp_path / 'images' / 'train' / 'one').mkdir(parents=True)
    PIL.Image.fromarray(image).save(tmp_path / 'images' / 'train' / 'one' / '0.png')
    options = {'size': 96, 'test': 'train'}
    expected, result = load(file='images', **options).images[0], load(**options).images[0]
    assert result.shape == (96, 96, 3)
    np.testing.assert_array_equal(result, expected)


def test_images_are_resized_once_if_they_fit_in_memory(save, load):
    save(image=CROPS)
    save('test', image=CROPS)
    room = 48 * 8 * 8 * 3 / 1e9
    kinds = {
        splits.InMemory: ({'memory_limit_gb': room}, {'memory_limit_gb': 0.9 * room, 'loading': 'memory'}),
        splits.Streamed: ({'memory_limit_gb': 0.9 * room}, {'memory_limit_gb': room, 'loading': 'stream'}),
    }
    expected = take(load(size=8).train_batches(5), 12)
    for kind, cases in kinds.items():
        for changes in cases:
            dataset = load(size=8, **changes)
            assert type(dataset) is kind
            assert same(take(dataset.train_batches(5), 12), expected)


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ({'images': CROPS}, 'has no array image; it has images; expected image'),
        ({'image': CROPS / 255}, r'image is float64 \[48, 16, 16, 3\], expected uint8 .* in 0..255 \(if 1.0 is white'),
        ({'image': CROPS.astype(np.int64)}, r'image is int64 .*image.astype\(np.uint8\)'),
        ({'image': CROPS.transpose(0, 3, 1, 2)}, r'image is uint8 \[48, 3, 16, 16\], .*transpose\(0, 2, 3, 1\)'),
        ({'image': CROPS[..., 0]}, r'image is uint8 \[48, 16, 16\], .*grey images need three channels: np.repeat'),
        ({'image': CROPS[..., :1]}, r'image is uint8 \[48, 16, 16, 1\], .*grey images'),
        ({'image': CROPS[..., [0, 1, 2, 0]]}, r'image is uint8 \[48, 16, 16, 4\], .*image\[..., :3\]'),
        ({'image': CROPS[..., :2]}, r'image is uint8 \[48, 16, 16, 2\], .*one array of RGB images'),
        ({'image': CROPS[0, 0]}, r'image is uint8 \[16, 3\], expected uint8 \[N, H, W, 3\]'),
        ({'image': CROPS[:0]}, r'image is uint8 \[0, 16, 16, 3\], .*at least one image'),
        ({'image': CROPS[:, :0]}, r'image is uint8 \[48, 0, 16, 3\], .*at least one pixel'),
        (
            {'image': np.array([CROPS[0], None], object)},
            r'image is object \[2\], .*object arrays are not unpickled.*np.stack',
        ),
        ({'image': CROPS, 'label': LABELS[:-1]}, r'label is int64 \[47\], expected integers \[48\]'),
        ({'image': CROPS, 'label': LABELS[:, None]}, r'label is int64 \[48, 1\], expected integers \[48\]'),
        ({'image': CROPS, 'label': LABELS / 1}, r'label is float64 \[48\], expected integers \[48\]'),
        ({'image': CROPS, 'label': LABELS.astype(object)}, r'label is object \[48\], expected integers'),
        ({'image': CROPS, 'label': LABELS + 1, 'label_names': NAMES}, 'label holds 3, expected 0 to 2 by label_names'),
        ({'image': CROPS, 'label': LABELS - 2}, r'label holds -2, expected classes 0, 1, 2, ..., or -1 for unknown'),
        ({'image': CROPS, 'label': LABELS.astype(np.uint64) + 2**63}, r'label holds 9223372036854775808, expected'),
        ({'image': CROPS, 'label_names': [1, 2]}, r'label_names is int64 \[2\], expected strings \[classes\]'),
        ({'image': CROPS, 'label_names': 'abc'}, r'label_names is <U3 \[\], expected strings \[classes\]'),
        ({'image': CROPS, 'label_names': np.array(NAMES, object)}, r'label_names is object \[3\], expected strings'),
    ],
)
def test_invalid_arrays_are_an_error(save, load, write, content, message):
    save('train', write, **content)
    with pytest.raises(splits.DataError, match=rf'{re.escape("/train.npz")}\S* {message}'):
        load()
    with pytest.raises(splits.DataError, match=message):
        load(file='train.npz')


def test_missing_or_different_splits_are_an_error(save, load):
    with pytest.raises(splits.DataError, match=r'data.name=.*/gone.npz: this folder or file does not exist; expected'):
        load(file='gone.npz')
    save(image=CROPS)
    with pytest.raises(splits.DataError, match=r"has no split 'unlabelled\[:10%\]'; it has: train"):
        load('unlabelled[:10%]')
    with pytest.raises(splits.DataError, match=r"'train\[40:50\]' of \S+ means the examples .*, but there are 4\d"):
        load('train[40:50]')
    save('test', image=CROPS, label_names=['a'])
    save('train', image=CROPS, label_names=['b'])
    with pytest.raises(splits.DataError, match=r'test.npz and .*train.npz have different label_names'):
        load()


def test_data_that_has_moved_is_found_in_data_dir(tmp_path):
    images = np.zeros((4, 16, 16, 3), np.uint8)
    (tmp_path / 'moved' / 'data').mkdir(parents=True)
    np.savez(tmp_path / 'moved' / 'data' / 'train.npz', image=images)
    config = options(name=str(tmp_path / 'data'), size=16, test='train')
    for folder in (tmp_path / 'moved', tmp_path / 'moved' / 'data'):
        config.data_dir = str(folder)
        assert splits.load(config, 'train', seed=0).num_examples == 4
    config.data_dir = '/nowhere'
    with pytest.raises(
        splits.DataError,
        match=r'data.name=.*data: this folder or file does not exist, and data.data_dir=/nowhere does not contain it',
    ):
        splits.load(config, 'train', seed=0)
