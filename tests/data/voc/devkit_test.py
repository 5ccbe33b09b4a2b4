import shutil

import numpy as np
import pytest

from artifacts_jax.data import splits
from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import devkit
from artifacts_jax.data.voc.annotations import NAMES
from artifacts_jax.transfer.voc import svm_task
from artifacts_jax.transfer.voc.classification import task as classification
from artifacts_jax.transfer.voc.detection import task as detection
from tests.transfer.voc import photographs
from tests.transfer.voc.trees import add, an_object, annotation, listed

MASK = np.zeros((12, 16), np.uint8)
MASK[2:5, 3:9], MASK[6] = 15, 255


@pytest.fixture(params=[classification, detection, svm_task], ids=['classification', 'detection', 'svm'])
def task(request):
    return request.param


@pytest.fixture
def year(tmp_path):
    """Returns a folder VOC2007 with five images: four in train and val, one in test; two have masks."""
    year = tmp_path / 'VOCdevkit' / 'VOC2007'
    add(year, '000001', annotation(an_object('dog', (2, 3, 16, 12)), an_object('cat', difficult=1)), mask=MASK)
    add(year, '000002', annotation(an_object('dog', difficult=1), an_object('dog', (1, 2, 3, 4), truncated=1)))
    add(year, '000003', annotation(), mask=MASK * 0)
    add(year, '000004', annotation(an_object('person'), size=(20, 30)), size=(20, 30), suffix='.jpg')
    add(year, '000005', annotation(an_object('sofa')))
    listed(year, 'train', '000001', '000003')
    listed(year, 'val', '000002', '000004')
    listed(year, 'test', '000005')
    listed(year, 'train', '000003', '000001', lists='Segmentation')
    return year


def labels(**present):
    return [present.get(name, -1) for name in NAMES]


@pytest.mark.parametrize('place', ['VOCdevkit', 'VOCdevkit/VOC2007', '.'])
def test_a_folder_is_found_from_any_level(year, tmp_path, place):
    opened = devkit.open_voc(str(tmp_path / place), ('train', 'val', 'trainval', 'test'))
    assert {split: [record.name for record in result] for split, result in opened.items()} == {
        'train': ['000001', '000003'],
        'val': ['000002', '000004'],
        'trainval': ['000001', '000003', '000002', '000004'],  # there is no such list, but these two
        'test': ['000005'],
    }


def test_the_fields_of_a_record(year, capsys):
    first, second, *_ = devkit.open_voc(str(year), ['trainval'])['trainval']
    assert first.size == (12, 16)
    np.testing.assert_array_equal(first.labels, labels(dog=1, cat=0))
    np.testing.assert_array_equal(second.labels, labels())
    np.testing.assert_array_equal(first.objects.labels, [NAMES.index('dog'), NAMES.index('cat')])
    np.testing.assert_array_equal(first.objects.boxes, [[2, 3, 16, 12], [1, 1, 4, 4]])
    np.testing.assert_array_equal(first.objects.is_difficult, [False, True])
    np.testing.assert_array_equal(first.read_image(), add(year, '000001'))
    np.testing.assert_array_equal(first.read_mask(), MASK)
    (train, both) = devkit.open_voc(str(year), ['val'])['val']
    assert train.read_mask() is None
    np.testing.assert_array_equal(train.labels, labels(dog=1))  # one of two is not difficult
    np.testing.assert_array_equal(train.objects.is_truncated, [False, True])
    assert both.read_image().shape == (20, 30, 3)
    assert capsys.readouterr() == ('', '')


def open_splits(config, year, train, test):
    config.data.update(name=str(year), probe_train=train, test=test)
    datasets = splits.Datasets(config)
    result = devkit.open_splits(config, datasets)
    assert devkit.open_splits(config, datasets) is result  # once in a run, whichever task asks
    return result


