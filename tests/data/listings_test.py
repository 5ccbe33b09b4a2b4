import numpy as np
import PIL.Image
import pytest

from artifacts_jax import config as configuration
from artifacts_jax import pipeline
from artifacts_jax.data import listings, splits
from tests.data.splits_test import options
from tests.transfer.knn_test import small

NAMES = ('a/one.png', 'a/two 2.png', 'b/three.png', 'four, 4.png')
LISTED = {'train': 'train.csv', 'probe_train': 'train.csv', 'test': 'val.csv'}


@pytest.fixture
def write(tmp_path):
    """Writes list files into a folder of four images of constant grey, and returns the folder."""
    root = tmp_path / 'images'
    for n, name in enumerate(NAMES):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((8, 8, 3), n, np.uint8)).save(root / name)

    def write(train, val='a/one.png 0\n'):
        for name, text in (('train.csv', train), ('val.csv', val)):
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return root

    return write


def opened(root, **changes):
    return splits.open_data(options(name=str(root), size=8, **{**LISTED, **changes}))


def result(root, split='train.csv', **changes):
    """Returns {path: class} of a list file."""
    listed = opened(root, **changes)[split]
    assert (np.diff(listed.sort_keys) >= 0).all()
    return {path: listed.label_names[n] if n >= 0 else None for path, n in zip(listed.paths, listed.labels)}


@pytest.mark.parametrize(
    'text',
    [
        'a/one.png 0\na/two 2.png 1\nfour, 4.png 2\n',
        'a/one.png\t0\na/two 2.png\t 1 \nfour, 4.png\t2',
        'a/one.png,0\na/two 2.png,1\nfour, 4.png, 2\n',
        '# path label\r\n\r\na/one.png   0\r\n ./a/two 2.png 1\r\n/four, 4.png 02\r\n',
        b'\xef\xbb\xbfa/one.png 0\na/two 2.png 1\nfour, 4.png 2\n',
    ],
    ids=['spaces', 'tabs', 'commas', 'Windows, a comment', 'a mark of the order of bytes'],
)
def test_all_separators_and_labels_are_read(text, write):
    assert result(write(text)) == {'a/one.png': '0', 'a/two 2.png': '1', 'four, 4.png': '2'}


def test_equal_labels_are_the_same_class_in_all_list_files(write):
    root = write('a/one.png,ice cream\nb/three.png,abbey', 'a/two 2.png,barn\na/one.png,ice cream')
    assert result(root) == {'a/one.png': 'ice cream', 'b/three.png': 'abbey'}
    assert result(root, 'val.csv') == {'a/two 2.png': 'barn', 'a/one.png': 'ice cream'}
    data = opened(root)
    assert {listed.label_names for listed in data.values()} == {('abbey', 'barn', 'ice cream')}
    numbers = opened(write('a/one.png 3', 'b/three.png -1'))
    assert {listed.label_names for listed in numbers.values()} == {('0', '1', '2', '3')}
    assert result(root, 'val.csv') == {'b/three.png': None}


def test_batches_have_the_listed_images_with_their_labels(write):
    root = write('b/three.png 5\na/one.png 7\n', 'four, 4.png\t7\n')
    config = options(name=str(root), size=8, loading='memory', **LISTED)
    dataset = splits.load(config, 'train.csv', seed=0)
    assert dict(zip(dataset.images[:, 0, 0, 0].tolist(), dataset.labels.tolist())) == {2: 5, 0: 7}
    assert (dataset.num_classes, dataset.present) == (8, {5, 7})
    assert splits.load(config, 'val.csv', seed=0).images.max() == 3


def test_slices_of_a_list_file_are_random_and_its_order_is_known(write):
    root = write(''.join(f'{NAMES[n % 4]} {n}\n' for n in range(40)))
    data = opened(root, train='train.csv[:50%]')
    assert sorted(data['train.csv'].labels) == list(range(40))
    config = options(name=str(root), size=8, loading='memory', **{**LISTED, 'train': 'train.csv[:50%]'})
    half = splits.load(config, 'train.csv[:50%]', seed=0)
    rest = splits.load(config, 'train.csv[50%:]', seed=0)
    assert sorted([*half.labels, *rest.labels]) == list(range(40))
    order = splits.compute_original_order(config, 'train.csv')
    np.testing.assert_array_equal(order, data['train.csv'].labels)


