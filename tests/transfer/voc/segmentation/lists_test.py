"""The training and test lists of segmentation, and the errors that are raised before training."""

import numpy as np
import PIL.Image
import pytest

from artifacts_jax.config import ConfigError
from artifacts_jax.configs import default
from artifacts_jax.data.errors import DataError
from artifacts_jax.transfer.voc.segmentation import lists
from tests.transfer.voc import trees as of_voc
from tests.transfer.voc.segmentation import trees


@pytest.fixture
def year(tmp_path):
    year = tmp_path / 'VOC2012'
    trees.voc(year, train=(0, 1, 2), val=(3, 4, 5), trainval=range(6))
    return year


def open_lists(year, test='val', train='train', **options):
    config = default.get_config()
    config.data.update(name=str(year), probe_train=train, test=test)
    config.voc_segmentation.update(options)
    lists.check(config)
    return lists.open_lists(config)


def names(records):
    return [int(record.name[-2:]) for record in records]


def test_lists_have_the_images_of_voc(year):
    opened = open_lists(year)
    assert names(opened.train) == [0, 1, 2]
    assert {name: names(records) for name, records in opened.tests.items()} == {'val': [3, 4, 5]}


def test_sbd_is_added_to_voc_whose_masks_win(year):
    trees.sbd(year.parent, 1, 7, 8)
    both = open_lists(year, sbd=str(year.parent)).train
    assert sorted(names(both)) == [0, 1, 2, 7, 8]
    assert {record.mask_file.suffix for record in both if record.name.endswith('1')} == {'.png'}
    alone = open_lists(year, sbd=str(year.parent), voc=False)
    assert names(alone.train) == [1, 7, 8]
    assert names(alone.tests['val']) == [3, 4, 5]
    with pytest.raises(ConfigError, match=r'voc=False without voc_segmentation.sbd: there are no training images'):
        open_lists(year, voc=False)


def test_test_lists_are_files_or_names_joined_with_plus(year):
    path = year.parent / 'seg11valid.txt'
    path.write_text(f'{trees.name(5)}\n{trees.name(3)}\n')
    tests = open_lists(year, test=f'{path}+val').tests
    assert {name: names(records) for name, records in tests.items()} == {str(path): [5, 3], 'val': [3, 4, 5]}


def test_overlap_of_training_and_test_is_an_error_unless_both_are_the_same_list(year, capsys):
    trees.sbd(year.parent, 3, 4, 7)
    with pytest.raises(
        DataError, match=r'^2 of the 3 test images of val are also among the 6 training images, .* 2008_000003'
    ):
        open_lists(year, sbd=str(year.parent))
    with pytest.raises(DataError, match=r'3 of the 6 test images of trainval are also among the 3'):
        open_lists(year, test='trainval')
    assert len(open_lists(year, test='trainval', train='trainval').train) == 6
    assert '6 of the 6 test images of trainval are also training images' in capsys.readouterr().err


def write_mask(path, array, mode=None):
    PIL.Image.fromarray(array).convert(mode or 'L').save(path)


@pytest.mark.parametrize(
    ('spoil', 'message'),
    [
        (
            lambda path: write_mask(path, np.zeros((4, 4), np.uint8)),
            r'000.png: the mask has 4 x 4 pixels, but its image 20 x 24',
        ),
        (
            lambda path: write_mask(path, np.full((20, 24), 21, np.uint8)),
            r'000.png: the mask has the value 21; expected 0 to 20 or 255',
        ),
        (
            lambda path: write_mask(path, np.zeros((20, 24), np.uint8), 'RGB'),
            r'000.png: the Pillow mode is RGB; expected a palette',
        ),
        (lambda path: path.unlink(), r'train.txt: 1 of 3 images have no mask in .*SegmentationClass'),
        (lambda path: path.write_bytes(path.read_bytes()[:80]), r'000.png: cannot be read'),
    ],
)
def test_an_invalid_mask_is_an_error_before_training(spoil, message, year):
    spoil(year / 'SegmentationClass' / '2008_000000.png')
    with pytest.raises(DataError, match=message):
        open_lists(year)


@pytest.mark.parametrize(('split', 'message'), [('train', 'train.txt: lists no image'), ('seg11valid', r'seg11valid')])
def test_an_empty_or_missing_list_is_an_error(split, message, year):
    of_voc.listed(year, 'train', lists='Segmentation')
    with pytest.raises(DataError, match=message):
        open_lists(year, test='val' if split == 'train' else split)


def test_a_tfds_data_set_is_an_error_because_it_has_no_masks():
    with pytest.raises(DataError, match=r'data.name=voc/2012: the tfds data set has no masks; use the folder'):
        open_lists('voc/2012')


def test_the_path_of_a_list_may_contain_a_plus(year):
    path = year.parent / 'c++' / 'mine.txt'
    path.parent.mkdir()
    path.write_text(f'{trees.name(5)}\n')
    assert {name: names(records) for name, records in open_lists(year, test=str(path)).tests.items()} == {
        str(path): [5]
    }


def test_masks_without_a_class_are_an_error(year):
    for n in (4, 5):
        path = year / 'SegmentationClass' / f'{trees.name(n)}.png'
        write_mask(path, np.full(np.asarray(PIL.Image.open(path)).shape, 255, np.uint8))
    path = year.parent / 'void.txt'
    path.write_text(f'{trees.name(4)}\n{trees.name(5)}\n')
    with pytest.raises(DataError, match=r'void.txt of .*: the pixels have no class; expected 1 or more'):
        open_lists(year, test=str(path))
    with pytest.raises(DataError, match=r'training images of .*: the pixels have no class; expected 2'):
        open_lists(year, train=str(path), test='train')