def test_overlap_of_training_and_test_images_is_a_warning(year, config, capsys):
    listed(year, 'both', '000001', '000002')
    open_splits(config, year, 'train', 'test')
    assert 'also training images' not in capsys.readouterr().err
    open_splits(config, year, 'train', 'both')
    assert 'test images of both are also training images of train' in capsys.readouterr().err


def test_a_split_without_a_decodable_image_is_an_error(year, config):
    (path,) = (year / 'JPEGImages' / f'{name}.png' for name in (year / 'ImageSets/Main/test.txt').read_text().split())
    path.write_bytes(path.read_bytes()[:60])
    assert devkit.open_voc(str(year), ['test'])['test'][0].size == (12, 16)  # by its beginning
    with pytest.raises(DataError, match=r'test of .*VOC2007: none of the 1 checked images can be used: \d+ \('):
        open_splits(config, year, 'train', 'test')


def test_segmentation_has_its_own_image_lists_and_needs_no_annotations(year):
    (year / 'Annotations' / '000003.xml').unlink()
    first, second = devkit.open_voc(str(year), ['train'], lists='Segmentation')['train']
    assert (first.name, second.name) == ('000003', '000001')
    assert not first.labels.any()
    assert not len(first.objects.labels)
    np.testing.assert_array_equal(second.read_mask(), MASK)


def test_class_files_set_the_labels_and_a_difference_is_a_warning(year, capsys):
    listed(year, 'dog_train', '000001  1', '000003 -1')
    devkit.open_voc(str(year), ['train'])
    assert capsys.readouterr().err == ''
    listed(year, 'cat_train', '000001 -1', '000003  0', '999999 1')
    first, second = devkit.open_voc(str(year), ['train'])['train']
    np.testing.assert_array_equal(first.labels, labels(dog=1))
    np.testing.assert_array_equal(second.labels, labels(cat=0))
    output = capsys.readouterr().err
    assert 'train.txt: 2 images have labels in CLASS_SPLIT.txt that differ from their objects' in output
    assert output.count('\n') == 1


def test_lists_of_other_systems(year):
    (year / 'ImageSets' / 'Main' / 'train.txt').write_bytes(b'\xef\xbb\xbf000001 \r\n\r\n000003\r\n')
    assert len(devkit.open_voc(str(year), ['train'])['train']) == 2


def test_boxes_are_clipped_to_the_size_of_the_image(year, capsys):
    objects = an_object('dog', (0, 3.5, 17, 12)), an_object('cow', (17, 1, 20, 5)), an_object('cat', (1, 1, 16, 12))
    add(year, '000001', annotation(*objects, size=(99, 99)))
    record = devkit.open_voc(str(year), ['train'])['train'][0]
    assert record.size == (12, 16)
    np.testing.assert_array_equal(record.objects.boxes, [[1, 3.5, 16, 12], [1, 1, 16, 12]])
    np.testing.assert_array_equal(record.labels, labels(dog=1, cat=1))
    output = capsys.readouterr().err
    assert '1 images have another size than their annotations state' in output
    assert '1 images have objects completely outside of the image, which are ignored, such as 000001' in output


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda year: shutil.rmtree(year / 'ImageSets'), 'VOC2007 and its subfolders have no ImageSets'),
        (lambda year: listed(year, 'train', ''), r'train.txt: lists no image'),
        (lambda year: listed(year, 'train', '000001 1'), r"train.txt, line 1: is '000001 1'; expected the name"),
        (lambda year: listed(year, 'train', '000001', '000001'), 'train.txt: lists 000001 more than once'),
        (lambda year: (year / 'ImageSets/Main/train.txt').write_bytes(b'\xff\xfe'), 'train.txt: cannot be read as'),
        (lambda year: (year / 'ImageSets/Main/train.txt').unlink(), "'train' does not exist; the lists are: test, val"),
        (lambda year: (year / 'Annotations/000003.xml').unlink(), '1 of 2 images have no annotation .*as 000003$'),
        (lambda year: shutil.rmtree(year / 'Annotations'), '2 of 2 .* no annotation .*publishes none for some splits'),
        (lambda year: (year / 'JPEGImages/000003.png').unlink(), r'1 of 2 images have no image in .*JPEGImages'),
        (lambda year: (year / 'JPEGImages/000003.png').write_bytes(b'no'), '000003.png: it is not an image that'),
        (lambda year: (year / 'Annotations/000003.xml').write_text('<annot'), '000003.xml: cannot be read as XML'),
        (lambda year: add(year, '000003', annotation(an_object('potted plant'))),
         "000003.xml, object 1: 'potted plant' is not a class of VOC; did you mean 'pottedplant'"),
        (lambda year: listed(year, 'cow_train', '000001'),
         "cow_train.txt, line 1: is '000001'; expected .* -1, 0 or 1"),
        (lambda year: add(year, '000001', mask=np.stack([MASK] * 3, axis=-1)),
         '000001.png: the Pillow mode is RGB; .* a palette'),
        (lambda year: add(year, '000001', mask=MASK.T.copy()),
         '000001.png: the mask has 16 x 12 pixels, but its image 12 x 16'),
    ],
)  # fmt: skip
def test_an_invalid_folder_is_an_error_at_opening(year, change, message):
    change(year)
    with pytest.raises(DataError, match=message) as error:
        devkit.open_voc(str(year), ['train'])
    assert '\n' not in str(error.value)