def test_a_list_file_may_be_in_a_subfolder_and_have_no_extension(write):
    root = write('a/one.png 0')
    (root / 'lists').mkdir()
    (root / 'lists' / 'train.txt').write_text('b/three.png 1\n')
    (root / 'listed').write_text('a/one.png 0\n')
    assert result(root, 'lists/train.txt', probe_train='lists/train.txt') == {'b/three.png': '1'}
    assert result(root, 'listed', test='listed') == {'a/one.png': '0'}


def test_a_folder_that_has_moved_is_found_by_its_list_files(write):
    root = write('a/one.png 0')
    config = options(name='/gone/images256', data_dir=str(root), size=8, **LISTED)
    assert len(splits.load(config, 'val.csv', seed=0).labels) == 1


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        (
            'a/one.png 0\n\na/two.png\n',
            r"train.csv, line 3: is 'a/two.png'; expected a path relative to .*, then a label",
        ),
        ('a/one.png,0\na/two 2.png,\n', r"line 2: is 'a/two 2.png,'; expected a path"),
        ('a/one.png 0\nb/four.png 1\nc/five.png 1\n', r'2 of 3 images do not exist in .*images, such as .b/four.png'),
        ('a/one.png 0\nb/three.png abbey\n', r"integers and class names: 0 in line 1, 'abbey' in line 2; use one kind"),
        ('a/one.png,label\nb/three.png,1\n', r"1 in line 2, 'label' in line 1; .* \(a header line must begin with #\)"),
        ('a/one.png abbey\n', r'val.csv has integers as labels, but .*train.csv has class names: use one kind'),
        ('a/one.png -2\n', r'line 1: the label is -2; expected 0, 1, 2, \.\.\., or -1'),
        ('a/one.png 9999999999\n', r'line 1: the label is 9999999999; expected'),
        ('# nothing\n', 'train.csv: lists no image'),
        (b'a\0/\0', 'train.csv: is not a UTF-8 text'),
    ],
)
def test_invalid_list_files_are_a_one_line_error(text, message, write):
    with pytest.raises(splits.DataError, match=message) as error:
        opened(write(text))
    assert '\n' not in str(error.value)


def test_a_missing_list_file_is_an_error_that_lists_the_others(write):
    root = write('a/one.png 0')
    with pytest.raises(
        splits.DataError, match=r'the list file .*trian.csv does not exist; the folder has: train.csv, val'
    ):
        opened(root, probe_train='trian.csv[:90%]')
    config = options(name=str(root), **{**LISTED, 'train': 'train'})
    with pytest.raises(splits.DataError, match=r"has no split 'train'; it has: train.csv, val.csv"):
        splits.load(config, 'train', seed=0)


def test_listed_files_that_are_not_images_are_skipped(write):
    root = write('a/one.png 0\nb/three.png 1\n')
    (root / 'b' / 'three.png').write_bytes(b'no image')
    dataset = splits.load(options(name=str(root), size=8, loading='memory', **LISTED), 'train.csv', seed=0)
    assert dataset.labels.tolist() == [0]
    assert len(dataset.skipped) == 1


def test_splits_without_a_dot_or_a_file_are_folders(write):
    assert listings.find_list_files(options(), write('a/one.png 0')) == []


@pytest.mark.slow
def test_a_task_trains_on_one_list_file_and_tests_on_another(photograph_folder, tmp_path):
    root = tmp_path / 'data'
    root.mkdir()
    for n, name in enumerate(('astronaut', 'coffee')):
        (root / name).symlink_to(photograph_folder / 'train' / name)
        for listing, some in (('train.csv', range(20)), ('val.csv', range(20, 24))):
            with (root / listing).open('a') as file:
                file.write(''.join(f'{name}/{image}.png {n + 1}\n' for image in some))
    config = small(root)
    config.data.update(probe_train='train.csv', test='val.csv')
    result = pipeline.run(configuration.check(config), tmp_path / 'run')
    row = result['knn']['random']
    assert (row['train'], row['test']) == (40, 8)
    assert row['layers']['conv1']['3']['correct'] >= 4
