import numpy as np
import pytest

from artifacts_jax.data.errors import DataError
from artifacts_jax.data.voc import devkit, records
from artifacts_jax.transfer.voc.detection import proposals
from tests.transfer.voc import photographs
from tests.transfer.voc.detection import made

GOOD = [[0, 0, 19, 9], [5, 2, 12, 8], [5, 2, 9, 8]]  # in 10 x 20 pixels


@pytest.fixture
def images():
    """Records of three images, of 20 x 10 pixels and in turn of 10 x 20; there is an object in the first."""
    objects = made.objects(('dog', (5, 2, 12, 8)), ('cat', (0, 0, 5, 9)), ('cat', (18, 0, 19, 1), True))
    return [
        records.Record(name, b'', size, objects if name == 'a' else made.objects())
        for name, size in (('a', (10, 20)), ('b', (20, 10)), ('c', (10, 20)))
    ]


@pytest.fixture
def load(images, tmp_path):
    def load(*boxes):
        arrays = [np.array(each, np.float64).reshape(-1, 4) for each in boxes]
        proposals.write_file(tmp_path / 'boxes.npz', [record.name for record in images], arrays)
        return proposals.load(images, str(tmp_path / 'boxes.npz'), split='trainval of VOC')

    return load


def test_boxes_are_sorted_and_their_recall_is_printed(load, capsys):
    found = load(GOOD, [[0, 0, 9, 19]], GOOD[:2])
    assert [each.tolist() for each in found] == [[GOOD[0], GOOD[2], GOOD[1]], [[0, 0, 9, 19]], GOOD[:2]]
    assert {each.dtype.name for each in found} == {'float32'}
    printed = capsys.readouterr()
    assert printed.out == (
        'proposals of trainval of VOC: 3 images, 2 boxes per image on average (1 to 3); recall of 2 objects: 50.0 % at'
        ' IoU 0.5, 50.0 % at IoU 0.7\n'
    )
    assert printed.err == ''


def test_recall_equals_a_calculation_by_hand():
    dogs = made.objects(('dog', (0, 0, 9, 9)), ('dog', (50, 50, 59, 59), True))
    objects = [dogs, made.objects(('cat', (0, 0, 9, 9)))]
    boxes = [np.array([[0, 0, 9, 5], [50, 50, 59, 59]], np.float32), np.zeros((0, 4), np.float32)]
    assert proposals.compute_recall(objects, boxes) == ([0.5, 0.0], 2)  # 60 of 100 pixels
    assert proposals.compute_recall(objects, boxes, (0.6,)) == ([0.5], 2)
    assert proposals.compute_recall([made.objects()], boxes[1:]) == ([None, None], 0)


def test_boxes_beyond_the_image_are_clipped_with_a_warning(load, capsys):
    many = GOOD * 10
    found = load([*many, [-3, 4, 5, 9]], [[0, 0, 10, 19], [0.5, 1, 9.5, 20]], many)
    assert [0, 4, 5, 9] in found[0].tolist()
    np.testing.assert_array_equal(found[1], [[0, 0, 9, 19], [0.5, 1, 9, 19]])
    warning = capsys.readouterr().err
    assert 'of trainval of VOC: 3 boxes reach beyond their images and are clipped, such as 1 of image a' in warning
    assert warning.count('\n') == 1


def test_empty_boxes_are_skipped_with_a_warning(load, capsys):
    outside = [20.5, 0, 21, 9]  # hardly
    found = load([*GOOD * 10, [5, 5, 4, 9], [5, 5, 9, 4], [9, 9, 2, 2], outside], [[0, 0, 0, 0]], GOOD)
    assert [len(each) for each in found] == [30, 1, 3]
    warning = capsys.readouterr().err
    assert '4 boxes are less than a pixel wide or high and skipped, such as 4 of image a' in warning
    assert warning.count('\n') == 1


def test_an_image_without_boxes_is_a_warning_and_a_split_without_boxes_an_error(load, capsys):
    assert [len(each) for each in load(GOOD, [], GOOD)] == [3, 0, 3]
    printed = capsys.readouterr()
    assert printed.err.endswith('boxes.npz of trainval of VOC: 1 of 3 images have no box, such as b\n')
    assert printed.err.count('\n') == 1
    with pytest.raises(DataError, match=r'boxes\.npz of trainval of VOC: no image has a box$'):
        load([], [], [])


def test_boxes_of_other_images_are_an_error(load):
    with pytest.raises(
        DataError, match='the boxes of 1 of 3 images, such as b, reach beyond the images: they belong to'
    ):
        load(GOOD, GOOD, GOOD)
    with pytest.raises(DataError, match='the boxes of image c contain nan or inf'):
        load(GOOD, [], [[0, 0, np.nan, 5]])


def test_an_unknown_source_is_an_error(images):
    with pytest.raises(DataError, match=r"unknown proposals 'edge_boxes': expected selective_search, or a .mat or .np"):
        proposals.load(images, 'edge_boxes', split='test')
    with pytest.raises(ValueError, match='selective_search needs a folder'):
        proposals.load(images, 'selective_search', split='test')


@pytest.mark.slow
def test_selective_search_finds_most_objects_of_photographs(tmp_path, capsys):
    pytest.importorskip('cv2.ximgproc', reason='no OpenCV with its contributed modules, of [voc]')
    opened = devkit.open_voc(str(photographs.devkit(tmp_path, side=256)), ['trainval'])['trainval']
    found = proposals.load(opened, 'selective_search', split='test', folder=tmp_path)
    assert [100 < len(each) < 2000 for each in found] == 5 * [True]
    (half, most), _ = proposals.compute_recall([record.objects for record in opened], found)
    assert half > 0.8
    assert most > 0.5
    assert 'proposals of test: 5 images' in capsys.readouterr().out