def test_a_folder_of_several_years_is_an_error(year):
    shutil.copytree(year, year.parent / 'VOC2012')
    with pytest.raises(
        DataError,
        match=r'VOCdevkit has several years, VOC2007, VOC2012; set data.name to one, such as \S+VOCdevkit/VOC2007$',
    ):
        devkit.open_voc(str(year.parent), ['train'])


def test_a_missing_folder_is_an_error():
    with pytest.raises(DataError, match=r'data.name=voc07: this folder does not exist; expected VOCdevkit'):
        devkit.open_voc('voc07', ['train'])
    with pytest.raises(DataError, match=r'voc/2007: the tfds data set has no masks; .* VOCdevkit/VOC2007$'):
        devkit.open_voc('voc/2007', ['train'], lists='Segmentation')


@pytest.mark.parametrize('lists', ['Main', 'Segmentation'])
def test_photographs(lists, tmp_path, capsys):
    result = devkit.open_voc(str(photographs.devkit(tmp_path, side=128)), ['trainval'], lists=lists)['trainval']
    assert [record.name for record in result] == ['astronaut', 'camera', 'chelsea', 'flower', 'motorcycle_left']
    assert [record.read_image().shape[:2] for record in result] == [
        (128, 128),
        (128, 128),
        (85, 128),
        (85, 128),
        (86, 128),
    ]
    assert [sorted(np.unique(record.read_mask())) for record in result] == [
        [0, 1, 15, 255], [0, 15, 255], [0, 8, 255], [0, 16, 255], [0, 9, 14, 255]
    ]  # fmt: skip
    for record in result:
        inside = {NAMES.index(label) for label, _ in photographs.OUTLINES[record.name]}
        assert {*record.objects.labels} == inside
        for label, box in zip(record.objects.labels, record.objects.boxes.astype(int)):
            rows, columns = np.nonzero(record.read_mask() == label + 1)
            assert box[0] - 1 <= columns.min() < columns.max() <= box[2] - 1
            assert box[1] - 1 <= rows.min() < rows.max() <= box[3] - 1
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize('split', ['trainval', 'test'])
@pytest.mark.parametrize('objects', [(), (an_object('cat', difficult=1),)])
def test_splits_without_a_positive_label_are_an_error_in_every_task(task, split, objects, config, tmp_path):
    year = tmp_path / 'VOC2007'
    for each in ('trainval', 'test'):
        add(year, each, annotation(*(objects if each == split else [an_object('cat')])))
        listed(year, each, each)
    config.data.update(name=str(year), probe_train='trainval', test='test')
    with pytest.raises(DataError, match=f'{split} of {year}: none of the 1 images has a positive label'):
        task.open_data(config, splits.Datasets(config))
